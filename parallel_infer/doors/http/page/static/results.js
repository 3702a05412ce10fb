// An answer as a list beside its picture.

import { OBJECTS } from "./choice.js";
import { h, one, s, say } from "./dom.js";
import { color, css, fixed, percent, plural } from "./format.js";
import { highlight, inWords, keyOf } from "./overlay.js";

const MOST = 200; // rows

// `models` are those that were asked, as the server describes them.
export function list(answer, models) {
  if (answer.parts) {
    const parts = Object.entries(answer.parts);
    one("#result").replaceChildren(...parts.flatMap(([name, part], index) => partOf(name, part, color(index), models)));
    const failed = parts.filter(([, { error }]) => error).length;
    say(one("#summary"), failed ? `${plural(parts.length, "model")}, ${failed} failed` : plural(parts.length, "model"));
    return;
  }
  const [rows, summary] = rowsOf(answer, models[0]);
  one("#result").replaceChildren(...limited(rows, answer));
  say(one("#summary"), summary);
}

// What one model of a fan says, under its name; an error stands in its place.
function partOf(name, part, paint, models) {
  const mark = h("i");
  mark.style.background = css(paint);
  const head = (summary) => h("h4", { class: "part" }, mark, h("b", {}, name), h("span", {}, summary));
  if (part.error) return [head("failed"), h("p", { class: "failed" }, `${part.error.code}: ${part.error.message}`)];
  const [rows, summary] = rowsOf(part, models.find((model) => model.name === name), name, paint);
  return [head(summary), ...limited(rows, part)];
}

// As many rows as are shown, and what else is to be said of them.
function limited(rows, { left_out: leftOut = {} }) {
  const note = (text) => h("p", { class: "nothing" }, text);
  return [
    ...(rows.length ? rows.slice(0, MOST) : [note("Nothing found.")]),
    ...(rows.length > MOST ? [note(`and ${rows.length - MOST} more: see the JSON`)] : []),
    ...Object.entries(leftOut).map(([name, count]) => note(`${name} was not asked about ${plural(count, "further object")}: too many`)),
  ];
}

function rowsOf(answer, model, part = "", paint = null) {
  if ("text" in answer) return [text(answer), `confidence ${fixed(answer.confidence, 2)}`];
  if (answer.map) return [[scale(answer)], answer.confidence === undefined ? "a number for each pixel" : `score ${fixed(answer.confidence, 3)}`];
  if (answer.embedding) return [[vector(answer.embedding)], `${answer.embedding.length} numbers`];
  if (answer.outputs) return [tensors(answer.outputs), plural(Object.keys(answer.outputs).length, "output")];
  const predictions = Array.isArray(answer.predictions)
    ? answer.predictions
    : Object.entries(answer.predictions).map(([name, found]) => ({ class: name, ...found }));
  const word = OBJECTS.includes(model?.task) ? "object" : "class";
  const count = `${predictions.length} ${word}${predictions.length === 1 ? "" : word === "class" ? "es" : "s"}`;
  return [predictions.map((found, index) => row(found, keyOf(part, index), word === "object" && paint ? paint : color(found.class_id))), count];
}

function row(found, key, paint) {
  const score = found.confidence ?? found.share;
  const mark = h("i");
  mark.style.background = css(paint);
  const bar = h("i");
  bar.style.width = `${100 * score}%`;
  bar.style.background = css(paint);
  const number = found.confidence === undefined ? percent(score) : fixed(score, 2);
  const line = h(
    "div",
    {
      class: "found",
      "data-class": found.class,
      "data-score": score,
      title: found.class,
      onmouseenter: () => highlight(key),
      onmouseleave: () => highlight(null),
    },
    mark,
    h("b", {}, found.class),
    h("div", { class: "meter" }, bar),
    h("span", { class: "number" }, number),
  );
  return found.children ? h("div", {}, line, ...childrenOf(found)) : line;
}

// What the next models of a chain say of an object, a line each; an error is said in its place.
function childrenOf({ children }) {
  return Object.entries(children ?? {}).map(([name, answer]) => {
    const inner = Array.isArray(answer.predictions) ? answer.predictions.flatMap(childrenOf) : [];
    return h("div", { class: "child" }, h("span", {}, `${name}: `), brief(answer), ...inner);
  });
}

function brief(answer) {
  if (answer.error) return `${answer.error.code}: ${answer.error.message}`;
  if (answer.embedding) return `${answer.embedding.length} numbers`;
  const named = inWords(answer);
  if (named) return answer.confidence === undefined ? named : `${named} ${fixed(answer.confidence, 2)}`;
  if (!Array.isArray(answer.predictions)) return "see the JSON";
  return answer.predictions.map((found) => `${found.class} ${fixed(found.confidence, 2)}`).join(", ") || "nothing found";
}

const text = (answer) => (answer.text ? [h("p", { class: "line-text", "data-class": answer.text, "data-score": answer.confidence }, answer.text)] : []);

function scale({ map }) {
  const ends = h("div", { class: "ends" }, h("span", {}, map.min.toPrecision(4)), h("span", {}, map.max.toPrecision(4)));
  return h("div", { class: "scale" }, h("div", { class: "ramp" }), ends);
}

function vector(numbers) {
  const most = Math.max(...numbers.map(Math.abs)) || 1;
  const d = numbers.map((value, x) => `M${x + 0.5} 50V${(50 - (48 * value) / most).toFixed(2)}`).join("");
  const line = s("path", { class: "line", d });
  return s("svg", { class: "vector spark", viewBox: `0 0 ${numbers.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `A vector of ${numbers.length} numbers` }, line);
}

function tensors(outputs) {
  return Object.entries(outputs).map(([name, value]) => {
    const shape = [];
    for (let at = value; Array.isArray(at); at = at[0]) shape.push(at.length);
    return h("div", { class: "found" }, h("i"), h("b", {}, name), h("span"), h("span", { class: "number" }, shape.join("×") || "1"));
  });
}
