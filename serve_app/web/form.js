// What the person asks for: files, words, options; and the form's body for `POST /v1/videos`.

import { Refusal } from "./api.js";
import { MannerField } from "./manner.js";

const $ = (id) => document.getElementById(id);
const KNOWN = ["expression", "quality", "face", "emotion", "gaze", "distance"]; // options that have a field of their own in the page
const MOODS = ["happy", "sad", "surprised", "angry"]; // told by `emotion`
const NAMES = { video_rewrite: "Own mouths (video_rewrite)", portrait: "Speaking portrait (portrait)" };

export const isPicture = (file) => file.type.startsWith("image/");
export const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function preview(file, kind) {
  const media = document.createElement(kind === "audio" ? "audio" : isPicture(file) ? "img" : "video");
  media.src = URL.createObjectURL(file);
  if (kind === "audio") media.controls = true;
  else if (media.tagName === "IMG") media.alt = "";
  else Object.assign(media, { muted: true, preload: "metadata", ariaLabel: "The chosen video" });
  if (media.tagName === "VIDEO") {
    media.addEventListener("error", () => (media.hidden = true)); // a format that this browser cannot show
    media.addEventListener("loadedmetadata", () => (media.hidden = !media.videoWidth));
  }
  return media;
}

const sentence = (words) => words && `${words[0].toUpperCase()}${words.slice(1)}${words.endsWith(".") ? "" : "."}`;

/** A field that a file can be dropped on. `onChange` hears of every new file, and of none. */
export class Drop {
  constructor(name, onChange) {
    Object.assign(this, { name, onChange, file: null, box: $(`${name}-drop`), input: $(name) });
    this.input.addEventListener("change", () => this.input.files[0] && this.take(this.input.files[0]));
    for (const kind of ["dragover", "dragenter"]) this.box.addEventListener(kind, (event) => this.hover(event, true));
    for (const kind of ["dragleave", "drop"]) this.box.addEventListener(kind, (event) => this.hover(event, false));
    this.box.addEventListener("drop", (event) => event.dataTransfer.files[0] && this.take(event.dataTransfer.files[0]));
  }

  hover(event, over) {
    event.preventDefault();
    this.box.classList.toggle("over", over);
  }

  take(file) {
    this.file = file;
    const picked = this.box.querySelector(".picked");
    const media = preview(file, this.name);
    const what = Object.assign(document.createElement("div"), { className: "what" });
    const facts = Object.assign(document.createElement("span"), { className: "hint", textContent: size(file.size) });
    const seconds = () => Number.isFinite(media.duration) && (facts.textContent = `${size(file.size)}, ${media.duration.toFixed(1)} s`);
    media.addEventListener("loadedmetadata", seconds);
    const title = Object.assign(document.createElement("b"), { textContent: file.name, title: file.name });
    const change = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Change" });
    change.addEventListener("click", () => this.clear());
    what.append(title, facts);
    if (this.name === "audio") what.append(media);
    picked.replaceChildren(...(this.name === "audio" ? [what, change] : [media, what, change]));
    this.show(true);
    change.focus({ preventScroll: true });
  }

  clear() {
    this.file = null;
    this.input.value = "";
    this.box.querySelector(".picked").replaceChildren();
    this.show(false);
    this.input.focus();
  }

  show(full) {
    this.box.classList.toggle("full", full);
    this.box.querySelector(".picked").hidden = !full;
    this.onChange(this.file);
  }
}

export class Form {
  constructor() {
    this.engines = [];
    this.source = new Drop("source", () => this.fit());
    this.audio = new Drop("audio", () => {});
    this.manner = new MannerField("manner");
    for (const radio of document.querySelectorAll("[name=speech]")) radio.addEventListener("change", () => this.fit());
    $("engine").addEventListener("change", () => this.fitEngine());
    $("text").addEventListener("input", () => this.count());
    $("expression").addEventListener("input", () => this.tellExpression());
    this.tellExpression();
    // a file that misses its field must not replace the page
    for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  }

  get speech() {
    return document.querySelector("[name=speech]:checked").value;
  }

  get picture() {
    return this.source.file !== null && isPicture(this.source.file);
  }

  setEngines(engines) {
    this.engines = engines;
    this.fit();
  }

  /** Show what can be asked for with the chosen kind of input. */
  fit() {
    $("words").hidden = this.speech !== "text";
    $("audio-drop").hidden = this.speech !== "audio";
    for (const part of document.querySelectorAll("[data-for=video]")) part.hidden = this.picture;
    const usable = this.engines.filter((engine) => (this.picture ? engine.picture_options.length : engine.takes === "video"));
    const chosen = $("engine").value;
    $("engine").replaceChildren(...usable.map((engine) => new Option(NAMES[engine.id] ?? engine.id, engine.id)));
    const wanted = usable.find((engine) => engine.id === chosen) ?? usable.find((engine) => engine.id in NAMES) ?? usable[0];
    if (wanted) $("engine").value = wanted.id;
    this.fitEngine();
  }

  fitEngine() {
    const engine = this.engines.find((one) => one.id === $("engine").value);
    const options = (this.picture ? engine?.picture_options : engine?.options) ?? [];
    const waits = engine && engine.state !== "ready" ? " It is loaded when it is asked for, so the first job takes longer." : "";
    $("engine-about").textContent = engine ? `${sentence(engine.about)}${waits}` : "";
    for (const field of document.querySelectorAll("[data-option]")) field.hidden = !options.includes(field.dataset.option);
    this.manner.fit(this.picture ? engine?.id : "");
    $("own-options").replaceChildren(...options.filter((name) => ![...KNOWN, ...MOODS].includes(name)).map(numberField));
  }

  count() {
    const length = $("text").value.length;
    $("text-length").textContent = length ? `${length} characters.` : "";
  }

  tellExpression() {
    const value = Number($("expression").value);
    $("expression-now").textContent = value === 1 ? "(as filmed)" : `(${Math.round(100 * value)} %)`;
  }

  /** The body of the request. Raises Refusal that says what is missing. */
  body() {
    const body = new FormData();
    const [file, sound] = [this.source.file, this.speech === "audio" ? this.audio.file : null];
    if (!file) throw new Refusal("Choose a video or a photo first.", 0, { param: "source" });
    if (file.size === 0) throw new Refusal(`${file.name} is empty. Choose another file.`, 0, { param: "source" });
    const words = $("text").value.trim();
    if (this.speech === "text" && !words) throw new Refusal("Type the words that shall be said.", 0, { param: "text" });
    if (this.speech === "audio" && !sound) throw new Refusal("Choose a sound, or type the words instead.", 0, { param: "audio" });
    body.set("model", $("engine").value);
    if (this.picture) this.addPictureFields(body);
    else this.addVideoFields(body);
    const part = this.picture ? null : this.part();
    if (part) body.set("segments", JSON.stringify([{ ...part, ...(sound ? { audio: "speech" } : { text: words }) }]));
    else if (!sound) body.set("text", words);
    body.set("options", JSON.stringify(this.options()));
    // files last: a refused field is answered before they are read
    if (sound) body.set(part ? "speech" : "audio", sound);
    body.set(this.picture ? "image" : "video", file);
    return body;
  }

  addPictureFields(body) {
    body.set("report", "false");
    if (this.manner.chosen) body.set("avatar_id", this.manner.chosen);
  }

  addVideoFields(body) {
    body.set("sync_mode", $("sync-mode").value);
    body.set("report", String($("report").checked));
    if ($("chunks").value) body.set("chunks", $("chunks").value);
  }

  part() {
    const [start, end] = [$("start").value.trim(), $("end").value.trim()].map((words) => words.replace(",", "."));
    if (!start && !end) return null;
    const length = this.source.box.querySelector("video")?.duration;
    const last = end || (Number.isFinite(length) ? length.toFixed(3) : "");
    if (!last) throw new Refusal("Say where the part ends, in seconds.", 0, { param: "end" });
    return { start: start || "0", end: last };
  }

  options() {
    const found = {};
    for (const name of KNOWN) if (!$(name).closest("[data-option]").hidden) found[name] = $(name).value;
    for (const input of $("own-options").querySelectorAll("input")) if (input.value) found[input.name] = input.value;
    return { ...found, ...(found.expression ? { expression: Number(found.expression) } : {}) };
  }
}

function numberField(name) {
  const label = Object.assign(document.createElement("label"), { textContent: name.replaceAll("_", " ") });
  label.append(Object.assign(document.createElement("input"), { type: "number", step: "any", name, placeholder: "as the engine likes" }));
  return label;
}
