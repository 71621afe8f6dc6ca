// Shows in the node what a node of this pack says after it ran: which word became which subject, where a
// file went, whose map has which number.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { everyNode, nodeAt, nodeOfOutput } from "./graph.js";
import { say, says, unsay } from "./message.js";
import { recalled } from "./recall.js";
import { t } from "./translate.js";

const RUNS = 16; // that are looked through for what nodes said
// What they say depends on their inputs alone.
const LASTING = new Set(
  ["Load", "EncodeSubject", "BindSubjects", "AttentionMaps", "CheckCast"].map((name) => `MMDiff${name}`),
);

const ours = (node) => node?.comfyClass?.startsWith("MMDiff");

function report(node, output) {
  if (!output?.text) return;
  const text = [output.text].flat().join("\n");
  if (text) say(node, text, { label: t("Report") });
  else unsay(node);
}

/** A node that the host remembers does not run and says nothing: show again what it said with these inputs. */
async function recall() {
  const root = app.rootGraph ?? app.graph;
  const silent = new Set([...everyNode(root)].filter((node) => LASTING.has(node.comfyClass) && !says(node)));
  if (!silent.size) return;
  const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
  const [history, { output }] = [await answer.json(), await app.graphToPrompt()];
  for (const [id, text] of Object.entries(recalled(output, history))) {
    const node = nodeAt(root, id);
    if (silent.has(node) && !says(node)) report(node, { text });
  }
}

app.registerExtension({
  name: "mm-diff.report",
  setup() {
    api.addEventListener("executing", ({ detail }) => detail ?? recall()); // nothing executes any more: the run has ended
  },
  afterConfigureGraph: recall,
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
