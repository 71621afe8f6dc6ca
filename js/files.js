// In the nodes that need files: which are there, where to get the others, and the demo that needs none.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button, row } from "./elements.js";
import { t } from "./translate.js";

const NEEDS = { MMDiffLoad: ["checkpoint", "vision", "base"], MMDiffAnalyzeFace: ["faces"] };
const WIDGET = "mmdiff_files";
const DEMO = "MM-Diff 3 - One Subject (demo)";
const PACK = new URL(import.meta.url).pathname.split("/").at(-2); // the folder that the pack was put in

async function fill(element, names) {
  const answer = await api.fetchApi("/mmdiff/files");
  const files = await answer.json();
  const missing = names.filter((name) => !files[name].found.length);
  element.replaceChildren(...names.map((name) => line(files[name])));
  const again = button(t("Look again"), () => fill(element, names));
  const demo = button(t("Open the demo instead"), openDemo);
  if (missing.length) element.append(row([again, demo]));
}

function line(file) {
  const made = document.createElement("div");
  const found = file.found.length > 0;
  made.className = found ? "mmdiff-found" : "mmdiff-problem";
  made.textContent = `${found ? "\u2713" : "\u2717"} ${file.what}`;
  if (found) return made;
  const link = document.createElement("a");
  link.href = file.link;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.textContent = t("get it");
  made.append(": ", link, ` \u2192 ${file.folder}`);
  return made;
}

async function openDemo() {
  const answer = await api.fetchApi(`/workflow_templates/${PACK}/${encodeURIComponent(DEMO)}.json`);
  await app.loadGraphData(await answer.json(), true, true, DEMO);
}

app.registerExtension({
  name: "mm-diff.files",
  nodeCreated(node) {
    const names = NEEDS[node.comfyClass];
    if (!names) return;
    const element = document.createElement("div");
    element.className = "mmdiff";
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", t("Files"));
    element.addEventListener("pointerdown", (event) => event.stopPropagation());
    const widget = node.addDOMWidget(WIDGET, WIDGET, element, { serialize: false, getMinHeight: () => 72 });
    widget.serialize = false; // what is shown is no input
    fill(element, names);
  },
});
