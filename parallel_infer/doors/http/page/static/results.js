// An answer as a list beside its picture.

import { h, one, s, say } from "./dom.js";
import { color, css, fixed, percent, plural } from "./format.js";
import { highlight, inWords } from "./overlay.js";

const MOST = 200; // rows

export function list(answer, model) {
  const [rows, summary] = rowsOf(answer, model);
  const more = rows.length > MOST ? [h("p", { class: "nothing" }, `and ${rows.length - MOST} more: see the JSON`)] : [];
  one("#result").replaceChildren(...(rows.length ? rows.slice(0, MOST) : [h("p", { class: "nothing" }, "Nothing found.")]), ...more);
  say(one("#summary"), summary);
}

function rowsOf(answer, model) {
  if ("text" in answer) return [text(answer), `confidence ${fixed(answer.confidence, 2)}`];
  if (answer.map) return [[scale(answer)], answer.confidence === undefined ? "a number for each pixel" : `score ${fixed(answer.confidence, 3)}`];
  if (answer.embedding) return [[vector(answer.embedding)], `${answer.embedding.length} numbers`];
  if (answer.outputs) return [tensors(answer.outputs), plural(Object.keys(answer.outputs).length, "output")];
  const predictions = Array.isArray(answer.predictions)
    ? answer.predictions
    : Object.entries(answer.predictions).map(([name, found]) => ({ class: name, ...found }));
  const word = model?.task === "semantic" || !predictions[0] || !("x" in predictions[0]) ? "class" : "object";
  const count = `${predictions.length} ${word}${predictions.length === 1 ? "" : word === "class" ? "es" : "s"}`;
  return [predictions.map((found, index) => row(found, index)), count];
}

function row(found, index) {
  const score = found.confidence ?? found.share;
  const mark = h("i");
  mark.style.background = css(color(found.class_id));
  const bar = h("i");
  bar.style.width = `${100 * score}%`;
  bar.style.background = css(color(found.class_id));
  const number = found.confidence === undefined ? percent(score) : fixed(score, 2);
  const line = h(
    "div",
    {
      class: "found",
      "data-class": found.class,
      "data-score": score,
      title: found.class,
      onmouseenter: () => highlight(index),
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
