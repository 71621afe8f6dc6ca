// Where something new has room: among a Binding's sockets, and on the graph.

/** The number of a Binding's first socket for a subject that nothing is connected to, or -1. */
export function freeSocket(bind) {
  return bind.inputs.findIndex((input) => input.name.startsWith("subjects.") && input.link == null);
}

/**
 * How many pixels rectangles [x, y, width, height] have to go down, all alike, so that none meets one of the others;
 * gap: pixels that stay free above and below.
 */
export function stepDown(wanted, others, gap) {
  let step = 0;
  for (;;) {
    const steps = wanted.flatMap(([x, y, width, height]) =>
      others
        .filter(([left, , wide]) => x < left + wide && left < x + width)
        .filter(([, top, , high]) => y + step < top + high + gap && top < y + step + height + gap)
        .map(([, top, , high]) => top + high + gap - y),
    );
    if (!steps.length) return step;
    step = Math.max(...steps);
  }
}
