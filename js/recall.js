// What a node said when it last ran with the very inputs it has: the host says it once, and keeps it in its history.

/** Whether two graphs in API form are the same up to a node: its class and its values, and all that leads to it. */
export function sameUpTo(id, one, other) {
  const known = new Set();
  const waiting = [id];
  while (waiting.length) {
    const next = waiting.pop();
    if (known.has(next)) continue;
    known.add(next);
    const [a, b] = [one[next], other[next]];
    if (!a || !b || a.class_type !== b.class_type) return false;
    const names = Object.keys(a.inputs);
    if (names.length !== Object.keys(b.inputs).length) return false;
    if (names.some((name) => JSON.stringify(a.inputs[name]) !== JSON.stringify(b.inputs[name]))) return false;
    waiting.push(...Object.values(a.inputs).filter(isLink).map(([source]) => source));
  }
  return true;
}

/** The texts of a graph's nodes by their ids, from the host's history, {number: {prompt, outputs}}, oldest run first. */
export function recalled(graph, history) {
  const runs = Object.values(history).reverse();
  const texts = {};
  for (const id of Object.keys(graph)) {
    const run = runs.find(({ prompt, outputs }) => outputs[id]?.text && sameUpTo(id, graph, prompt[2]));
    if (run) texts[id] = run.outputs[id].text;
  }
  return texts;
}

const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string";
