// What the server tells once a second: server-sent events, read by fetch so that a key can go with the request.

import { ask } from "./api.js";

const SILENCE = 8000; // ms without an event after which the connection is made anew
const PAUSES = [300, 600, 1000, 2000]; // ms before trying again

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Resolves when the page can be seen; while it is in the background the next change of that is that it can.
function seen() {
  return new Promise((resolve) => {
    if (document.hidden) document.addEventListener("visibilitychange", resolve, { once: true });
    else resolve();
  });
}

// Calls `on[kind](value)` for each event, and `on.lost({error})` where the server cannot be reached; never ends.
// In the background nothing is asked of the server: `on.paused()`.
export async function follow(on) {
  for (let failures = 0; ; failures += 1) {
    if (document.hidden) on.paused();
    await seen();
    try {
      const left = await events((kind, value) => {
        if (kind !== "lost") failures = 0;
        on[kind]?.(value);
      });
      if (left) continue;
      on.lost({ error: "the server closed the connection" });
    } catch (error) {
      on.lost({ error: error.message, status: error.status });
      if (error.status === 401) await on.unauthorized();
    }
    await sleep(PAUSES[Math.min(failures, PAUSES.length - 1)]);
  }
}

// Ends where the server closes the connection, with false, and where the page goes to the background, with true.
async function events(take) {
  const abort = new AbortController();
  let left = false;
  const leave = () => {
    left = true;
    abort.abort();
  };
  document.addEventListener("visibilitychange", leave, { once: true });
  let timer = setTimeout(() => abort.abort(), SILENCE);
  try {
    const response = await ask("/page/live", { signal: abort.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = /^event: (\w+)\ndata: (.*)$/.exec(block);
        if (found) take(found[1], JSON.parse(found[2]));
      }
    }
  } catch (error) {
    if (left) return true;
    throw error;
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", leave);
  }
}
