// Requests to the server, with the key where it asks for one; errors as it words them.

import { one } from "./dom.js";

const KEPT = "parallel-infer-key";
let asking = null;

// A link may bring the key behind `#`, which browsers send to no server; it is kept as a typed one is, and not shown.
const brought = new URLSearchParams(location.hash.slice(1)).get("key");
if (brought) {
  sessionStorage.setItem(KEPT, brought);
  history.replaceState(null, "", location.pathname);
}

export const key = () => sessionStorage.getItem(KEPT) ?? "";

export const locked = () => document.documentElement.dataset.keys === "needed";

export class ServerError extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

// Fetches a path. A 401 asks the user for the key once, however many requests wait for it.
export async function ask(path, options = {}) {
  for (;;) {
    if (locked() && !key() && !(await askForKey())) throw new ServerError(401, "UNAUTHORIZED", "UNAUTHORIZED: this server asks for a key");
    const used = key();
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.status === 401 && (used !== key() || (await askForKey(used !== "")))) continue;
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

async function errorOf(response) {
  try {
    const { code, error } = await response.json();
    return new ServerError(response.status, code, `${code}: ${error}`);
  } catch {
    return new ServerError(response.status, "INTERNAL", `the server answered with status ${response.status}`);
  }
}

// Asks for a key; true where there is a new one to try.
export function askForKey(wasWrong = false) {
  asking ??= new Promise((resolve) => {
    const dialog = one("#key-dialog");
    const form = one("form", dialog);
    one("#key-wrong").hidden = !wasWrong;
    const done = (found) => {
      asking = null;
      dialog.close();
      form.reset();
      resolve(found);
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEPT, form.elements.key.value.trim());
      done(true);
      window.dispatchEvent(new Event("key"));
    };
    one("#key-cancel").onclick = () => done(false);
    dialog.oncancel = () => done(false);
    one("#key-button").hidden = false;
    dialog.showModal();
  });
  return asking;
}

export function alert(text) {
  const box = one("#alert");
  one("p", box).textContent = text;
  box.hidden = !text;
}
