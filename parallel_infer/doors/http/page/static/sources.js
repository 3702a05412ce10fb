// Live sources: what each sends, and its last picture with the answer drawn on it.

import { ask } from "./api.js";
import { h, keyed, one, say } from "./dom.js";
import { fixed } from "./format.js";

const SILENT = 5; // seconds without an answered frame
const FRESH = 15; // seconds for which a client's word is believed; it comes every 5
const LOOK = 2000; // ms between pictures of one source

export class Sources {
  constructor() {
    this.pictures = new Map(); // name -> {url, note, asked}
    this.seen = new Set(); // names of those whose card is on the screen
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.seen[isIntersecting ? "add" : "delete"](target.dataset.key);
    });
  }

  show({ sources }) {
    const cards = one("#source-cards");
    for (const name of this.pictures.keys()) if (!sources.some((source) => source.name === name)) this.forget(name);
    if (!sources.length) {
      if (!one(".blank", cards)) cards.replaceChildren(blank());
      return;
    }
    one(".blank", cards)?.remove();
    keyed(cards, sources, (source) => source.name, () => this.card(), (element, source) => this.update(element, source));
  }

  update(element, source) {
    const state = stateOf(source);
    const [dot, name, text] = one(".title", element).children;
    dot.className = `dot ${state}`;
    say(name, source.name);
    say(text, state);
    say(one(".message", element), state === "live" || state === "silent" ? "" : (source.client?.message ?? ""));
    say(one(".counts", element), counted(source.client?.counts ?? []));
    const age = source.age === null ? "–" : `${fixed(source.age)} s`;
    const facts = [fixed(source.fps), age, source.client?.dropped ?? source.dropped, source.answered];
    [...one(".facts", element).children].forEach((fact, index) => say(fact.lastChild, facts[index]));
    const known = this.pictures.get(source.name) ?? { note: "No frame since this page was opened", asked: -LOOK };
    this.pictures.set(source.name, known);
    const image = one("img", element);
    if (known.url && image.getAttribute("src") !== known.url) image.src = known.url;
    image.hidden = !known.url;
    image.alt = `The last picture of ${source.name} with its answer`;
    const note = one(".shot span", element);
    note.hidden = Boolean(known.url);
    say(note, known.note);
    if (this.seen.has(source.name)) this.look(source.name, known);
  }

  async look(name, known) {
    const now = performance.now();
    if (known.waiting || now - known.asked < LOOK) return;
    Object.assign(known, { waiting: true, asked: now });
    try {
      const asked = new URLSearchParams({ name, after: known.number ?? "" });
      const response = await ask(`/page/source?${asked}`);
      if (response.status === 200) {
        known.number = response.headers.get("Picture-Number");
        if (known.url) URL.revokeObjectURL(known.url);
        const isPicture = response.headers.get("Content-Type") === "image/jpeg";
        known.url = isPicture ? URL.createObjectURL(await response.blob()) : undefined;
        if (!isPicture) known.note = (await response.json()).why;
      }
    } catch (error) {
      known.note = error.message.replace(/^[A-Z_]+: /, "");
      if (error.status === 403) known.asked = Infinity; // this key may not see it
    } finally {
      known.waiting = false;
    }
  }

  card() {
    const fact = (name) => h("div", {}, h("dt", {}, name), h("dd"));
    const title = h("div", { class: "title" }, h("i", { class: "dot" }), h("b"), h("span"));
    const shot = h("div", { class: "shot" }, h("img", { hidden: true }), h("span"));
    const facts = h("dl", { class: "facts" }, ["Pictures/s", "Age", "Dropped", "Answered"].map(fact));
    const element = h("article", { class: "card source" }, shot, h("div", { class: "body" }, title, h("p", { class: "message" }), h("p", { class: "message counts" }), facts));
    this.observer.observe(element);
    return element;
  }

  forget(name) {
    const { url } = this.pictures.get(name);
    if (url) URL.revokeObjectURL(url);
    this.pictures.delete(name);
    this.seen.delete(name);
  }
}

// What its client says, while that is fresh; else what the server sees.
function stateOf({ age, client }) {
  if (client && (client.age < FRESH || client.state === "ended" || client.state === "failed")) return client.state;
  if (age === null) return "waiting";
  return age > SILENT ? "silent" : "live";
}

// What its client counted, place by place: "door: in 3 person, 1 dog; out 2 person · yard: now 1 person; in all 4 person".
function counted(counts) {
  const words = { in: "in", out: "out", present: "now", entered: "in all" };
  const places = new Map();
  for (const [what, place, kind, number] of counts) {
    if (!places.has(place)) places.set(place, new Map(Object.keys(words).map((each) => [each, []])));
    if (number) places.get(place).get(what).push(`${number} ${kind}`);
  }
  const texts = [...places].map(([place, found]) => {
    const parts = [...found].filter(([, all]) => all.length).map(([what, all]) => `${words[what]} ${all.join(", ")}`);
    return `${place}: ${parts.join("; ") || "0"}`;
  });
  return texts.join(" · ");
}

function blank() {
  return h(
    "div",
    { class: "card blank" },
    "No source sends frames. Follow a camera with ",
    h("code", {}, "parallel-infer stream detector rtsp://camera/1"),
    ", or let imagezmq or Frigate send to this server.",
  );
}
