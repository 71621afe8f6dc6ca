import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { t, useLanguage } from "../../js/translate.js";

test("a text in the page's language, or as it stands", () => {
  const all = { de: { mmdiff: { "Hello {name}": "Hallo {name}" } } };
  for (const language of ["de", "de-AT"]) {
    useLanguage(all, language);
    assert.equal(t("Hello {name}", { name: "<b>" }), "Hallo <b>");
  }
  assert.equal(t("Bye {name}", {}), "Bye {name}");
  useLanguage(all, "fr");
  assert.equal(t("Hello {name}", { name: "Ada" }), "Hello Ada");
});
