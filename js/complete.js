// Completing a subject's name behind `@`.

/** The names that go on from an `@` before the caret, and from where: {start, names}, or null. */
export function completions(text, caret, names) {
  const found = /@([^@\n<>|]*)$/.exec(text.slice(0, caret));
  if (!found) return null;
  const begun = found[1].toLowerCase();
  const fitting = names.filter((name) => name && name.toLowerCase().startsWith(begun));
  return fitting.length ? { start: found.index, names: fitting } : null;
}

/** The text with a name in place of `@...`: behind a word its marker alone, else the name and its marker. */
export function complete(text, caret, start, name) {
  const word = /[\p{L}\p{N}_)]$/u.test(text.slice(0, start)) ? "" : name;
  const written = `${word}<|subj:${name}|>`;
  return { text: text.slice(0, start) + written + text.slice(caret), caret: start + written.length };
}
