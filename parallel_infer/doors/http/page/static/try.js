// Try it: models, a picture, their answer.

import { alert, ask, locked } from "./api.js";
import { Camera } from "./camera.js";
import { Choice } from "./choice.js";
import { h, one, say } from "./dom.js";
import { inPath, milliseconds } from "./format.js";
import { show } from "./overlay.js";
import { list } from "./results.js";
import { snippets } from "./snippets.js";

const SAMPLES = ["coffee.png", "astronaut.png", "chelsea.png"];
const TABS = ["JSON", "curl", "Python", "tritonclient"];
const LONGEST = 60000; // characters of JSON that are shown

export class Try {
  constructor() {
    this.choice = new Choice(() => this.modelChanged(), () => this.askAgain());
    this.tab = "JSON";
    const isRunning = (running) => one("#camera").setAttribute("aria-pressed", running);
    this.camera = new Camera((picture, file) => this.take(picture, file), isRunning, alert);
    one("#file").addEventListener("change", (event) => this.files(event.target.files));
    one("#camera").addEventListener("click", () => this.camera.toggle());
    one("#samples").replaceChildren(...SAMPLES.map((name) => this.sample(name)));
    this.listenForPictures();
    this.makeTabs();
    one("#copy").addEventListener("click", () => this.copy());
    this.write();
  }

  serve(models) {
    this.choice.serve(models);
  }

  modelChanged() {
    this.choice.sliders();
    this.askAgain();
  }

  askAgain() {
    if (this.picture) this.run();
    else this.write();
  }

  // --- pictures ------------------------------------------------------------------------------------------------------

  listenForPictures() {
    const stage = one("#stage");
    const over = (isOver) => (event) => {
      event.preventDefault();
      stage.classList.toggle("over", isOver);
    };
    for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, over(true));
    document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(false)(event));
    document.addEventListener("drop", (event) => {
      over(false)(event);
      this.files(event.dataTransfer.files, "What was dropped is no file. Save the picture and drop the file, or copy the picture and paste it.");
    });
    document.addEventListener("paste", (event) => {
      const isText = event.target.matches?.("input, textarea") && !event.clipboardData.files.length;
      if (!isText) this.files(event.clipboardData.files, "There is no picture on the clipboard.");
    });
  }

  sample(name) {
    const button = h("button", { type: "button", title: name, "aria-label": `Sample ${name}` }, h("img", { src: `/page/files/${name}`, alt: "" }));
    button.addEventListener("click", async () => {
      try {
        const response = await ask(`/page/files/${name}`);
        await this.file(new File([await response.blob()], name));
      } catch (error) {
        alert(error.message);
      }
    });
    return button;
  }

  // The first of what was chosen, dropped or pasted; `none` says that there was nothing.
  async files([first, ...more], none = "") {
    if (first) await this.file(first);
    if (first ? more.length : none) alert(first ? `One picture at a time: this is the first of ${more.length + 1}.` : none);
  }

  async file(file) {
    this.camera.stop();
    one("#file").value = "";
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(file); // turned as the picture says, as the server turns it
    } catch {
      // The server may read what this browser cannot show.
    }
    await this.take(bitmap, file);
  }

  // Asks about a picture; resolves when its answer is shown.
  take(bitmap, file) {
    if (this.picture !== this.asked) this.picture?.bitmap?.close();
    this.picture = { bitmap, file };
    return this.run();
  }

  // --- asking --------------------------------------------------------------------------------------------------------

  // One request at a time: what is changed meanwhile is asked for next, and only the newest of it.
  async run() {
    this.again = true;
    if (this.running) return this.running;
    this.running = this.loop();
    try {
      await this.running;
    } finally {
      this.running = null;
    }
  }

  async loop() {
    while (this.again && this.picture && this.choice.name) {
      this.again = false;
      const { picture } = this;
      const { name, models, query } = this.choice;
      this.asked = picture;
      const began = performance.now();
      try {
        const path = `/infer/${inPath(name)}${query && `?${query}`}`;
        const response = await ask(path, { method: "POST", body: picture.file, headers: { "Content-Type": "application/octet-stream" } });
        const answer = await response.json();
        alert("");
        await this.answered(picture, name, models, answer, performance.now() - began);
      } catch (error) {
        await this.failed(picture, error);
      }
      if (this.picture !== picture) picture.bitmap?.close(); // a camera's frames are large
    }
    this.asked = null;
  }

  async answered(picture, name, models, answer, took) {
    this.answer = answer;
    list(answer, models);
    say(one("#timing"), `${milliseconds(1000 * answer.time)} ms in the server · ${milliseconds(took)} ms in all`);
    one("#timing").hidden = false;
    this.write();
    await show(picture.bitmap, answer);
    one("#result").dataset.of = name; // which may not be what is chosen by now
    one("#picture").setAttribute("aria-label", `${picture.file.name}, ${one("#summary").textContent}`);
  }

  async failed(picture, error) {
    this.camera.stop();
    this.answer = undefined;
    alert(error.message);
    one("#result").replaceChildren(h("p", { class: "nothing" }, "No answer."));
    say(one("#summary"), "");
    one("#timing").hidden = true;
    this.write();
    await show(picture.bitmap, null);
  }

  // --- the answer and the request as text ----------------------------------------------------------------------------

  makeTabs() {
    const tabs = TABS.map((name) => h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "code", onclick: () => this.choose(name) }, name));
    one("#tabs").replaceChildren(...tabs);
    one("#tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = TABS[(TABS.indexOf(this.tab) + step + TABS.length) % TABS.length];
      this.choose(next);
      one(`#tab-${next}`).focus();
    });
    this.choose(this.tab);
  }

  choose(name) {
    this.tab = name;
    for (const tab of one("#tabs").children) {
      const isChosen = tab.textContent === name;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    one("#code").setAttribute("aria-labelledby", `tab-${name}`);
    this.write();
  }

  text() {
    if (this.tab === "JSON") return this.answer ? JSON.stringify(this.answer, null, 2) : "The answer's JSON will be here.";
    const { name, query } = this.choice;
    if (!name) return "";
    const request = { model: name, query, file: this.picture?.file.name ?? "street.jpg", locked: locked() };
    return snippets(request)[this.tab];
  }

  write() {
    const text = this.text();
    say(one("#code code"), text.length > LONGEST ? `${text.slice(0, LONGEST)}\n… (Copy has all of it)` : text);
  }

  async copy() {
    const button = one("#copy");
    try {
      await navigator.clipboard.writeText(this.text());
      say(button, "Copied");
    } catch {
      getSelection().selectAllChildren(one("#code code")); // no clipboard over plain HTTP from another machine
      say(button, "Selected");
    }
    setTimeout(() => say(button, "Copy"), 1500);
  }
}
