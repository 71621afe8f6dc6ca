// What the server would not even begin with, in this pack's own words.

/** {id, text} for each sentence of `validate_inputs` in the page's list of errors, {id: {class_type, errors}}. */
export function refusals(found) {
  return Object.entries(found)
    .filter(([, { class_type }]) => class_type.startsWith("MMDiff"))
    .flatMap(([id, { errors }]) => {
      const own = errors.filter((error) => error.type === "custom_validation_failed");
      const texts = own.map((error) => error.details.slice(`${error.extra_info.input_name} - `.length));
      return [...new Set(texts)].map((text) => ({ id, text })); // the host repeats it for each input that was looked at
    });
}
