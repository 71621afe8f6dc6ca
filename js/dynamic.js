// Wildcards such as {a dog<|subj|>|a cat<|subj|>} choose at `|`, which stands in markers too: while the front end
// chooses, markers are written without it.
const OPEN = "\uE000";
const CLOSE = "\uE001";

export function hideMarkers(prompt) {
  return prompt.replace(/<\|([^|{}]*)\|>/g, (_, inside) => OPEN + inside + CLOSE);
}

export function showMarkers(prompt) {
  return prompt.replaceAll(OPEN, "<|").replaceAll(CLOSE, "|>");
}

/** Let a text widget's own way of choosing see a prompt whose markers are hidden. */
export function keepMarkersWhole(widget) {
  const choose = widget.serializeValue;
  if (!choose) return;
  widget.serializeValue = function (node, index) {
    const written = widget.value;
    if (typeof written !== "string" || !/\{[^}]*<\|/.test(written)) return choose.call(this, node, index);
    widget.value = hideMarkers(written);
    const chosen = choose.call(this, node, index);
    widget.value = written;
    const shown = (text) => {
      const whole = showMarkers(text);
      if (node?.widgets_values) node.widgets_values[index] = whole; // the saved picture says what was drawn
      return whole;
    };
    return chosen?.then ? chosen.then(shown) : shown(chosen);
  };
}
