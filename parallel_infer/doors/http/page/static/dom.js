// Elements without markup: every text goes in as a text node, so that no name is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const one = (selector, within = document) => within.querySelector(selector);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
export const s = (tag, properties = {}, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

// Sets a text only where it differs, so that selections and screen readers are left alone.
export function say(element, text) {
  const next = String(text);
  if (element.textContent !== next) element.textContent = next;
}

// Keeps one child of `container` per item, by key: `create(item)` makes it, `update(element, item)` shows the item.
export function keyed(container, items, key, create, update) {
  const known = new Map([...container.children].map((child) => [child.dataset.key, child]));
  let place = null;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (child) known.delete(name);
    else {
      child = create(item);
      child.dataset.key = name;
    }
    const expected = place ? place.nextSibling : container.firstChild;
    if (child !== expected) container.insertBefore(child, expected);
    update(child, item);
    place = child;
  }
  for (const child of known.values()) child.remove();
}
