// Finding nodes and what is connected to them, through subgraphs.

/** The node of an execution id, "3", or "7:3" for node 3 inside the subgraph node 7. */
export function nodeAt(graph, id) {
  const path = String(id).split(":");
  const last = path.pop();
  for (const outer of path) graph = graph?.getNodeById(outer)?.subgraph;
  return graph?.getNodeById(last);
}

/** The node that the host keeps outputs of under a place, "3", or "UUID:3" for node 3 inside the subgraph UUID. */
export function nodeOfOutput(graph, place) {
  const [id, subgraph] = place.split(":").reverse();
  return (subgraph ? graph.subgraphs.get(subgraph) : graph)?.getNodeById(id);
}

/** Every node of a graph and of the subgraphs in it. */
export function* everyNode(graph) {
  for (const node of graph?.nodes ?? []) {
    yield node;
    if (node.subgraph) yield* everyNode(node.subgraph);
  }
}

/** The value of a node's widget by its name. */
export function widgetValue(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}
