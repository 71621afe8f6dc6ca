import assert from "node:assert/strict";
import { test } from "node:test";
import { hideMarkers, keepMarkersWhole, showMarkers } from "../../js/dynamic.js";

const PROMPT = "a {dog<|subj|>|cat<|subj:Ada B|>} and a man<|nobody|>";

test("hidden markers have no bar, and come back", () => {
  assert.equal(hideMarkers(PROMPT).split("|").length, 2, "the bar between the choices is left");
  assert.equal(showMarkers(hideMarkers(PROMPT)), PROMPT);
});

/** A widget that chooses as the front end does: the text at the first bar in braces, or the second. */
function chooser(value, place) {
  return {
    value,
    serializeValue() {
      return this.value.replace(/\{([^}]*)\}/g, (_, inside) => inside.split("|")[place]);
    },
  };
}

test("a choice keeps its markers", () => {
  for (const [place, chosen] of [[0, "dog<|subj|>"], [1, "cat<|subj:Ada B|>"]]) {
    const widget = chooser(PROMPT, place);
    keepMarkersWhole(widget);
    const saved = { widgets_values: ["before"] };
    assert.equal(widget.serializeValue(saved, 0), `a ${chosen} and a man<|nobody|>`);
    assert.equal(widget.value, PROMPT, "what is written stays");
    assert.equal(saved.widgets_values[0], `a ${chosen} and a man<|nobody|>`);
  }
});

test("a prompt without choices is left alone", () => {
  const widget = chooser("a toy<|subj|>", 0);
  keepMarkersWhole(widget);
  assert.equal(widget.serializeValue({}, 0), "a toy<|subj|>");
});
