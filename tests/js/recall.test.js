import assert from "node:assert/strict";
import { test } from "node:test";
import { recalled, sameUpTo } from "../../js/recall.js";

const graph = (photo, prompt, seed = 1) => ({
  1: { class_type: "LoadImage", inputs: { image: photo } },
  2: { class_type: "MMDiffBindSubjects", inputs: { prompt, subject: ["1", 0] } },
  3: { class_type: "KSampler", inputs: { seed, positive: ["2", 0] } },
});
const run = (number, prompt, outputs) => ({ prompt: [number, "id", prompt], outputs });

test("a node means the same where all that leads to it does", () => {
  assert.ok(sameUpTo("2", graph("cat", "a cat"), graph("cat", "a cat", 2)), "what comes after it does not count");
  assert.ok(!sameUpTo("3", graph("cat", "a cat"), graph("cat", "a cat", 2)));
  assert.ok(!sameUpTo("2", graph("cat", "a cat"), graph("dog", "a cat")), "what comes before it does");
  assert.ok(!sameUpTo("4", graph("cat", "a cat"), graph("cat", "a cat")));
});

test("the newest text that belongs to these inputs", () => {
  const history = {
    a: run(-1, graph("cat", "a cat"), { 2: { text: ["old"] } }),
    b: run(2, graph("cat", "a cat", 3), { 2: { text: ["new"] } }),
    c: run(3, graph("dog", "a cat"), { 2: { text: ["another photo"] } }),
    d: run(4, graph("cat", "a cat", 4), { 3: { images: [] } }), // cached, so it said nothing
  };
  assert.deepEqual(recalled(graph("cat", "a cat", 5), history), { 2: ["new"] });
  assert.deepEqual(recalled(graph("cat", "a kiwi"), history), {});
});
