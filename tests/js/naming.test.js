import assert from "node:assert/strict";
import { test } from "node:test";
import { follow } from "../../js/naming.js";

function encoder(name, file) {
  const picture = { comfyClass: "LoadImage", type: "LoadImage", widgets: [{ name: "image", value: file }] };
  const node = { widgets: [{ name: "name", value: name }], inputs: [{ name: "image", link: 1 }], getInputNode: () => picture };
  follow(node);
  return { name: () => node.widgets[0].value, call: (given) => (node.widgets[0].value = given), choose(next) {
    picture.widgets[0].value = next;
    follow(node);
  } };
}

test("a saved name stays when a graph is opened", () => {
  assert.equal(encoder("subject", "cat.jpg").name(), "subject");
});

test("the default and a name after the picture before follow", () => {
  const one = encoder("subject", "cat.jpg");
  one.choose("pets/my_dog.png");
  assert.equal(one.name(), "my dog");
  one.choose("owl.png");
  assert.equal(one.name(), "owl");
});

test("a given name stays", () => {
  const one = encoder("Ada", "cat.jpg");
  one.choose("dog.png");
  assert.equal(one.name(), "Ada");
});
