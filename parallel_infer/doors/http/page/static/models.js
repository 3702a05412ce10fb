// The models: what they are, why they are read that way, and loading, unloading and reloading them.

import { alert, ask } from "./api.js";
import { h, keyed, one, say } from "./dom.js";
import { bytes } from "./format.js";

const FACTS = ["Family", "Provider", "Input", "Classes", "Batch", "Instances", "Version", "Shared memory", "SHA-256"];

export class Models {
  constructor() {
    this.served = [];
    this.now = [];
    this.unloaded = new Map(); // cards of models that this page unloaded
    this.busy = new Map(); // name -> what is being done, and since when
    one("#load").addEventListener("submit", (event) => {
      event.preventDefault();
      const { name, path } = event.target.elements;
      this.load(name.value.trim(), path.value.trim());
    });
    setInterval(() => this.busy.size && this.draw(), 500);
  }

  serve(served) {
    this.served = served;
    for (const model of served) this.unloaded.delete(model.name);
    this.draw();
  }

  show(state) {
    this.now = state.models;
    this.draw();
  }

  draw() {
    const models = [...this.served, ...this.unloaded.values()];
    keyed(one("#model-cards"), models, (model) => model.name, (model) => this.card(model), (card, model) => this.update(card, model));
    const loading = this.busy.get("");
    say(one("#load-progress"), loading ? this.progress(loading) : (this.done ?? ""));
    one("#load button").disabled = Boolean(loading);
  }

  progress({ text, since, name }) {
    const seconds = Math.floor((performance.now() - since) / 1000);
    const state = this.now.find((model) => model.name === name && model.state === "loading") ? " (loading)" : "";
    return `${text}${state} … ${seconds} s`;
  }

  card(model) {
    const act = (text, what, extra = "") => h("button", { class: `button small ${extra}`, type: "button", onclick: () => this[what](model.name) }, text);
    return h(
      "article",
      { class: "card model", "data-model": model.name, "aria-label": `Model ${model.name}` },
      h("div", { class: "title" }, h("b"), h("span", { class: "badge" }), h("span", { class: "badge state" })),
      h("code", { class: "chain" }),
      h("dl", { class: "facts" }, FACTS.map((name) => h("div", {}, h("dt", {}, name), h("dd")))),
      h("div", { class: "warnings" }),
      h("details", {}, h("summary", {}, "How it was recognised"), h("ul")),
      h("div", { class: "actions" }, act("Reload", "reload"), act("Unload", "unload", "danger"), h("span", { class: "progress", role: "status" })),
    );
  }

  update(card, model) {
    const gone = this.unloaded.has(model.name);
    const now = this.now.find((each) => each.name === model.name && each.version === model.version);
    const [name, task, state] = one(".title", card).children;
    say(name, model.name);
    say(task, model.task);
    const said = gone ? "unloaded" : (now?.state ?? "ready");
    say(state, said);
    state.className = `badge state ${said}`;
    const facts = [
      model.family,
      model.provider || "–",
      model.inputs.map(([, dtype, shape]) => `${dtype} ${shape.join("×")}`).join(", "),
      model.classes.length || "–",
      `up to ${model.max_batch_size}`,
      model.instances,
      model.version,
      now ? bytes(now.memory) : "–",
      model.digest.slice(0, 12),
    ];
    [...one(".facts", card).children].forEach((fact, index) => say(fact.lastChild, facts[index]));
    one(".facts", card).lastChild.lastChild.title = model.digest;
    say(one(".chain", card), model.chain);
    one(".facts", card).hidden = Boolean(model.chain); // those are of its models
    const warnings = [...model.warnings, ...(now?.unavailable ? [now.unavailable] : [])];
    keyed(one(".warnings", card), warnings, (text) => text, (text) => h("p", { class: "warning" }, text), () => {});
    keyed(one("details ul", card), model.evidence, (text) => text, (text) => h("li", {}, text), () => {});
    one("details", card).hidden = !model.evidence.length;
    const [reload, unload, progress] = one(".actions", card).children;
    const busy = this.busy.get(model.name);
    say(reload, gone ? "Load again" : "Reload");
    reload.hidden = Boolean(model.chain) && !gone;
    unload.hidden = gone;
    reload.disabled = unload.disabled = Boolean(busy);
    say(progress, busy ? this.progress(busy) : "");
  }

  async while(key, name, text, work) {
    this.busy.set(key, { text, name, since: performance.now() });
    this.draw();
    alert("");
    try {
      return await work();
    } catch (error) {
      alert(error.message);
      return null;
    } finally {
      this.busy.delete(key);
      this.draw();
    }
  }

  async reload(name) {
    const model = [...this.served, ...this.unloaded.values()].find((each) => each.name === name);
    const body = model?.chain ? { name, steps: model.chain } : { name };
    const done = await this.while(name, name, "loading", () => post("/page/load", body));
    if (done && this.unloaded.delete(name)) this.served = [...this.served, model]; // what was gone so shortly is no news
    this.draw();
  }

  async unload(name) {
    const model = this.served.find((each) => each.name === name);
    const path = `/v2/repository/models/${encodeURIComponent(name)}/unload`;
    const done = await this.while(name, name, "answering its last jobs", () => post(path, {}));
    if (done && model) this.unloaded.set(name, model);
    if (done) this.served = this.served.filter((each) => each.name !== name);
    this.draw();
  }

  async load(name, what) {
    this.done = "";
    const body = what.includes(">") ? { name, steps: what } : what ? { name, path: what } : { name };
    const done = await this.while("", name, `looking into ${name}, loading and warming it up`, () => post("/page/load", body));
    if (done) this.done = `${name} is served, version ${done.version}.`;
    this.draw();
  }
}

async function post(path, body) {
  const response = await ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  return response.json();
}
