import assert from "node:assert/strict";
import { test } from "node:test";
import { nameAfter, numberSockets, subjectsOf } from "../../js/subjects_of.js";

/** A node of the page's shape, its inputs connected to other nodes. */
function node(comfyClass, widgets, inputs = {}) {
  const names = Object.keys(inputs);
  return {
    comfyClass,
    type: comfyClass,
    widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
    inputs: names.map((name, link) => ({ name, link: inputs[name] ? link : null })),
    getInputNode: (index) => inputs[names[index]],
  };
}

const encode = node("MMDiffEncodeSubject", { name: " penguin ", weight: 1 });
const placed = node("MMDiffPlaceSubject", {}, { subject: encode });
const loaded = node("MMDiffLoadSubject", { subject: "people/ada" });
const rerouted = node("Reroute", {}, { "": placed });

test("subjects in socket order, behind reroutes and Place Subject", () => {
  const inputs = { "subjects.subject_0": loaded, "subjects.subject_1": rerouted, "subjects.subject_2": null, clip: encode };
  const bind = node("MMDiffBindSubjects", { prompt: "" }, inputs);
  assert.deepEqual(
    subjectsOf(bind, (one) => one.comfyClass),
    [
      { name: "ada", photo: "MMDiffLoadSubject" },
      { name: "penguin", photo: "MMDiffEncodeSubject" },
    ],
  );
});

test("what makes a subject in a way unknown here has no name", () => {
  const bind = node("MMDiffBindSubjects", {}, { "subjects.subject_0": node("SomebodyElses", {}) });
  assert.deepEqual(subjectsOf(bind, () => null), [{ name: "", photo: null }]);
});

test("a name after a file", () => {
  assert.equal(nameAfter("pets/red_fire-engine.png [input]"), "red fire engine");
  assert.equal(nameAfter("owl"), "owl");
  assert.equal(nameAfter("a<|b|>.jpg"), "ab");
});

test("sockets count from 1, and a label of somebody's own stays", () => {
  const inputs = [
    { name: "clip" },
    { name: "subjects.subject_0", label: "subject_0" },
    { name: "subjects.subject_1", label: "Ada" },
    { name: "subjects.subject_10" },
  ];
  numberSockets({ inputs }, (number) => `subject ${number}`);
  assert.deepEqual(inputs.map((input) => input.label), [undefined, "subject 1", "Ada", "subject 11"]);
});
