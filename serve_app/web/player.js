// Before and after side by side, played as one.

const JUMP = 0.4; // seconds apart: set anew; less is caught up by playing a little faster or slower
const CATCH_UP = 0.25; // the most that the speed is changed

const $ = (id) => document.getElementById(id);
const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export class Player {
  constructor() {
    this.before = $("before");
    this.after = $("after");
    this.seeking = false;
    $("play").addEventListener("click", () => this.toggle());
    $("seek").addEventListener("input", () => this.seek(Number($("seek").value)));
    $("hear").addEventListener("change", () => this.listen());
    for (const video of [this.before, this.after]) video.addEventListener("click", () => this.toggle());
    for (const name of ["play", "pause", "ended"]) this.after.addEventListener(name, () => this.showState());
    for (const name of ["timeupdate", "loadedmetadata", "durationchange"]) this.after.addEventListener(name, () => this.tick());
    this.before.addEventListener("error", () => this.tellBlind());
    this.before.addEventListener("loadedmetadata", () => {
      // of a codec that it does not know a browser plays the sound alone, beside a black picture
      if (this.before.videoWidth) $("hear-box").hidden = false;
      else this.tellBlind();
    });
  }

  /** `before`: an object URL of what was sent, or null where this browser does not have it. */
  show(after, before, isPicture) {
    this.clear();
    this.after.src = after;
    $("before-box").hidden = !before;
    $("before-picture").hidden = !isPicture;
    $("before-note").hidden = true;
    this.before.hidden = isPicture;
    if (before && isPicture) $("before-picture").src = before;
    if (before && !isPicture) this.before.src = before;
    $("hear").value = "after";
    this.listen();
  }

  clear() {
    for (const video of [this.before, this.after]) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    $("before-picture").removeAttribute("src");
    $("hear-box").hidden = true;
    this.showState();
  }

  /** A format that the browser cannot play (HEVC or AVI, say): a sentence stands where the picture would be. */
  tellBlind() {
    if (!this.before.getAttribute("src")) return;
    this.before.pause();
    this.before.hidden = $("hear-box").hidden = true;
    $("before-note").hidden = false;
  }

  get hasBefore() {
    return Boolean(this.before.getAttribute("src")) && !$("before-box").hidden && !this.before.hidden;
  }

  toggle() {
    if (this.after.paused) {
      if (this.after.ended) this.seek(0);
      if (this.hasBefore && this.after.currentTime < this.before.duration) this.before.play().catch(() => {});
      this.after.play().catch(() => this.showState());
    } else {
      this.after.pause();
    }
  }

  seek(seconds) {
    this.after.currentTime = seconds;
    if (this.hasBefore) this.before.currentTime = Math.min(seconds, this.before.duration || 0);
  }

  listen() {
    const original = $("hear").value === "before";
    this.after.muted = original;
    this.before.muted = !original;
  }

  tick() {
    const now = this.after.currentTime;
    const end = this.after.duration || 0;
    $("seek").max = end;
    $("seek").value = now;
    $("clock").textContent = `${minutes(now)} / ${minutes(end)}`;
    if (this.hasBefore && now < this.before.duration && !this.before.seeking) this.align(now);
  }

  align(now) {
    const late = now - this.before.currentTime;
    if (Math.abs(late) > (this.after.paused ? 0.01 : JUMP)) this.before.currentTime = now;
    this.before.playbackRate = 1 + Math.max(-CATCH_UP, Math.min(CATCH_UP, 2 * late));
  }

  showState() {
    const playing = !this.after.paused && !this.after.ended;
    $("play").classList.toggle("on", playing);
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    if (!playing) this.before.pause();
  }
}
