// Small line charts of the last minute.

import { h, s, say } from "./dom.js";

export const SAMPLES = 60;

export class History {
  constructor() {
    this.values = {};
  }

  // The values of one second, `now` in ms; seconds that were missed since the last are left open.
  add(values, now) {
    const seconds = this.at === undefined ? 1 : Math.min(SAMPLES, Math.max(1, Math.round((now - this.at) / 1000)));
    this.at = now;
    for (const [name, value] of Object.entries(values)) {
      const list = (this.values[name] ??= []);
      list.push(...Array(seconds - 1).fill(null), Number.isFinite(value) ? value : null);
      list.splice(0, list.length - SAMPLES);
    }
  }

  of(name) {
    return this.values[name] ?? [];
  }
}

// A line over SAMPLES seconds, the newest at the right; a second series is drawn dashed. `most` is the scale's end.
export class Spark {
  constructor(height = 40) {
    this.height = height;
    this.area = s("path", { class: "area" });
    this.line = s("path", { class: "line" });
    this.second = s("path", { class: "line two" });
    const base = s("path", { class: "base", d: `M0 ${height}H${SAMPLES - 1}` });
    const box = { viewBox: `0 0 ${SAMPLES - 1} ${height}`, preserveAspectRatio: "none", class: "spark" };
    this.element = s("svg", { ...box, "aria-hidden": "true" }, base, this.area, this.second, this.line);
  }

  draw(values, second = [], least = 1) {
    const most = Math.max(least, ...values, ...second) * 1.08;
    const path = this.path(values, most);
    this.line.setAttribute("d", path.line);
    this.area.setAttribute("d", path.area);
    this.second.setAttribute("d", this.path(second, most).line);
  }

  path(values, most) {
    const start = SAMPLES - values.length;
    let line = "";
    let area = "";
    let open = null;
    const close = (x) => {
      if (open !== null) area += `L${x} ${this.height}L${open} ${this.height}Z`;
      open = null;
    };
    values.forEach((value, index) => {
      const x = start + index;
      if (value === null) return close(x - 1);
      const point = `${x} ${(this.height * (1 - value / most)).toFixed(2)}`;
      line += open === null ? `M${point}h0.01` : `L${point}`; // a lone value is a dot
      area += (open === null ? "M" : "L") + point;
      open ??= x;
    });
    close(SAMPLES - 1);
    return { line, area };
  }
}

// A card with a title, the value now, and the minute.
export class Chart {
  constructor(title, write, least) {
    this.title = title;
    this.write = write;
    this.least = least;
    this.now = h("span", { class: "now" });
    this.most = h("span");
    this.spark = new Spark(64);
    const head = h("div", { class: "row" }, h("h3", {}, title), this.now);
    const foot = h("div", { class: "foot" }, h("span", {}, "1 min ago"), this.most, h("span", {}, "now"));
    this.element = h("div", { class: "card chart", role: "img" }, head, this.spark.element, foot);
  }

  draw(values, second, text) {
    const known = values.filter((value) => value !== null);
    const now = text ?? this.write(values.at(-1));
    const most = known.length ? `max ${this.write(Math.max(...known, ...(second ?? [])))}` : "";
    say(this.now, now);
    say(this.most, most);
    this.element.setAttribute("aria-label", `${this.title}: ${now}${most && `, ${most} in the last minute`}`);
    this.spark.draw(values, second, this.least);
  }
}
