// An error of this pack, where one looks: in the node, and in a toast; the host shows its sentence in a log only.
// And warnings of a run, in a toast.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { everyNode, nodeAt } from "./graph.js";
import { clearError, say } from "./message.js";
import { t } from "./translate.js";

const TOAST = 15_000; // milliseconds, long enough to read two sentences and to do what they say

function show({ detail }) {
  if (!detail.exception_type.endsWith("MMDiffError")) return;
  const text = detail.exception_message.trim();
  app.extensionManager.toast.add({ severity: "error", summary: "MM-Diff", detail: text, life: TOAST });
  const node = nodeAt(app.rootGraph ?? app.graph, detail.node_id);
  if (node?.comfyClass?.startsWith("MMDiff")) say(node, text, { label: t("Error"), error: true });
}

function warn({ detail }) {
  app.extensionManager.toast.add({ severity: "warn", summary: "MM-Diff", detail: detail.text, life: TOAST });
}

function clear() {
  for (const node of everyNode(app.rootGraph ?? app.graph)) clearError(node);
}

app.registerExtension({
  name: "mm-diff.errors",
  setup() {
    api.addEventListener("execution_start", clear);
    api.addEventListener("execution_error", show);
    api.addEventListener("mmdiff.warning", warn); // from nodes/host/tell.py
  },
});
