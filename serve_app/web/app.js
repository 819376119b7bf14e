// The page at `/`: wires the form, the job on show, the list of jobs, and the key.

import { Refusal, ask, askJson, getKey, setKey, upload } from "./api.js";
import { Form, size } from "./form.js";
import { LiveView } from "./live.js";
import { JobView, showBadge, showError, statusOf } from "./job.js";

const $ = (id) => document.getElementById(id);
const READY_MILLISECONDS = 10_000;
const PAGE = 8; // jobs

const form = new Form();
const view = new JobView(() => loadRecent());
const live = new LiveView();
let attempt = ""; // names one request, so that sending it again after a broken connection makes no second job

const newName = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

async function create(event) {
  event.preventDefault();
  $("form-error").hidden = true;
  $("create").disabled = true;
  try {
    const body = form.body();
    const file = form.source.file;
    attempt ||= newName();
    const sending = upload("/v1/videos", body, { "Idempotency-Key": attempt }, (sent, total) =>
      view.progress(sent < total ? "Sending" : "Checking the files", sent < total ? sent / total : null, `${size(sent)} of ${size(total)}`),
    );
    view.open(file.name, sending.stop);
    view.progress("Sending", 0);
    toView();
    const job = await sending.done;
    attempt = "";
    view.remember(job.id, file);
    window.location.hash = job.id; // shows it
    loadRecent();
  } catch (error) {
    if (view.id === null) view.close();
    if (error.name !== "AbortError") refuse(error);
  } finally {
    $("create").disabled = false;
  }
}

function refuse(error) {
  if (error.status) attempt = "";
  showError($("form-error"), error);
  const field = error.status ? null : $(error.param || "form-error");
  (field && !field.hidden ? field : $("form-error")).focus();
  $("form-error").scrollIntoView({ block: "nearest" });
}

function toView() {
  if (window.matchMedia("(max-width: 60rem)").matches) $("job").scrollIntoView({ behavior: "smooth", block: "start" });
}

function showWanted() {
  const id = window.location.hash.slice(1);
  if (/^[A-Za-z0-9_-]+$/.test(id) && id !== "form" && id !== view.id) view.show(id);
}

async function loadRecent(after = null) {
  try {
    const page = await askJson(`/v1/videos?limit=${PAGE}${after ? `&after=${after}` : ""}`);
    const rows = page.data.map(recentRow);
    if (after) $("recent").append(...rows);
    else $("recent").replaceChildren(...rows);
    $("none").hidden = $("recent").children.length > 0;
    $("older").hidden = !page.has_more;
    $("older").dataset.after = page.last_id ?? "";
  } catch (error) {
    if (error.status !== 401) $("ready").title = error.message;
  }
}

function recentRow(job) {
  const row = document.createElement("li");
  const what = document.createElement("div");
  const when = new Date(1000 * job.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const length = Number(job.seconds) > 0 ? ` · ${Number(job.seconds).toFixed(1)} s` : "";
  what.append(
    Object.assign(document.createElement("b"), { textContent: job.prompt || "A recorded sound" }),
    Object.assign(document.createElement("span"), { className: "hint", textContent: `${when} · ${job.model}${length}` }),
  );
  const badge = document.createElement("span");
  showBadge(badge, statusOf(job));
  const open = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Show" });
  open.setAttribute("aria-label", `Show: ${job.prompt || "a recorded sound"}, ${when}`);
  open.addEventListener("click", () => {
    if (window.location.hash === `#${job.id}`) view.show(job.id);
    else window.location.hash = job.id;
    $("job").scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  row.append(what, badge, open);
  return row;
}

async function tellReady() {
  try {
    await ask("/ready");
    tell("yes", "Ready");
  } catch (error) {
    tell("no", error.status === 503 ? "Not ready yet" : "Not reachable", error.message);
  }
}

function tell(state, words, why = "") {
  $("ready").className = `ready ${state}`;
  if ($("ready").textContent !== words) $("ready").textContent = words;
  $("ready").title = why;
}

async function enter() {
  $("forget-key").hidden = !getKey();
  const { data } = await askJson("/v1/models");
  form.setEngines(data);
  live.setEngines(data);
  $("form-error").hidden = true;
  $("key-form").hidden = true;
  loadRecent();
  showWanted();
}

async function useKey(event) {
  event.preventDefault();
  setKey($("key").value.trim());
  $("key-error").hidden = true;
  await start();
}

function wantKey(refused) {
  if (refused) showError($("key-error"), new Refusal("The server does not know this key. Check it and try again."));
  setKey("");
  $("forget-key").hidden = true;
  $("key-form").hidden = false;
  $("key").focus();
}

async function start() {
  try {
    await enter();
  } catch (error) {
    if (error.status !== 401) {
      showError($("form-error"), error);
      setTimeout(start, READY_MILLISECONDS);
    }
  }
}

$("form").addEventListener("submit", create);
for (const kind of ["input", "change"]) $("form").addEventListener(kind, () => (attempt = ""));
$("refresh").addEventListener("click", () => loadRecent());
$("older").addEventListener("click", () => loadRecent($("older").dataset.after));
$("key-form").addEventListener("submit", useKey);
$("forget-key").addEventListener("click", () => (setKey(""), window.location.reload()));
window.addEventListener("key-wanted", (event) => wantKey(event.detail));
window.addEventListener("hashchange", showWanted);
start();
tellReady();
setInterval(tellReady, READY_MILLISECONDS);
