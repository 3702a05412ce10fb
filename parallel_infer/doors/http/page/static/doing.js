// How the server is doing: key figures, pipeline, charts, models, processes, memory.

import { Chart, History, Spark } from "./charts.js";
import { h, keyed, one, say } from "./dom.js";
import { bytes, fixed, milliseconds, percent, plural, shown } from "./format.js";
import { Pipeline } from "./pipeline.js";

const FIGURES = [
  ["answered", "Answered", "", "answered jobs since the server counts"],
  ["fps", "Throughput", "/s", "pictures answered per second, in the last second"],
  ["p50", "Median latency", "ms", "p50 of the answers of the last seconds, from admission to answer"],
  ["queue", "Queued", "", "jobs that wait for decoding or inference"],
  ["dropped", "Dropped", "", "frames that a newer one replaced, and cancelled jobs"],
  ["workers", "Workers up", "", "worker processes that are up"],
];
const SPARKS = ["fps", "p50", "queue"];
const COLUMNS = ["Model", "State", "Pictures/s", "p50 ms", "p99 ms", "Mean batch", "Queued", "Answered", "Errors", "Bottleneck"];

export class Doing {
  constructor() {
    this.history = new History();
    this.pipeline = new Pipeline(one("#pipeline"));
    this.values = {};
    this.sparks = {};
    one("#strip").replaceChildren(...FIGURES.map((figure) => this.figure(...figure)));
    this.charts = {
      fps: new Chart("Throughput", (value) => `${fixed(value)}/s`, 1),
      latency: new Chart("Latency, p50 and p99", (value) => `${milliseconds(value)} ms`, 1),
      queue: new Chart("Queued jobs", (value) => String(value ?? 0), 4),
      busy: new Chart("Busiest stage", (value) => percent(value ?? 0), 1),
    };
    one("#charts").replaceChildren(...Object.values(this.charts).map((chart) => chart.element));
    const head = h("tr", {}, COLUMNS.map((name) => h("th", { scope: "col" }, name)));
    this.body = h("tbody");
    one("#by-model").replaceChildren(h("thead", {}, head), this.body);
  }

  figure(name, title, unit, meaning) {
    this.values[name] = h("span", { "data-metric": name }, "–");
    const parts = [h("span", { class: "value" }, this.values[name], unit && h("span", { class: "unit" }, unit))];
    if (SPARKS.includes(name)) parts.push((this.sparks[name] = new Spark(30)).element);
    if (name === "workers") parts[0].append((this.all = h("span", { class: "unit" })));
    return h("div", { class: "figure", title: meaning }, h("div", { class: "name" }, title), parts);
  }

  show(state) {
    const { totals } = state;
    say(this.values.answered, totals.answered);
    say(this.values.fps, fixed(totals.fps));
    say(this.values.p50, milliseconds(totals.p50 ?? NaN));
    say(this.values.queue, totals.queue);
    say(this.values.dropped, totals.dropped);
    say(this.values.workers, totals.workers);
    say(this.all, `of ${totals.all_workers}`);
    say(one("#limit"), limitText(state));
    const [p50, p99] = totals.fps ? [totals.p50, totals.p99] : [null, null];
    const busy = busiestOf(state.stages)?.utilisation ?? 0;
    this.history.add({ fps: totals.fps, p50, p99, queue: totals.queue, busy }, performance.now());
    this.drawCharts(state);
    this.pipeline.draw(state);
    this.models(state.models);
    this.processes(state.processes);
    this.doors(state.doors);
    this.members(state.members);
    this.memory(state);
  }

  drawCharts({ totals, stages }) {
    const { history, charts, sparks } = this;
    for (const name of SPARKS) sparks[name].draw(history.of(name));
    const busiest = busiestOf(stages);
    charts.fps.draw(history.of("fps"));
    charts.latency.draw(history.of("p99"), history.of("p50"), totals.p50 === null ? "–" : `${milliseconds(totals.p50)} / ${milliseconds(totals.p99)} ms`);
    charts.queue.draw(history.of("queue"));
    const name = busiest ? `${busiest.name}${busiest.model && ` ${shown(busiest.model)}`}` : "";
    charts.busy.draw(history.of("busy"), undefined, busiest && `${name} ${percent(busiest.utilisation)}`);
  }

  models(models) {
    keyed(this.body, models, (model) => model.key, () => h("tr", {}, COLUMNS.map(() => h("td"))), (row, model) => {
      const errors = Object.entries(model.errors).filter(([, count]) => count);
      const count = errors.reduce((sum, [, number]) => sum + number, 0);
      const cells = [
        shown(model.name) + (model.version > 1 ? ` · version ${model.version}` : ""),
        model.state,
        fixed(model.fps),
        milliseconds(model.p50 ?? NaN),
        milliseconds(model.p99 ?? NaN),
        fixed(model.batch),
        model.queued + model.ready,
        model.answered,
        count,
        model.limit || "–",
      ];
      cells.forEach((text, index) => say(row.children[index], text));
      row.children[1].className = model.state === "ready" ? "" : model.state === "unavailable" ? "bad-text" : "warn-text";
      row.children[8].className = count ? "bad-text" : "dim-text";
      row.children[8].title = errors.map(([code, number]) => `${code}: ${number}`).join("\n");
      row.children[9].className = model.limit ? "warn-text" : "dim-text";
      row.children[5].title = Object.entries(model.batch_sizes).map(([size, runs]) => `${runs} runs of ${size}`).join("\n");
    });
  }

  processes(processes) {
    const make = () => h("li", {}, h("i", { class: "dot" }), h("b"), h("div", { class: "meter" }, h("i")), h("span"));
    keyed(one("#processes"), processes, (process) => process.name, make, (row, process) => {
      const [dot, name, meter, text] = row.children;
      const busy = process.utilisation;
      dot.className = `dot ${process.state}`;
      say(name, process.name);
      meter.classList.toggle("warn", busy >= 0.7);
      meter.style.visibility = busy === null ? "hidden" : "";
      meter.firstChild.style.width = percent(busy ?? 0).replace(" ", "");
      const restarts = process.restarts ? plural(process.restarts, "restart") : busy === null ? "" : `${percent(busy)} busy`;
      say(text, process.state === "up" ? restarts : process.state);
      text.className = process.restarts || process.state !== "up" ? "warn-text" : "";
      row.title = `${process.name}: ${process.state}, ${plural(process.restarts, "restart")}`;
    });
  }

  doors(doors) {
    const make = () => h("li", {}, h("i", { class: "dot" }), h("b"), h("code"), h("span"));
    keyed(one("#doors"), doors, (door) => door.name, make, (row, door) => {
      const [dot, name, address, text] = row.children;
      dot.className = `dot ${door.state}`;
      say(name, door.name);
      say(address, door.addresses.join("  "));
      const refused = Object.values(door.refused).reduce((sum, count) => sum + count, 0);
      say(text, `${plural(door.requests, "request")}${refused ? `, ${refused} refused` : ""} · ${door.in_flight} in flight`);
      row.title = Object.entries(door.refused).map(([code, count]) => `${code}: ${count}`).join("\n");
    });
  }

  members(members) {
    one("#members").parentElement.hidden = !members.length;
    const make = () => h("li", {}, h("i", { class: "dot" }), h("b"), h("code"), h("span"));
    keyed(one("#members"), members, (member) => member.name, make, (row, member) => {
      const [dot, name, address, text] = row.children;
      dot.className = `dot ${member.state}`;
      say(name, member.name);
      say(address, member.problem || (member.name === member.address ? "" : member.address));
      const work = `${plural(member.models, "model")} · ${member.answered} answered · ${member.under_way} in flight`;
      say(text, member.state === "up" ? work : member.state);
      row.title = member.problem;
    });
  }

  memory({ ingress, models, lent, clients, unread, cut }) {
    const rings = [
      ...ingress.map((ring) => [`Payloads of ${bytes(ring.slot_size)}`, ring.slots - ring.free, ring.slots]),
      ...models.map((model) => [`Rows of ${shown(model.name)}`, model.rows[1] - model.rows[0], model.rows[1], model.key]),
      ...models.map((model) => [`Outputs of ${shown(model.name)}`, model.outputs[1] - model.outputs[0], model.outputs[1], model.key]),
    ];
    const counts = { "Lent to clients": bytes(lent), "Clients in the last second": clients, "Replies not read": unread, "Closed: frame too large": cut };
    keyed(one("#counts"), Object.entries(counts), ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (row, [, value]) => say(row.lastChild, value));
    const make = () => h("li", {}, h("i"), h("b"), h("div", { class: "meter" }, h("i")), h("span"));
    keyed(one("#memory"), rings, ([name, , , key]) => `${name} ${key ?? ""}`, make, (row, [name, used, slots]) => {
      const [, label, meter, text] = row.children;
      say(label, name);
      meter.classList.toggle("warn", slots > 0 && used / slots >= 0.9);
      meter.firstChild.style.width = slots ? `${(100 * used) / slots}%` : "0";
      say(text, `${used} of ${slots}`);
    });
  }
}

const busiestOf = (stages) => stages.reduce((best, stage) => (stage.utilisation > (best?.utilisation ?? -1) ? stage : best), null);

function limitText({ limit, draining, totals }) {
  if (draining) return "The server is stopping: it answers what it has and takes nothing new.";
  if (limit) return `Bottleneck: ${limit}. More workers of this stage, or a faster model, would help.`;
  return totals.fps ? "No bottleneck." : "Idle.";
}
