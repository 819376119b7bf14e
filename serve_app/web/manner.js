// In whose manner a photo moves its head: the people whom the caller had learned (`POST /v1/avatars`).

import { askJson } from "./api.js";

const ENGINE = "vasa1"; // the one that takes a manner
const MOST = 100; // people

const nameOf = (person) => {
  const when = new Date(1000 * person.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return person.metadata?.name || `Learned on ${when}${Number(person.seconds) > 0 ? `, from ${Number(person.seconds).toFixed(1)} s` : ""}`;
};

/** A choice of a person, shown where there is somebody to choose and an engine that takes one. */
export class MannerField {
  constructor(id) {
    this.select = document.getElementById(id);
    this.box = this.select.closest("label");
    this.engine = "";
  }

  /** Whose manner, or "" for everybody's. */
  get chosen() {
    return this.box.hidden ? "" : this.select.value;
  }

  /** Offer it with this engine; the people are asked for anew. */
  async fit(engine = "") {
    this.engine = engine;
    this.box.hidden = engine !== ENGINE || this.select.options.length < 2;
    if (engine !== ENGINE) return;
    const people = await askJson(`/v1/avatars?limit=${MOST}`).then((page) => page.data, () => []); // a choice is no reason to fail
    const able = people.filter((person) => person.status === "completed" && person.model === ENGINE);
    const before = this.select.value;
    this.select.replaceChildren(new Option("Everybody's", ""), ...able.map((person) => new Option(nameOf(person), person.id)));
    this.select.value = able.some((person) => person.id === before) ? before : "";
    this.box.hidden = this.engine !== ENGINE || !able.length;
  }
}
