// One job on its way and at its end.

import { ask, askJson, follow, getKey } from "./api.js";
import { Player } from "./player.js";

const $ = (id) => document.getElementById(id);
const STAGES = {
  queued: "Waiting for its turn",
  "": "Getting ready",
  track: "Finding the face in every frame",
  fit: "Learning how this person speaks",
  motion: "Working out the mouth's movement",
  render: "Painting the new mouth",
  stitch: "Joining the pieces",
  measure: "Measuring the result",
};
const BADGES = { queued: "waiting", in_progress: "in progress", completed: "finished", failed: "failed", cancelled: "cancelled" };
const REPORT_WAIT = { first: 1000, most: 15_000 }; // milliseconds between looks
const ENDED = ["completed", "failed", "cancelled"];

/** A cancelled job comes as `failed` with a code, as OpenAI's clients expect; people want to see the difference. */
export const statusOf = (job) => (job.error?.code === "cancelled" ? "cancelled" : job.status);

export function showBadge(badge, status) {
  badge.className = `badge ${status}`;
  badge.textContent = BADGES[status] ?? status;
}

export function tellTime(seconds) {
  if (seconds < 8) return "a few seconds left";
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

export function showError(box, error) {
  box.textContent = error.message;
  if (error.request && error.status >= 500) box.append(Object.assign(document.createElement("small"), { textContent: `Request ${error.request}` }));
  box.hidden = false;
}

const stageOf = (job) => {
  if (job.cancel_requested) return "Stopping";
  if (job.status === "queued") return STAGES.queued;
  return STAGES[job.stage] ?? (job.stage.startsWith("quality") ? STAGES.measure : job.stage);
};

export class JobView {
  /** `onChange` hears when a job of the list looks different now. */
  constructor(onChange) {
    Object.assign(this, { onChange, id: null, sources: new Map(), player: new Player(), urls: [], stop: () => {} });
    $("cancel").addEventListener("click", () => this.stop());
    $("delete").addEventListener("click", () => this.remove());
    $("report-link").addEventListener("click", (event) => this.openReport(event));
  }

  /** What a job was made from, so that before and after can be compared. */
  remember(id, file) {
    this.sources.set(id, { url: URL.createObjectURL(file), name: file.name, picture: file.type.startsWith("image/") });
  }

  /** An empty view for work that starts. `stop` is what the cancel button does. */
  open(title, stop) {
    this.leave();
    $("empty").hidden = true;
    $("view").hidden = false;
    $("working").hidden = false;
    $("player").hidden = $("job-error").hidden = true;
    $("job-title").textContent = title;
    $("about").textContent = "";
    $("cancel").disabled = false;
    showBadge($("badge"), "in_progress");
    this.stop = stop;
  }

  close() {
    this.leave();
    $("empty").hidden = false;
    $("view").hidden = true;
  }

  leave() {
    this.watching?.abort();
    this.id = null;
    this.player.clear();
    for (const url of this.urls.splice(0)) URL.revokeObjectURL(url);
    document.title = "lipsync-serve";
  }

  /** How far the work is: a fraction, or null where nobody knows. */
  progress(stage, fraction, detail = "", eta = null) {
    if ($("stage").textContent !== stage) $("stage").textContent = stage;
    if (fraction === null) $("bar").removeAttribute("value");
    else $("bar").value = fraction;
    $("percent").textContent = fraction === null ? "" : `${Math.floor(100 * fraction)} %`;
    $("detail").textContent = detail;
    $("eta").textContent = eta === null ? "" : tellTime(eta);
    document.title = fraction === null ? "lipsync-serve" : `${Math.floor(100 * fraction)} % · lipsync-serve`;
  }

  fail(status, error) {
    $("working").hidden = true;
    showBadge($("badge"), status);
    showError($("job-error"), error);
    document.title = "lipsync-serve";
  }

  /** Show a job until it ends, and its end. */
  async show(id) {
    this.open("Your video", () => this.cancel(id));
    this.id = id;
    this.status = null;
    this.watching = new AbortController();
    const { signal } = this.watching;
    try {
      let job = await askJson(`/v1/videos/${id}`, { signal });
      this.describe(job);
      if (!ENDED.includes(job.status)) job = await follow(id, (state) => this.told(state), signal);
      this.describe(job);
      await this.ended(job);
      this.onChange();
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) this.fail("failed", error);
    }
  }

  describe(job) {
    const facts = [job.model, Number(job.seconds) > 0 && `${Number(job.seconds).toFixed(1)} s`, !job.size.startsWith("0x") && job.size.replace("x", " × ")];
    const words = job.prompt?.length > 140 ? `${job.prompt.slice(0, 140)}…` : job.prompt;
    $("about").textContent = [job.prompt && `“${words}”`, ...facts].filter(Boolean).join(" · ");
    $("job-title").textContent = this.sources.get(job.id)?.name ?? "Your video";
    showBadge($("badge"), statusOf(job));
    if (!ENDED.includes(job.status)) this.told(job);
  }

  told(state) {
    if (state.away) {
      $("detail").textContent = "The connection broke; trying again";
      $("eta").textContent = "";
      return;
    }
    if (this.status !== state.status) this.onChange();
    this.status = state.status;
    showBadge($("badge"), state.status);
    $("cancel").disabled = state.cancel_requested;
    const waits = state.status === "queued";
    const detail = !waits && state.total > 1 ? `${state.done} of ${state.total} frames` : "";
    this.progress(stageOf(state), waits ? null : (state.fraction ?? state.progress / 100), detail, waits ? null : state.eta);
  }

  async ended(job) {
    $("working").hidden = true;
    const status = statusOf(job);
    if (status === "cancelled") return this.fail(status, new Error("This job was cancelled. Nothing was made."));
    if (status === "failed") return this.fail(status, new Error(job.error?.message ?? "The job failed."));
    const source = this.sources.get(job.id);
    const result = await this.address(job.content_url, this.watching.signal);
    $("player").hidden = false;
    this.player.show(result, source?.url ?? null, source?.picture ?? false);
    $("download").href = result;
    $("download").download = `${(source?.name ?? job.id).replace(/\.[^.]*$/, "")}.lipsync.mp4`;
    document.title = "Finished · lipsync-serve";
    this.awaitReport(job.report_url, this.watching.signal);
  }

  /** The report follows the video; its link comes when it is there. */
  async awaitReport(path, signal) {
    let wait = REPORT_WAIT.first;
    $("report-link").hidden = true;
    $("report-note").hidden = !path;
    while (path && !signal.aborted) {
      try {
        await ask(path, { signal });
        $("report-link").href = `${path}?format=html`;
        $("report-link").hidden = false;
        break;
      } catch (error) {
        if (error.code !== "not_ready") break; // there will be none: the video is whole without it
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(REPORT_WAIT.most, 1.5 * wait);
    }
    if (!signal.aborted) $("report-note").hidden = true;
  }

  /** An address that a video element can play: it cannot send a key, so with one the file is fetched here. */
  async address(path, signal) {
    if (!getKey()) return path;
    this.progress("Fetching the result", null);
    const url = URL.createObjectURL(await (await ask(path, { signal })).blob());
    this.urls.push(url);
    return url;
  }

  async openReport(event) {
    if (!getKey()) return; // the link itself opens
    event.preventDefault();
    try {
      const url = URL.createObjectURL(await (await ask($("report-link").getAttribute("href"))).blob());
      this.urls.push(url);
      // saved, not opened: a page made of a blob would be under this page's rules, and lose its looks
      Object.assign(document.createElement("a"), { href: url, download: `${this.id}-report.html` }).click();
    } catch (error) {
      showError($("job-error"), error);
    }
  }

  async cancel(id) {
    $("cancel").disabled = true;
    $("stage").textContent = "Stopping";
    try {
      await askJson(`/v1/videos/${id}/cancel`, { method: "POST" });
    } catch (error) {
      $("cancel").disabled = false;
      showError($("job-error"), error);
    }
  }

  async remove() {
    const { id } = this;
    if (!id || !window.confirm("Delete this video and its report? This cannot be undone.")) return;
    try {
      await ask(`/v1/videos/${id}`, { method: "DELETE" });
      window.location.hash = "";
      this.close();
    } catch (error) {
      showError($("job-error"), error);
    }
    this.onChange();
  }
}
