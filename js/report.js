// Shows in the node what a node of this pack says after it ran: which word became which subject, where a
// file went, whose map has which number.
import { app } from "../../scripts/app.js";
import { nodeOfOutput } from "./graph.js";
import { say, unsay } from "./message.js";
import { t } from "./translate.js";

const ours = (node) => node?.comfyClass?.startsWith("MMDiff");

function report(node, output) {
  if (!output?.text) return;
  const text = [output.text].flat().join("\n");
  if (text) say(node, text, { label: t("Report") });
  else unsay(node);
}

app.registerExtension({
  name: "mm-diff.report",
  nodeCreated(node) {
    if (!ours(node)) return;
    const inherited = node.onExecuted;
    node.onExecuted = function (output) {
      inherited?.call(this, output);
      report(this, output);
    };
  },
  // Another tab or an undo makes the nodes anew; what they said is in the outputs that the front end kept.
  onNodeOutputsUpdated(outputs) {
    for (const [place, output] of Object.entries(outputs)) {
      const node = nodeOfOutput(app.graph, place);
      if (ours(node)) report(node, output);
    }
  },
});
