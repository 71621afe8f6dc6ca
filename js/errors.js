// An error of this pack, where one looks: in the node, and in a toast; the host shows its sentence in a log only.
// And warnings of a run, in a toast.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { everyNode, nodeAt } from "./graph.js";
import { clearError, say } from "./message.js";
import { refusals } from "./refusals.js";
import { t } from "./translate.js";

const TOAST = 15_000; // milliseconds, long enough to read two sentences and to do what they say
const LOOK = 200; // milliseconds between looks for what the server refused
const ENDS = ["promptQueued", "promptQueueing"]; // the server has taken it all, or is asked anew

function toast(severity, detail) {
  app.extensionManager.toast.add({ severity, summary: "MM-Diff", detail, life: TOAST });
}

function show(id, text) {
  toast("error", text);
  const node = nodeAt(app.rootGraph ?? app.graph, id);
  if (node?.comfyClass?.startsWith("MMDiff")) say(node, text, { label: t("Error"), error: true });
}

function showError({ detail }) {
  if (detail.exception_type.endsWith("MMDiffError")) show(detail.node_id, detail.exception_message.trim());
}

/** What is refused before anything runs is told in no event: look for it until the server has answered. */
function lookForRefusals() {
  clear();
  const look = setInterval(() => app.lastNodeErrors && stop(), LOOK);
  const stop = () => {
    clearInterval(look);
    for (const kind of ENDS) api.removeEventListener(kind, stop);
    for (const { id, text } of refusals(app.lastNodeErrors ?? {})) show(id, text);
  };
  for (const kind of ENDS) api.addEventListener(kind, stop);
}

function clear() {
  for (const node of everyNode(app.rootGraph ?? app.graph)) clearError(node);
}

app.registerExtension({
  name: "mm-diff.errors",
  setup() {
    api.addEventListener("promptQueueing", lookForRefusals);
    api.addEventListener("execution_start", clear);
    api.addEventListener("execution_error", showError);
    api.addEventListener("mmdiff.warning", ({ detail }) => toast("warn", detail.text)); // from nodes/host/tell.py
  },
});
