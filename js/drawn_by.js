// Whether what samples with a Binding's prompt draws its subjects too.
const APPLY = "MMDiffApplyAttention";
const MERGE = "ModelMerge"; // how the host's merges begin; what comes out is the first model, changed
const BYPASSED = 4; // a node's mode

/**
 * False where the conditioning is used and the binding is not, or where a node gets both the conditioning and a model
 * that comes from no Apply MM-Diff Attention, or from one as the second of a merge. Where a model comes from can't
 * always be told: from outside of a subgraph, from inside of another, or from somebody's nodes without links; then it is
 * taken for one that draws.
 */
export function drawnBy(bind) {
  const links = (name) => bind.outputs.find((output) => output.name === name)?.links?.length;
  if (links("positive") && !links("binding")) return false;
  const output = bind.outputs.findIndex((one) => one.name === "positive");
  return [...samplers(bind, output)].every((node) => applied(node));
}

/** The nodes that get a conditioning, on its way through others, together with a model. */
function* samplers(node, output, seen = new Set()) {
  for (const next of node.getOutputNodes(output) ?? []) {
    if (seen.has(next)) continue;
    seen.add(next);
    if (models(next).length && !next.mode) yield next;
    for (const [index, one] of (next.outputs ?? []).entries()) {
      if (one.type === "CONDITIONING" || next.type === "Reroute") yield* samplers(next, index, seen);
    }
  }
}

/** Whether a node's models are, or may be, from Apply. */
function applied(node) {
  const wired = models(node);
  return (node.comfyClass?.startsWith(MERGE) ? wired.slice(0, 1) : wired).some((index) => {
    const source = node.getInputNode(index);
    if (!source || source.subgraph) return true;
    if (source.type === "Reroute") return applied(source);
    if (source.comfyClass === APPLY && source.mode !== BYPASSED) return true;
    return models(source).length ? applied(source) : !source.comfyClass || source.isVirtualNode === true;
  });
}

const models = (node) =>
  (node.inputs ?? []).flatMap((input, index) =>
    input.link != null && (input.type === "MODEL" || node.type === "Reroute") ? [index] : [],
  );
