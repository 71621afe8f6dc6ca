// A subject's name follows its picture, until somebody gives it one.
import { widgetValue } from "./graph.js";
import { DEFAULT, nameAfter, origin } from "./subjects_of.js";

const PICTURES = { LoadImage: "image", MMDiffDemoSubject: "subject" }; // class -> the widget that says which
const seen = new WeakMap(); // Encode Subject -> the picture it had

/** Name an Encode Subject after the picture that was just chosen or connected. */
export function follow(node) {
  const source = origin(node, "image");
  const picture = String((source && widgetValue(source, PICTURES[source.comfyClass])) ?? "");
  const before = seen.get(node);
  seen.set(node, picture);
  const widget = node.widgets.find((one) => one.name === "name");
  if (before === undefined || before === picture || !picture) return; // just opened, or nothing new
  const unnamed = widget.value.replace(/ \d+$/, "") === DEFAULT; // "subject 2" is the second one that nobody named
  if (unnamed || widget.value === nameAfter(before)) widget.value = nameAfter(picture) || DEFAULT;
}
