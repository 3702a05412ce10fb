// What the server tells once a second: server-sent events, read by fetch so that a key can go with the request.

import { ask } from "./api.js";

const SILENCE = 8000; // ms without an event after which the connection is made anew
const PAUSES = [300, 600, 1000, 2000]; // ms before trying again

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Calls `on[kind](value)` for each event, and `on.lost({error})` where the server cannot be reached; never ends.
export async function follow(on) {
  for (let failures = 0; ; failures += 1) {
    try {
      await events((kind, value) => {
        if (kind !== "lost") failures = 0;
        on[kind]?.(value);
      });
      on.lost({ error: "the server closed the connection" });
    } catch (error) {
      on.lost({ error: error.message, status: error.status });
      if (error.status === 401) await on.unauthorized();
    }
    await sleep(PAUSES[Math.min(failures, PAUSES.length - 1)]);
  }
}

async function events(take) {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENCE);
  try {
    const response = await ask("/page/live", { signal: abort.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const found = /^event: (\w+)\ndata: (.*)$/.exec(block);
        if (found) take(found[1], JSON.parse(found[2]));
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
