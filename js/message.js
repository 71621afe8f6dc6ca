// A message in a node: a report, or an error. It is a widget of the page's own kind, and no input.
const WIDGET = "mmdiff_message"; // its name and its type, one that no front end has a widget for: they show the element
const [LINE, LETTER, FRAME, MOST] = [17, 6.5, 32, 160]; // pixels: a line, a letter's width, what is around them, in all

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("mm-diff.css", import.meta.url).href;
document.head.append(style);

/** Show a text in a node, in place of what stood there before. */
export function say(node, text, { label, error = false }) {
  let widget = find(node);
  if (!widget) {
    widget = node.addDOMWidget(WIDGET, WIDGET, document.createElement("div"), { serialize: false });
    widget.serialize = false; // it stays out of saved workflows
    // As high as its text; with a layout of its own it would take half of the room of the pictures below.
    widget.computeLayoutSize = undefined;
    widget.computeSize = () => [0, height(widget.element.textContent, node.size[0])];
  }
  const { element } = widget;
  element.className = error ? "mmdiff mmdiff-message mmdiff-error" : "mmdiff mmdiff-message";
  element.setAttribute("role", error ? "alert" : "status");
  element.setAttribute("aria-label", label);
  element.tabIndex = 0;
  element.textContent = text; // never HTML: prompts may hold anything
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
}

/** Pixels that a text wants in a node of a width. */
function height(text, width) {
  const letters = (width - FRAME) / LETTER;
  const lines = text.split("\n").map((line) => Math.max(1, Math.ceil(line.length / letters)));
  return Math.min(MOST, FRAME + LINE * lines.reduce((sum, one) => sum + one, 0));
}

/** Whether a node has a message. */
export function says(node) {
  return find(node) !== undefined;
}

/** Take a node's message away. */
export function unsay(node) {
  const widget = find(node);
  if (widget) node.removeWidget(widget);
}

/** Take a node's error away; a report stays. */
export function clearError(node) {
  if (find(node)?.element.getAttribute("role") === "alert") unsay(node);
}

function find(node) {
  return node.widgets?.find((one) => one.name === WIDGET);
}
