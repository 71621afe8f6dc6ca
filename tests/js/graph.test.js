import assert from "node:assert/strict";
import { test } from "node:test";
import { everyNode, nodeAt, nodeOfOutput } from "../../js/graph.js";

/** A graph of the page's shape: nodes by id, a node with `subgraph` is a graph of its own. */
function graph(nodes, subgraphs = new Map()) {
  return { nodes, subgraphs, getNodeById: (id) => nodes.find((node) => String(node.id) === String(id)) };
}

const inner = graph([{ id: 3 }, { id: 4 }]);
const root = graph([{ id: 3 }, { id: 7, subgraph: inner }], new Map([["uuid", inner]]));

test("an execution id leads through subgraphs", () => {
  assert.equal(nodeAt(root, "3"), root.nodes[0]);
  assert.equal(nodeAt(root, "7:3"), inner.nodes[0]);
  assert.equal(nodeAt(root, 7), root.nodes[1]);
});

test("a node that is gone is nothing", () => {
  for (const id of ["9", "9:3", "3:3", "7:9"]) assert.equal(nodeAt(root, id) ?? null, null);
});

test("an output's place names the subgraph", () => {
  assert.equal(nodeOfOutput(root, "3"), root.nodes[0]);
  assert.equal(nodeOfOutput(root, "uuid:4"), inner.nodes[1]);
  assert.equal(nodeOfOutput(root, "gone:4"), undefined);
});

test("every node, also inside", () => {
  assert.deepEqual([...everyNode(root)].map((node) => node.id), [3, 7, 3, 4]);
  assert.deepEqual([...everyNode(undefined)], []);
});
