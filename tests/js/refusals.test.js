import assert from "node:assert/strict";
import { test } from "node:test";
import { refusals } from "../../js/refusals.js";

const refused = (input, sentence) => ({
  type: "custom_validation_failed",
  message: "Custom validation failed for node",
  details: `${input} - ${sentence}`,
  extra_info: { input_name: input },
});

test("each sentence of ours once, and nobody else's", () => {
  const sentence = "Place Subject: a - b.";
  const found = {
    3: { class_type: "MMDiffPlaceSubject", errors: [refused("start_percent", sentence), refused("end_percent", sentence)] },
    "7:4": { class_type: "MMDiffBindSubjects", errors: [{ type: "required_input_missing", details: "clip" }] },
    5: { class_type: "LoadImage", errors: [refused("image", "Invalid image file")] },
  };
  assert.deepEqual(refusals(found), [{ id: "3", text: sentence }]);
});
