// An answer drawn on its picture: boxes, rotated boxes, masks, skeletons, class maps, maps of numbers, top classes.
// Of several models asked together each part is drawn, in a colour of its own and with its model's name.

import { h, one, s } from "./dom.js";
import { color, css, ink } from "./format.js";

const SKELETON = [
  [15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8], [7, 9], [8, 10],
  [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6],
];
const VISIBLE = 0.5; // joints of lower confidence are guesses, and are left out
const RAMP = ["000004", "420a68", "932667", "dd513a", "fca50a", "fcffa4"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// Shows `picture` (an ImageBitmap) with `answer`; the frame takes the answer's size, which is the upright picture's.
export async function show(picture, answer) {
  const parts = answer ? partsOf(answer) : [];
  const layers = await Promise.all(parts.map(layerOf)); // first, so that nothing is shown half
  const frame = one("#frame");
  if (!picture && !answer) {
    frame.hidden = true;
    one("#empty").hidden = false;
    return;
  }
  const { width, height } = parts.find(({ found }) => found.image)?.found.image ?? picture ?? { width: 640, height: 480 };
  one("#empty").hidden = true;
  frame.hidden = false;
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.width = `min(100%, ${(56 * width) / height}vh)`;
  const canvas = one("#picture");
  canvas.width = picture?.width ?? width;
  canvas.height = picture?.height ?? height;
  if (picture) canvas.getContext("2d").drawImage(picture, 0, 0);
  cover(layers.filter(Boolean));
  const overlay = one("#overlay");
  overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [shapes, labels] = [[], []];
  const drawing = { shapes, labels, width, height };
  for (const { found, name, paint } of parts) {
    const objects = Array.isArray(found.predictions) ? found.predictions : [];
    objects.forEach((each, index) => object(each, keyOf(name, index), drawing, paint, name));
  }
  const captions = parts.map(captionOf).filter(Boolean);
  if (captions.length) labels.push({ element: h("span", { class: answer.parts ? "caption together" : "caption" }, captions.join("\n")) });
  overlay.replaceChildren(...shapes);
  one("#labels").replaceChildren(...labels.map(({ element }) => element));
  place(labels.filter((label) => label.spots));
}

// The answers there are in one: [{found, name, paint}]. Only parts of a fan have a name and a colour; failed ones are left out.
function partsOf(answer) {
  if (!answer.parts) return [{ found: answer, name: "" }];
  const parts = Object.entries(answer.parts).map(([name, found], index) => ({ found, name, paint: color(index) }));
  return parts.filter(({ found }) => !found.error);
}

// What an object is called in the drawing and in the list.
export const keyOf = (name, index) => (name ? `${name} ${index}` : String(index));

// What covers the picture, as pixels: masks, a class map, a map of numbers; null where an answer has none.
async function layerOf({ found, paint }) {
  if (found.segmentation_mask) return classMap(found);
  if (found.map?.png) return numbers(found.map.png);
  const masked = Array.isArray(found.predictions) ? found.predictions.filter((each) => each.rle) : [];
  return masked.length ? masks(masked, found.image, paint) : null;
}

// Puts layers on the picture: one as it is, several over each other in the size of the largest.
function cover(layers) {
  const dense = one("#dense");
  dense.width = Math.max(1, ...layers.map((layer) => layer.width));
  dense.height = Math.max(1, ...layers.map((layer) => layer.height));
  const context = dense.getContext("2d");
  if (layers.length === 1) context.putImageData(layers[0], 0, 0);
  else for (const layer of layers) context.drawImage(canvasOf(layer), 0, 0, dense.width, dense.height);
}

function canvasOf(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function captionOf({ found, name }) {
  const words = found.top ? `${found.top}  ${found.confidence.toFixed(2)}` : inWords(found);
  return words && name ? `${name}: ${words}` : words;
}

// A best class, the classes or the text of an answer; "" for one that has none.
export function inWords(answer) {
  if ("top" in answer) return answer.top;
  return answer.predicted_classes?.join(", ") ?? answer.text ?? "";
}

function object(found, key, drawing, paint = color(found.class_id), name = "") {
  if (!("x" in found)) return;
  const { shapes, labels, width, height } = drawing;
  const [left, top] = [found.x - found.width / 2, found.y - found.height / 2];
  const turned = "rotation" in found;
  const corners = turned ? found.points : [[0, 0], [1, 0], [1, 1], [0, 1]].map(([u, v]) => ({ x: left + u * found.width, y: top + v * found.height }));
  const points = listed(corners);
  const parts = [s("polygon", { class: "edge", points }), s("polygon", { class: "mark", points, stroke: css(paint) })];
  if (found.points && !turned) parts.unshift(s("polygon", { class: "mask", points: listed(found.points), fill: css(paint) })); // a child's mask
  if (found.keypoints) parts.push(...skeleton(found.keypoints));
  shapes.push(s("g", { "data-index": key }, parts));
  const children = Object.values(found.children ?? {}); // of a chain: what its next models say of this object
  const words = children.map((child) => child.error?.code ?? inWords(child)).filter(Boolean);
  const text = [`${found.class} ${found.confidence.toFixed(2)}`, ...words].join(" · ");
  const element = h("span", { "data-index": key }, name ? `${name}: ${text}` : text);
  Object.assign(element.style, { background: css(paint), color: ink(paint) });
  labels.push({ element, spots: spots(corners, width, height) });
  const inner = children.flatMap(({ predictions }) => (Array.isArray(predictions) ? predictions : []));
  inner.forEach((each) => object(each, key, drawing));
}

const listed = (points) => points.map(({ x, y }) => `${x},${y}`).join(" ");

// Where a label may stand, as shares of the picture: (x, y) and which part of the label is there.
function spots(corners, width, height) {
  const [xs, ys] = [corners.map(({ x }) => x / width), corners.map(({ y }) => y / height)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  return [[left, top, 0, 1], [left, top, 0, 0], [right, top, 1, 1], [right, top, 1, 0], [left, bottom, 0, 0], [left, bottom, 0, 1], [right, bottom, 1, 1]];
}

// Puts each label where it hides none of those before it; they come best first.
function place(labels) {
  const { clientWidth: width, clientHeight: height } = one("#frame");
  const sizes = labels.map(({ element }) => [element.offsetWidth, element.offsetHeight]);
  const taken = [];
  labels.forEach(({ element, spots }, index) => {
    const [wide, tall] = sizes[index];
    const boxes = spots.map(([x, y, u, v]) => [
      Math.min(Math.max(x * width - u * wide, 0), Math.max(0, width - wide)),
      Math.min(Math.max(y * height - v * tall, 0), Math.max(0, height - tall)),
    ]);
    const isFree = ([x, y]) => taken.every(([p, q, a, b]) => x >= p + a || x + wide <= p || y >= q + b || y + tall <= q);
    const [x, y] = boxes.find(isFree) ?? boxes[0];
    taken.push([x, y, wide, tall]);
    Object.assign(element.style, { left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%` });
  });
}

function skeleton(joints) {
  const seen = (joint) => joint && joint.confidence >= VISIBLE;
  const bones = joints.length === 17 ? SKELETON.filter(([a, b]) => seen(joints[a]) && seen(joints[b])) : [];
  const path = ([a, b]) => `M${joints[a].x} ${joints[a].y}L${joints[b].x} ${joints[b].y}`;
  const dots = joints.map((joint, index) => [joint, index]).filter(([joint]) => seen(joint));
  const dot = ({ x, y }) => `M${x} ${y}h0.01`; // a round cap: its size is the same at every scale
  return [
    ...bones.map((bone) => s("path", { class: "edge", d: path(bone) })),
    ...bones.map((bone, index) => s("path", { class: "mark", d: path(bone), stroke: css(color(index)) })),
    ...dots.map(([joint]) => s("path", { class: "dot-edge", d: dot(joint) })),
    ...dots.map(([joint, index]) => s("path", { class: "dot", d: dot(joint), stroke: css(color(index)) })),
  ];
}

// COCO's compressed run lengths: five bits a letter; from the fourth on, the difference to the one two before.
export function runs(text) {
  const counts = [];
  let number = 0;
  let shift = 0;
  for (let place = 0; place < text.length; place += 1) {
    const digit = text.charCodeAt(place) - 48;
    number += (digit & 31) * 2 ** shift;
    shift += 5;
    if (digit & 32) continue;
    if (digit & 16) number -= 2 ** shift;
    counts.push(counts.length > 2 ? number + counts.at(-2) : number);
    number = shift = 0;
  }
  return counts;
}

// Masks in `paint` or their objects' colours, with a brighter edge; runs go down the columns.
function masks(predictions, { width, height }, whole) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (const { rle, class_id: number } of predictions) {
    const [red, green, blue] = whole ?? color(number);
    const paint = (alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    const [inner, edge] = [paint(112), paint(235)];
    let place = 0;
    runs(rle.counts).forEach((count, index) => {
      if (index % 2) {
        for (let k = place; k < place + count; k += 1) {
          const x = Math.floor(k / height);
          pixels[(k - x * height) * width + x] = k === place || k === place + count - 1 ? edge : inner;
        }
      }
      place += count;
    });
  }
  return image;
}

async function decoded(base64) {
  const data = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([data], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function painted(base64, paint) {
  const image = await decoded(base64);
  const { data } = image;
  for (let place = 0; place < data.length; place += 4) data.set(paint(data[place]), place);
  return image;
}

function classMap(answer) {
  const paints = new Map(answer.predictions.map(({ class_id: number }) => [number, [...color(number), 140]]));
  return painted(answer.segmentation_mask, (number) => paints.get(number) ?? [0, 0, 0, 0]);
}

function numbers(png) {
  const paints = Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (RAMP.length - 1);
    const [low, part] = [Math.min(Math.floor(at), RAMP.length - 2), at % 1];
    const share = at >= RAMP.length - 1 ? 1 : part;
    return [...RAMP[low].map((channel, index) => channel + (RAMP[low + 1][index] - channel) * share), 190];
  });
  return painted(png, (value) => paints[value]);
}

// One object stands out while its row is pointed at; null: none.
export function highlight(key) {
  for (const part of document.querySelectorAll("#overlay g, #labels [data-index]")) {
    part.classList.toggle("dim", key !== null && part.dataset.index !== key);
  }
}
