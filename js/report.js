// Shows in the node what a node of this pack says after it ran: which word became which subject, where a file went.
import { app } from "../../scripts/app.js";

const NODES = new Set(["MMDiffBindSubjects", "MMDiffSaveSubject"]);
const WIDGET = "mmdiff_report"; // its name and its type, one that no front end has a widget for: they show the element

function show(node, lines) {
  let widget = node.widgets?.find((one) => one.name === WIDGET);
  if (!widget) {
    const area = document.createElement("textarea");
    area.readOnly = true;
    area.className = "comfy-multiline-input";
    area.style.opacity = 0.7; // beside the prompts, which can be written in
    widget = node.addDOMWidget(WIDGET, WIDGET, area, { serialize: false, getMinHeight: () => 60 });
    widget.serialize = false; // a report is no input: it stays out of saved workflows
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  }
  widget.element.value = lines.join("\n"); // a value, never HTML: prompts may hold anything
}

app.registerExtension({
  name: "mm-diff.report",
  nodeCreated(node) {
    if (!NODES.has(node.comfyClass)) return;
    const inherited = node.onExecuted;
    node.onExecuted = function (output) {
      inherited?.call(this, output);
      if (output?.text) show(this, output.text);
    };
  },
  // Another tab or an undo makes the nodes anew; what they said is in the outputs that the front end kept, by node id
  // or by `subgraph:id`.
  onNodeOutputsUpdated(outputs) {
    for (const [place, output] of Object.entries(outputs)) {
      const [id, subgraph] = place.split(":").reverse();
      const node = (subgraph ? app.graph.subgraphs.get(subgraph) : app.graph)?.getNodeById(id);
      if (NODES.has(node?.comfyClass) && output.text) show(node, output.text);
    }
  },
});
