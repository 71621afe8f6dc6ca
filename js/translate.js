// The pack's own words in the page's language; English stands in the code, the others in `locales/<language>/main.json`.
let messages = {};

/** Take the messages of a language, as the host serves them: all languages of all packs, ours under `mmdiff`. */
export function useLanguage(translations, language) {
  messages = translations[language]?.mmdiff ?? translations[language?.split("-")[0]]?.mmdiff ?? {};
}

/** A text in the page's language, with values in place of {names}. */
export function t(text, values = {}) {
  return (messages[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
