// Small parts of what is shown in nodes and in the sidebar.

/** A button that says a text and does something. */
export function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

/** Elements beside each other. */
export function row(children) {
  const made = document.createElement("div");
  made.className = "mmdiff-row";
  made.append(...children);
  return made;
}
