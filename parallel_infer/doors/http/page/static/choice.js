// Which models are asked about a picture, and with which thresholds: one, or several together as a fan.

import { h, keyed, one, say } from "./dom.js";

const JOIN = "+"; // between the names of a fan
export const OBJECTS = ["detect", "segment", "keypoints", "obb"];
const FORMS = { segment: { mask_format: "rle" }, semantic: { map_format: "png" }, map: { map_format: "png", map_size: "model" } };
const DEFAULTS = { classify: { confidence: 0 }, text: { confidence: 0 } };
const THRESHOLDS = { confidence: "Confidence", iou: "Overlap (IoU)" };
const KNOWN = { ...Object.fromEntries(OBJECTS.map((task) => [task, ["confidence", "iou"]])), classify: ["confidence"], text: ["confidence"] };

export class Choice {
  // `changed()` is called when other models are chosen, `moved()` when a threshold is another.
  constructor(changed, moved) {
    Object.assign(this, { changed, moved });
    this.served = [];
    this.more = []; // names of those that are asked together with the first
    this.chosen = {}; // thresholds the user moved, by the name that is asked
    this.select = one("select[name=model]");
    this.select.addEventListener("change", () => this.change());
    const box = one("#more");
    const close = (event) => box.open && (event.key === "Escape" || (event.type === "click" && !box.contains(event.target))) && (box.open = false);
    for (const kind of ["click", "keydown"]) document.addEventListener(kind, close);
  }

  serve(models) {
    this.served = models;
    const had = this.name;
    keyed(this.select, models, (model) => model.name, (model) => h("option", { value: model.name }), (option, model) => {
      const takes = model.row[0] > 0;
      option.disabled = !takes;
      say(option, takes ? model.name : `${model.name} (takes tensors)`);
    });
    const usable = this.usable();
    if (!usable.some((model) => model.name === this.select.value) && usable.length) this.select.value = usable[0].name;
    this.fit();
    if (this.name !== had || !one("#sliders").children.length) this.changed();
  }

  // Those that are asked, the first one first.
  get models() {
    const names = [this.select.value, ...this.more];
    return names.map((name) => this.served.find((model) => model.name === name)).filter(Boolean);
  }

  // What is asked for: the name of a model or chain, or those of a fan, joined.
  get name() {
    return this.models.map((model) => model.name).join(JOIN);
  }

  get query() {
    const forms = this.models.map(({ task }) => FORMS[task] ?? {});
    return new URLSearchParams(Object.assign({}, ...forms, this.chosen[this.name])).toString();
  }

  usable() {
    return this.served.filter((model) => model.row[0] > 0);
  }

  // A name with the sign that joins names in it cannot be asked for together with others.
  joinable() {
    const others = this.usable().filter(({ name }) => !name.includes(JOIN) && name !== this.select.value);
    return this.select.value.includes(JOIN) ? [] : others;
  }

  toggle(name, isWanted) {
    this.more = this.more.filter((each) => each !== name);
    if (isWanted) this.more.push(name);
    this.change();
  }

  change() {
    this.fit();
    this.changed();
  }

  // What may be asked as well and what is, of the models that there are now.
  fit() {
    const names = this.joinable().map((model) => model.name);
    this.more = this.more.filter((name) => names.includes(name));
    one("#more").hidden = !names.length;
    const box = (name) => h("label", {}, h("input", { type: "checkbox", name: "more", value: name, onchange: ({ target }) => this.toggle(name, target.checked) }), h("span", {}, name));
    keyed(one("#others"), names, (name) => name, box, (label, name) => (label.firstChild.checked = this.more.includes(name)));
    say(one("#more summary"), this.more.length ? `and ${this.more.join(", ")}` : "Add models");
  }

  // --- thresholds ----------------------------------------------------------------------------------------------------

  // One slider for each threshold: a fan's goes to all of its models that know it.
  sliders() {
    const sliders = Object.keys(THRESHOLDS).map((name) => [name, this.models.filter(({ task }) => KNOWN[task]?.includes(name))]);
    one("#sliders").replaceChildren(...sliders.filter(([, models]) => models.length).map(([name, models]) => this.slider(name, models)));
  }

  slider(name, models) {
    const asked = this.name;
    const usual = [...new Set(models.map(({ task, thresholds }) => ({ confidence: 0.25, iou: 0.45, ...DEFAULTS[task], ...thresholds })[name]))];
    const value = this.chosen[asked]?.[name];
    const id = `slider-${name}`;
    const shown = value ?? (usual.length > 1 ? null : usual[0]);
    const output = h("output", { for: id }, shown === null ? "each model's own" : Number(shown).toFixed(2));
    const input = h("input", { type: "range", id, name, min: 0, max: 1, step: 0.01, value: shown ?? Math.max(...usual) });
    input.addEventListener("input", () => {
      this.chosen[asked] = { ...this.chosen[asked], [name]: input.value };
      say(output, Number(input.value).toFixed(2));
      this.moved();
    });
    const whose = this.models.length > 1 ? `: ${models.map((model) => model.name).join(", ")}` : "";
    return h("div", { class: "slider" }, h("label", { for: id }, THRESHOLDS[name] + whose), output, input);
  }
}
