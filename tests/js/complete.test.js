import assert from "node:assert/strict";
import { test } from "node:test";
import { complete, completions } from "../../js/complete.js";

const NAMES = ["penguin", "Pete", "fire engine", ""];

test("names that go on from @", () => {
  assert.deepEqual(completions("a @", 3, NAMES), { start: 2, names: ["penguin", "Pete", "fire engine"] });
  assert.deepEqual(completions("a @p", 4, NAMES).names, ["penguin", "Pete"]);
  assert.deepEqual(completions("a @fire en and", 10, NAMES).names, ["fire engine"]);
  assert.equal(completions("a @x", 4, NAMES), null);
  assert.equal(completions("a penguin", 9, NAMES), null);
  assert.equal(completions("mail@home @", 4, NAMES), null, "the @ stands behind the caret");
});

test("behind a word the marker alone, else the name too", () => {
  assert.deepEqual(complete("a toy@pe at home", 8, 5, "penguin"), { text: "a toy<|subj:penguin|> at home", caret: 21 });
  assert.equal(complete("a @", 3, 2, "fire engine").text, "a fire engine<|subj:fire engine|>");
});
