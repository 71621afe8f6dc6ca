// Under the prompt of Multi-Subject Binding: who is bound to which word, as one types. The server reads the prompt, with
// the same code as a run.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addSubject, hasRoom } from "./add_subject.js";
import { draw } from "./chips.js";
import { complete, completions } from "./complete.js";
import { keepMarkersWhole } from "./dynamic.js";
import { everyNode, widgetValue } from "./graph.js";
import { drawnBy } from "./drawn_by.js";
import { follow } from "./naming.js";
import { numberSockets, origin, subjectsOf } from "./subjects_of.js";
import { t } from "./translate.js";

const KIND = "MMDiffBindSubjects";
const WIDGET = "mmdiff_binding";
const views = new WeakMap(); // node -> View

/** What one node shows. */
class View {
  constructor(node) {
    this.node = node;
    this.chosen = null; // the subject that the next clicked word becomes; null: the first without a word
    this.seen = ""; // what was drawn last
    this.element = document.createElement("div");
    this.element.className = "mmdiff";
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", t("Binding"));
    this.element.addEventListener("pointerdown", (event) => event.stopPropagation()); // a click is no drag of the node
    const widget = node.addDOMWidget(WIDGET, WIDGET, this.element, { serialize: false, getMinHeight: () => 96 });
    widget.serialize = false; // what is shown is no input
  }

  get prompt() {
    return String(widgetValue(this.node, "prompt") ?? "");
  }

  set prompt(text) {
    const widget = this.node.widgets.find((one) => one.name === "prompt");
    widget.value = text;
    widget.callback?.(text);
    app.graph.setDirtyCanvas(true, true);
    this.refresh();
  }

  /** Draw anew where the prompt, the subjects or the choice have changed. */
  async refresh(typed = null) {
    numberSockets(this.node, (number) => t("subject {number}", { number }));
    const subjects = subjectsOf(this.node, photoOf);
    const names = subjects.map((one, number) => one.name || `subject ${number + 1}`);
    const completed = typed ? completions(typed.text, typed.caret, names) : null;
    const seen = JSON.stringify([this.prompt, subjects, this.chosen, completed, this.loose, hasRoom(this.node)]);
    if (seen === this.seen) return;
    this.seen = seen;
    const reading = await ask({ prompt: this.prompt, names });
    if (seen !== this.seen) return; // somebody has typed on
    const missing = names.findIndex((_, number) => !reading.words.some((word) => word.subject === number));
    this.typed = completed && { ...typed, ...completed };
    this.chosen = this.chosen < subjects.length ? this.chosen : null;
    const state = {
      ...reading,
      subjects,
      names: completed?.names ?? [],
      chosen: this.chosen ?? (missing < 0 ? 0 : missing),
      hasRoom: hasRoom(this.node),
      problem: this.loose ?? (subjects.length ? reading.problem : t("Connect a subject, from Encode Subject.")),
    };
    draw(this.element, state, {
      choose: (number) => {
        this.chosen = number;
        this.refresh();
      },
      toggle: async (word) => {
        if (!names.length) return;
        const subject = typeof word.subject === "number" ? word.subject : state.chosen;
        const changed = await ask({ prompt: this.prompt, names, end: word.end, subject });
        this.chosen = null;
        this.prompt = changed.prompt;
      },
      mend: () => {
        this.prompt = reading.mended;
      },
      complete: (name) => this.complete(name),
      add: () => {
        addSubject(this.node);
        refreshAll();
      },
    });
  }

  /** A sentence where a sampler gets the conditioning and its model does not draw the subjects, or null. */
  get loose() {
    return drawnBy(this.node)
      ? null
      : t("Nothing draws these subjects: connect binding to Apply MM-Diff Attention, and sample with its model.");
  }

  complete(name) {
    const { text, caret } = complete(this.typed.text, this.typed.caret, this.typed.start, name);
    const area = this.typed.area;
    this.typed = null;
    this.prompt = text;
    area.value = text;
    area.focus();
    area.setSelectionRange(caret, caret);
  }
}

async function ask(question) {
  const answer = await api.fetchApi("/mmdiff/prompt", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
  return answer.json();
}

/** The picture of a subject: what its node showed after a run, else what it was saved with, or the file that is chosen. */
function photoOf(node) {
  const url = (route, query) => api.apiURL(`${route}?${new URLSearchParams(query)}`);
  const shown = app.nodeOutputs?.[node.id]?.images?.[0];
  if (shown) return url("/view", shown);
  if (node.comfyClass === "MMDiffLoadSubject") return url("/mmdiff/subject", { name: widgetValue(node, "subject") });
  const source = origin(node, "image");
  if (source?.comfyClass === "MMDiffDemoSubject") return url("/mmdiff/drawing", { name: widgetValue(source, "subject") });
  const file = source?.comfyClass === "LoadImage" && widgetValue(source, "image");
  if (!file) return null;
  const [, path, type = "input"] = /^(.*?)(?:\s*\[(\w+)\])?$/.exec(file); // painted on: `clipspace/NAME.png [input]`
  const parts = path.split("/");
  return url("/view", { filename: parts.pop(), subfolder: parts.join("/"), type });
}

function refreshAll() {
  const nodes = [...everyNode(app.rootGraph ?? app.graph)];
  for (const node of nodes) if (node.comfyClass === "MMDiffEncodeSubject") follow(node);
  for (const node of nodes) views.get(node)?.refresh();
}

/** The view whose prompt is written in, in either renderer. */
function viewOf(area) {
  const id = area.closest("[data-node-id]")?.dataset.nodeId;
  for (const node of everyNode(app.rootGraph ?? app.graph)) {
    const prompt = node.comfyClass === KIND && node.widgets.find((one) => one.name === "prompt");
    if (!prompt) continue;
    const inNode = id === String(node.id) && area.value === prompt.value;
    if (prompt.element === area || inNode) return views.get(node);
  }
}

/** Something was written, chosen or moved: look again when the page has taken it in. */
function changed({ target }) {
  setTimeout(() => {
    const view = target.tagName === "TEXTAREA" && viewOf(target);
    if (view) view.refresh({ area: target, text: target.value, caret: target.selectionStart });
    else refreshAll();
  });
}

/** Tab takes the first name that is offered. */
function taken(event) {
  if (event.key !== "Tab" || event.shiftKey || event.target.tagName !== "TEXTAREA") return;
  const view = viewOf(event.target);
  if (!view?.typed) return;
  event.preventDefault();
  event.stopPropagation();
  view.complete(view.typed.names[0]);
}

app.registerExtension({
  name: "mm-diff.binding",
  setup() {
    document.addEventListener("keydown", taken, true);
    const kinds = ["input", "change", "keyup", "pointerup", "dragend"]; // a node dragged from the sidebar ends in no pointerup
    for (const kind of kinds) document.addEventListener(kind, changed, true);
    api.addEventListener("executed", () => setTimeout(refreshAll));
  },
  nodeCreated(node) {
    if (node.comfyClass !== KIND) return;
    views.set(node, new View(node));
    keepMarkersWhole(node.widgets.find((one) => one.name === "prompt"));
  },
  afterConfigureGraph: refreshAll,
});
