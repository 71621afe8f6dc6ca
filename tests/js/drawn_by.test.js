import assert from "node:assert/strict";
import { test } from "node:test";
import { drawnBy } from "../../js/drawn_by.js";

/** Nodes of the page's shape from {name: [class, {input: [type, name of a node]}, outputs, changes]}. */
function graph(described) {
  const nodes = Object.fromEntries(Object.keys(described).map((name) => [name, {}]));
  for (const [name, [comfyClass, inputs, outputs = [], changes = {}]] of Object.entries(described)) {
    const sources = Object.values(inputs);
    Object.assign(nodes[name], {
      comfyClass,
      type: comfyClass,
      mode: 0,
      inputs: sources.map(([type], link) => ({ type, link })),
      getInputNode: (index) => nodes[sources[index][1]] ?? null,
      outputs: outputs.map((type) => ({ name: type === "CONDITIONING" ? "positive" : "binding", type, links: [] })),
      getOutputNodes: (index) => nodes[name].outputs[index].targets,
      ...changes,
    });
    for (const output of nodes[name].outputs) output.targets = [];
  }
  for (const [name, [, inputs]] of Object.entries(described)) {
    for (const [type, source] of Object.values(inputs)) {
      const output = nodes[source]?.outputs.find((one) => one.type === type);
      output?.links.push(1);
      output?.targets.push(nodes[name]);
    }
  }
  return nodes;
}

const bind = ["MMDiffBindSubjects", {}, ["CONDITIONING", "BINDING"]];
const loader = ["CheckpointLoaderSimple", {}, ["MODEL"]];
const apply = ["MMDiffApplyAttention", { model: ["MODEL", "loader"], binding: ["BINDING", "bind"] }, ["MODEL"]];
const sampler = (model) => ["KSampler", { model: ["MODEL", model], positive: ["CONDITIONING", "bind"] }];

test("a sampler with the model of Apply draws, through other nodes too", () => {
  assert.ok(drawnBy(graph({ bind, loader, apply, sampler: sampler("apply") }).bind));
  const lora = ["LoraLoader", { model: ["MODEL", "apply"] }, ["MODEL"]];
  assert.ok(drawnBy(graph({ bind, loader, apply, lora, sampler: sampler("lora") }).bind));
});

test("a sampler with the loader's model does not", () => {
  assert.ok(!drawnBy(graph({ bind, loader, apply, sampler: sampler("loader") }).bind));
  const control = ["ControlNetApplyAdvanced", { positive: ["CONDITIONING", "bind"] }, ["CONDITIONING"]];
  const late = ["KSampler", { model: ["MODEL", "loader"], positive: ["CONDITIONING", "control"] }];
  assert.ok(!drawnBy(graph({ bind, loader, apply, control, late }).bind), "behind a node that passes it on");
});

test("a bypassed Apply does not, a muted sampler does not count", () => {
  assert.ok(!drawnBy(graph({ bind, loader, apply: [...apply, { mode: 4 }], sampler: sampler("apply") }).bind));
  const muted = [...sampler("loader"), [], { mode: 2 }];
  assert.ok(drawnBy(graph({ bind, loader, apply, muted, sampler: sampler("apply") }).bind));
});

test("a merge draws with its first model alone", () => {
  const merge = (first, second) => ["ModelMergeSimple", { model1: ["MODEL", first], model2: ["MODEL", second] }, ["MODEL"]];
  const with_ = (merge) => drawnBy(graph({ bind, loader, apply, merge, sampler: sampler("merge") }).bind);
  assert.ok(with_(merge("apply", "loader")));
  assert.ok(with_(merge("apply", "apply")));
  assert.ok(!with_(merge("loader", "apply")));
  const again = ["MMDiffApplyAttention", { model: ["MODEL", "merge"], binding: ["BINDING", "bind"] }, ["MODEL"]];
  assert.ok(drawnBy(graph({ bind, loader, apply, merge: merge("loader", "apply"), again, sampler: sampler("again") }).bind));
});

test("nothing draws where the binding goes nowhere", () => {
  assert.ok(!drawnBy(graph({ bind, loader, sampler: sampler("loader") }).bind));
  assert.ok(drawnBy(graph({ bind, loader }).bind), "and nothing is said while nothing samples");
});

test("what can't be told is not said", () => {
  const from = (source) => drawnBy(graph({ bind, loader, apply, source, sampler: sampler("source") }).bind);
  assert.ok(from(["GetNode", {}, ["MODEL"], { isVirtualNode: true }]));
  assert.ok(from(["Some subgraph", {}, ["MODEL"], { subgraph: {} }]));
  assert.ok(drawnBy(graph({ bind, loader, apply, sampler: sampler("outside") }).bind));
});
