import assert from "node:assert/strict";
import { test } from "node:test";
import { freeSocket, stepDown } from "../../js/arrange.js";

test("the first free socket for a subject", () => {
  const inputs = ["clip", "subjects.subject_0", "subjects.subject_1"].map((name) => ({ name, link: null }));
  inputs[1].link = 7;
  assert.equal(freeSocket({ inputs }), 2);
  assert.equal(freeSocket({ inputs: inputs.slice(0, 2) }), -1);
});

test("down to where nothing is met, all by the same step", () => {
  const column = [
    [0, 0, 100, 50],
    [0, 120, 100, 50],
    [300, 0, 100, 400],
  ];
  assert.equal(stepDown([[0, 500, 100, 50]], column, 10), 0);
  assert.equal(stepDown([[0, 0, 100, 40]], column, 10), 60, "a gap that is high enough is taken");
  assert.equal(stepDown([[0, 0, 100, 60]], column, 10), 180);
  const both = [
    [0, 0, 100, 40],
    [350, 0, 10, 40],
  ];
  assert.equal(stepDown(both, column, 10), 410, "both go as far as the one that is met last");
});
