// What a prompt binds, as things to look at and to click: a chip for each subject, the prompt's words, what is missing.
import { button, row } from "./elements.js";
import { t } from "./translate.js";

/**
 * Show a state in an element. state: {subjects: [{name, photo}], words: [{text, start, end, subject}], problem, mended,
 * chosen, names, hasRoom}; act: {toggle(word), choose(subject), mend(), complete(name), add()}.
 */
export function draw(element, state, act) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren(
    row(state.names.map((name) => keyed(`@${name}`, `name ${name}`, () => act.complete(name)))),
    row([...state.subjects.map((subject, number) => chip(subject, number, state, act)), ...adding(state, act)]),
    row(state.words.map((word) => wordButton(word, state, act))),
    ...problem(state, act),
  );
  element.querySelector(`[data-key="${CSS.escape(focused ?? "")}"]`)?.focus();
}

function chip(subject, number, state, act) {
  const words = state.words.filter((word) => word.subject === number).map((word) => word.text);
  const name = subject.name || t("subject {number}", { number: number + 1 });
  const made = keyed("", `chip ${number}`, () => act.choose(number));
  made.className = "mmdiff-chip";
  made.style.setProperty("--subject", colour(number));
  made.setAttribute("aria-pressed", number === state.chosen);
  made.title = t("The next word that is clicked becomes {name}.", { name });
  if (subject.photo) {
    const photo = document.createElement("img");
    photo.src = subject.photo;
    photo.alt = "";
    photo.addEventListener("error", () => photo.remove()); // saved before photos were kept, or gone
    made.append(photo);
  }
  made.append(`${number + 1} ${name} \u2192 ${words.join(", ") || t("no word yet")}`);
  made.classList.toggle("mmdiff-missing", !words.length);
  return made;
}

function adding(state, act) {
  if (!state.hasRoom) return [];
  const made = keyed("+", "add", act.add);
  made.title = t("Add another subject");
  made.setAttribute("aria-label", made.title);
  return [made];
}

function wordButton(word, state, act) {
  const made = keyed(word.text, `word ${word.start}`, () => act.toggle(word));
  made.className = "mmdiff-word";
  const bound = typeof word.subject === "number";
  made.setAttribute("aria-pressed", bound);
  if (bound) {
    made.style.setProperty("--subject", colour(word.subject));
    made.title = t("{word} is {name}; click to unbind it.", {
      word: word.text,
      name: state.subjects[word.subject]?.name ?? word.subject + 1,
    });
  } else if (word.subject === "nobody") {
    made.title = t("{word} is nobody; click to take the marker away.", { word: word.text });
    made.classList.add("mmdiff-nobody");
  }
  return made;
}

function problem(state, act) {
  if (!state.problem) return [];
  const line = document.createElement("div");
  line.setAttribute("role", "status");
  line.className = "mmdiff-problem";
  line.textContent = state.problem;
  if (state.mended) line.append(" ", keyed(t("Correct it"), "mend", act.mend));
  return [line];
}

/** A button that knows where the keyboard is, after the next drawing. */
function keyed(text, key, act) {
  const made = button(text, act);
  made.dataset.key = key;
  return made;
}

/** The colour of a subject by its number, the same as on the attention maps (nodes/colours.py). */
export function colour(number) {
  return ["#4cc9f0", "#ffb703", "#80ed99", "#ff70a6", "#c77dff", "#f4f1bb"][number % 6];
}
