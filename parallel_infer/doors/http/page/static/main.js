// The page's beginning: theme, sections, and who is told what the server says.

import { alert, askForKey, locked } from "./api.js";
import { Doing } from "./doing.js";
import { one, say } from "./dom.js";
import { duration } from "./format.js";
import { follow } from "./live.js";
import { Models } from "./models.js";
import { Sources } from "./sources.js";
import { Try } from "./try.js";

const root = document.documentElement;
const THEME = "parallel-infer-theme";
const THEMES = ["system", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");

function applyTheme(chosen) {
  root.dataset.theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  const text = chosen === "system" ? "Theme: as the system" : `Theme: ${chosen}`;
  one("#theme").setAttribute("aria-label", text);
  one("#theme").title = text;
}

const theme = () => (THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : "system");
applyTheme(theme());
dark.addEventListener("change", () => applyTheme(theme()));
one("#theme").addEventListener("click", () => {
  const order = dark.matches ? ["system", "light", "dark"] : ["system", "dark", "light"];
  const next = order[(order.indexOf(theme()) + 1) % order.length];
  localStorage.setItem(THEME, next);
  applyTheme(next);
});

one("#alert button").addEventListener("click", () => alert(""));
one("#key-button").addEventListener("click", () => askForKey());
one("#key-button").hidden = !locked();
one("#foot").hidden = locked(); // a link takes no key with it

// The section that is being read is marked in the navigation.
const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const [name, link] of links) name === target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    }
  },
  { rootMargin: "-25% 0px -65% 0px" },
);
for (const name of links.keys()) reading.observe(one(`#${name}`));

const connection = one("#connection span");
const trying = new Try();
const doing = new Doing();
const models = new Models();
const sources = new Sources();

follow({
  state(state) {
    root.dataset.state = "live";
    say(connection, state.draining ? "Stopping" : "Live");
    one("#connection").title = `The server has been up for ${duration(state.uptime)}`;
    doing.show(state);
    models.show(state);
    sources.show(state);
  },
  models(served) {
    models.serve(served);
    trying.serve(served);
  },
  paused() {
    root.dataset.state = "paused";
    say(connection, "Paused");
  },
  lost({ error, status }) {
    root.dataset.state = "lost";
    say(connection, status === 401 ? "Key needed" : "Connection lost");
    one("#connection").title = error;
  },
  unauthorized: () => new Promise((resolve) => window.addEventListener("key", resolve, { once: true })),
});
