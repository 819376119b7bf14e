// A photo that speaks what the microphone hears: one WebSocket out and back, shown while it comes.

import { Refusal, askJson, getKey } from "./api.js";
import { showError } from "./job.js";
import { MannerField } from "./manner.js";

const $ = (id) => document.getElementById(id);
const PIECE_SECONDS = 0.04;
const LATE_SECONDS = 1; // farther behind what has come, the picture jumps
const NEAR_SECONDS = 0.2;
const KEPT_SECONDS = 20;

/** 16-bit samples of -1..1. */
const toPcm = (samples) => Int16Array.from(samples, (value) => Math.round(32767 * Math.max(-1, Math.min(1, value))));

class Film {
  constructor(video) {
    this.video = video;
    this.waiting = [];
  }

  /** Show pieces of a fragmented MP4 from now on. */
  open(mime) {
    const source = new MediaSource();
    this.waiting = [];
    this.buffer = null;
    this.video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      this.buffer = source.addSourceBuffer(mime);
      this.buffer.addEventListener("updateend", () => this.next());
      this.next();
    }, { once: true });
    this.video.play().catch(() => {});
  }

  push(piece) {
    this.waiting.push(piece);
    this.next();
  }

  next() {
    if (!this.buffer || this.buffer.updating) return;
    const shown = this.video.buffered;
    if (shown.length) {
      const [first, last, now] = [shown.start(0), shown.end(shown.length - 1), this.video.currentTime];
      if (last - now > LATE_SECONDS || now < first) this.video.currentTime = Math.max(first, last - NEAR_SECONDS);
      if (now - first > 2 * KEPT_SECONDS) {
        this.buffer.remove(0, now - KEPT_SECONDS);
        return;
      }
    }
    if (this.waiting.length) this.buffer.appendBuffer(this.waiting.shift());
  }
}

export class LiveView {
  constructor() {
    this.film = new Film($("live-video"));
    this.manner = new MannerField("live-manner");
    this.socket = null;
    $("live-start").addEventListener("click", () => this.start());
    $("live-stop").addEventListener("click", () => this.stop());
    $("live-photo").addEventListener("change", () => {
      this.tell("");
      this.manner.fit(this.model);
    });
  }

  /** The section is shown where an engine speaks live, and this browser can listen. */
  setEngines(engines) {
    const able = engines.find((engine) => engine.live);
    $("live").hidden = !able || !window.MediaSource || !navigator.mediaDevices;
    this.model = able?.id;
    this.manner.fit(this.model);
  }

  async start() {
    $("live-error").hidden = true;
    $("live-start").disabled = true;
    try {
      const [photo] = $("live-photo").files;
      if (!photo) throw new Refusal("Choose a photo of a face first.");
      this.tell("Waiting for the microphone");
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: true }).catch(() => {
        throw new Refusal("The microphone cannot be used. Allow it in the browser and try again.");
      });
      this.tell("Sending the photo");
      const body = new FormData();
      body.set("file", photo);
      const asset = await askJson("/v1/assets", { method: "POST", body });
      await this.listen(asset.id);
    } catch (error) {
      this.end(error);
    }
  }

  async listen(image) {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/web/mic.js");
    const mic = new AudioWorkletNode(this.context, "mic");
    const rate = this.context.sampleRate;
    let block = [];
    mic.port.onmessage = ({ data }) => {
      if (!this.stream || this.socket?.readyState !== WebSocket.OPEN) return; // blocks are still on their way after the end
      block.push(...data);
      if (block.length < rate * PIECE_SECONDS) return;
      this.socket.send(toPcm(block));
      block = [];
    };
    const address = new URL("/v1/portraits/live", window.location);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const [key, avatar] = [getKey(), this.manner.chosen];
      const more = { ...(avatar ? { avatar_id: avatar } : {}), ...(key ? { api_key: key } : {}) };
      socket.send(JSON.stringify({ type: "start", image, rate, model: this.model, ...more }));
      this.context.createMediaStreamSource(this.stream).connect(mic);
      this.tell("Getting ready");
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.hear(JSON.parse(data)) : this.film.push(data));
    socket.onclose = () => this.socket === socket && this.end(new Refusal("The connection broke. Start again."));
  }

  hear(news) {
    if (news.type === "started") {
      this.film.open(news.mime);
      $("live-video").hidden = $("live-stop").hidden = false;
      $("live-start").hidden = true;
      this.tell("Speak");
    }
    if (news.type === "error") this.end(new Refusal(news.error.message, 0, news.error));
    if (news.type === "done") this.end();
  }

  /** No more sound; what was said is still shown. */
  stop() {
    this.hush();
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send('{"type": "end"}');
    else this.end();
  }

  hush() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.context?.close().catch(() => {});
    this.stream = this.context = null;
  }

  end(error = null) {
    const socket = this.socket;
    this.socket = null;
    this.hush();
    socket?.close();
    $("live-start").disabled = $("live-start").hidden = false;
    $("live-stop").hidden = true;
    this.tell("");
    if (error) showError($("live-error"), error);
  }

  tell(words) {
    $("live-state").textContent = words;
  }
}
