// The pipeline as a picture: gateway, decode, each model's batching and inference, postprocess.

import { h, s, say } from "./dom.js";
import { fixed, milliseconds, percent, plural, shown } from "./format.js";

const WIDE = { node: [170, 90], gap: 34, lane: 102 };
const MOST = 8; // models that are drawn

// Mean over models, weighted by how many pictures each answers.
function mean(models, part) {
  const known = models.filter((model) => part in model.times);
  const weight = (model) => model.fps || 1e-3;
  const whole = known.reduce((sum, model) => sum + weight(model), 0);
  return known.length ? known.reduce((sum, model) => sum + weight(model) * model.times[part], 0) / whole : NaN;
}

class Node {
  constructor(title, x, y, [width, height], end = false) {
    Object.assign(this, { x, y, width, height });
    const text = (name, dy, content = "") => s("text", { class: name, x: x + 13, y: y + dy }, content);
    const bar = { x: x + 13, y: y + height - 14, height: 4, rx: 2 };
    this.figure = text("figure-text", 47);
    this.sub = text("sub", 66);
    this.fill = s("rect", { class: "fill", ...bar, width: 0 });
    this.tag = s("text", { class: "tag", x: x + width - 12, y: y + 3, "text-anchor": "end" });
    const parts = [s("rect", { class: "box", x, y, width, height, rx: 10 }), text("title", 23, title)];
    const busy = end ? [] : [s("rect", { class: "track", ...bar, width: width - 26 }), this.fill];
    this.element = s("g", { class: end ? "node end" : "node" }, parts, this.figure, this.sub, busy, this.tag);
  }

  show(figure, sub, busy, isLimit = false) {
    say(this.figure, figure);
    say(this.sub, sub);
    this.fill.setAttribute("width", ((this.width - 26) * Math.min(1, busy || 0)).toFixed(1));
    this.element.classList.toggle("limit", isLimit);
    say(this.tag, isLimit ? "BOTTLENECK" : "");
  }
}

const middle = (node) => node.y + node.height / 2;
const end = (node) => node.x + node.width;
const ROUTES = {
  across(from, to) {
    const half = (end(from) + to.x) / 2;
    return `M${end(from)} ${middle(from)}C${half} ${middle(from)} ${half} ${middle(to)} ${to.x} ${middle(to)}`;
  },
  down: (from, to) => `M${from.x + from.width / 2} ${from.y + from.height}V${to.y}`,
  left: (from, to) => `M${from.x} ${middle(from)}H12Q4 ${middle(from)} 4 ${middle(from) + 8}V${middle(to) - 8}Q4 ${middle(to)} 12 ${middle(to)}H${to.x}`,
  right: (from, to) => `M${end(from)} ${middle(from)}H348Q356 ${middle(from)} 356 ${middle(from) + 8}V${middle(to) - 8}Q356 ${middle(to)} 348 ${middle(to)}H${end(to)}`,
};

class Pipe {
  constructor(from, to, route) {
    const d = ROUTES[route](from, to);
    this.flow = s("path", { class: "flow", d });
    this.element = s("g", {}, s("path", { class: "pipe", d }), this.flow);
  }

  // The more pass, the thicker; nothing moves, since that would have the browser draw all the time.
  show(rate) {
    const width = rate > 0 ? (2 + 1.5 * Math.log10(1 + rate)).toFixed(1) : "0";
    if (width !== this.width) this.flow.setAttribute("stroke-width", (this.width = width));
  }
}

export class Pipeline {
  constructor(container) {
    this.container = container;
    this.built = "";
  }

  draw(state) {
    const models = state.models.slice(0, MOST);
    const narrow = this.container.clientWidth < 760;
    const shape = JSON.stringify([narrow, models.map((model) => [model.key, model.name])]);
    if (shape !== this.built) {
      this.built = shape;
      this.build(models, narrow);
    }
    this.update(state, models);
    const more = state.models.length - models.length;
    say(this.rest, more ? `Not drawn: ${plural(more, "more model")}, listed below.` : "");
  }

  build(models, narrow) {
    const place = narrow ? placesNarrow(models.length) : placesWide(models.length);
    const node = (title, [x, y, width, height], end) => new Node(title, x, y, [width, height], end);
    this.clients = node("Clients", place.clients, true);
    this.gateway = node("Gateway", place.gateway);
    this.decode = node("Decode", place.decode);
    this.post = node("Postprocess", place.post);
    this.lanes = models.map((model, index) => ({
      batch: node(narrow ? `${cut(shown(model.name), 13)} · batch` : "Batching", place.lanes[index][0]),
      infer: node(narrow ? "Inference" : cut(shown(model.name), 17), place.lanes[index][1]),
    }));
    const [on, into, out] = narrow ? ["down", "left", "right"] : ["across", "across", "across"];
    this.pipes = [new Pipe(this.clients, this.gateway, on), new Pipe(this.gateway, this.decode, on)];
    for (const lane of this.lanes) {
      lane.pipes = [
        new Pipe(this.decode, lane.batch, into),
        new Pipe(lane.batch, lane.infer, "across"),
        new Pipe(lane.infer, this.post, out),
      ];
    }
    const pipes = [...this.pipes, ...this.lanes.flatMap((lane) => lane.pipes)];
    const nodes = [this.clients, this.gateway, this.decode, this.post, ...this.lanes.flatMap((lane) => [lane.batch, lane.infer])];
    const elements = [...pipes, ...nodes].map((part) => part.element);
    this.svg = s("svg", { viewBox: `0 0 ${place.size[0]} ${place.size[1]}`, role: "img" }, elements);
    this.rest = h("p", { class: "rest" });
    this.container.replaceChildren(this.svg, this.rest);
  }

  update(state, models) {
    const busy = (name, model = "") => state.stages.find((stage) => stage.name === name && stage.model === model);
    const limit = (name, model = "") => state.limit === (model ? `${name} ${model}` : name);
    const workers = (name) => plural(busy(name)?.workers ?? 0, "worker");
    const { totals } = state;
    this.clients.show(`${fixed(totals.fps)}/s`, `${plural(state.clients, "client")} · ${totals.pending} in flight`);
    this.gateway.show(percent(busy("gateway")?.utilisation ?? 0), "of one core", busy("gateway")?.utilisation, limit("gateway"));
    const wait = mean(state.models, "queue");
    this.decode.show(ms(mean(state.models, "decode")), `${workers("decode")} · waits ${ms(wait)}`, busy("decode")?.utilisation, limit("decode"));
    this.post.show(ms(mean(state.models, "postprocess")), `${workers("postprocess")} · waits ${ms(mean(state.models, "post_wait"))}`, busy("postprocess")?.utilisation, limit("postprocess"));
    this.pipes.forEach((pipe) => pipe.show(totals.fps));
    models.forEach((model, index) => {
      const lane = this.lanes[index];
      const infer = busy("infer", model.key);
      const waits = model.batch ? `waits ${ms(model.times.batch_wait)} · ` : "";
      lane.batch.show(model.batch ? `size ${fixed(model.batch)}` : "–", `${waits}${model.queued + model.ready} queued`, model.rows[1] ? 1 - model.rows[0] / model.rows[1] : 0);
      lane.infer.show(ms(model.times.infer), `${plural(model.instances, "instance")} · ${fixed(model.fps)}/s`, infer?.utilisation, limit("infer", model.key));
      lane.pipes.forEach((pipe) => pipe.show(model.fps));
    });
    const tight = state.limit ? `; bottleneck: ${state.limit}` : "";
    this.svg.setAttribute("aria-label", `Pipeline: ${fixed(totals.fps)} pictures per second through gateway, decode, batching and inference of ${plural(models.length, "model")}, and postprocess${tight}`);
  }
}

const ms = (value) => (Number.isFinite(value) ? `${milliseconds(value)} ms` : "–");
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function placesWide(count) {
  const { node: [width, height], gap, lane } = WIDE;
  const tall = Math.max(1, count) * lane + 8;
  const column = (index) => 2 + index * (width + gap);
  const center = tall / 2 - height / 2;
  const at = (index, y = center) => [column(index), y, width, height];
  const lanes = Array.from({ length: count }, (_, index) => {
    const y = 4 + index * lane + (lane - height) / 2;
    return [at(3, y), at(4, y)];
  });
  return { clients: at(0), gateway: at(1), decode: at(2), lanes, post: at(5), size: [column(5) + width + 2, tall] };
}

function placesNarrow(count) {
  const width = 156;
  const height = 84;
  const center = (360 - width) / 2;
  const step = height + 26;
  const lanes = Array.from({ length: count }, (_, index) => {
    const y = 2 + 3 * step + index * (height + 14);
    return [[16, y, width, height], [188, y, width, height]];
  });
  const last = 2 + 3 * step + count * (height + 14) + 12;
  const at = (index) => [center, 2 + index * step, width, height];
  return { clients: at(0), gateway: at(1), decode: at(2), lanes, post: [center, last, width, height], size: [360, last + height + 2] };
}
