// Who is connected to a Multi-Subject Binding: names and photos, found along the links.
import { widgetValue } from "./graph.js";

/** What a subject is called that nobody has named. */
export const DEFAULT = "subject";

const PASSES_ON = { MMDiffPlaceSubject: "subject" }; // class -> the input that its subject comes from

/** The subjects in socket order: {name, photo}; name is "" and photo null where they cannot be known before a run. */
export function subjectsOf(node, photoOf) {
  const sockets = node.inputs.filter((input) => input.name.startsWith("subjects.") && input.link != null);
  return sockets.map((input) => {
    const encoder = origin(node, input.name);
    return { name: nameOf(encoder).trim(), photo: encoder ? photoOf(encoder) : null };
  });
}

/** Label the sockets as everything else counts subjects, from 1; a label that somebody gave stays. */
export function numberSockets(node, label) {
  for (const input of node.inputs) {
    const [found, number] = /^subjects\.subject_(\d+)$/.exec(input.name) ?? [];
    if (found && (!input.label || `subjects.${input.label}` === found)) input.label = label(Number(number) + 1);
  }
}

/** The node that makes what an input gets, behind reroutes and nodes that pass a subject on. */
export function origin(node, name) {
  const index = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  const link = node.inputs?.[index]?.link;
  if (link == null) return null;
  const resolved = node.graph?.getLink?.(link)?.resolve?.(node.graph);
  const source = resolved?.outputNode ?? node.getInputNode?.(index);
  if (!source) return null;
  const through = PASSES_ON[source.comfyClass] ?? (source.type === "Reroute" ? source.inputs?.[0]?.name : undefined);
  return through === undefined ? source : origin(source, through);
}

function nameOf(node) {
  if (node?.comfyClass === "MMDiffEncodeSubject") {
    const linked = node.inputs.find((input) => input.name === "name")?.link != null;
    return linked ? "" : (widgetValue(node, "name") ?? "");
  }
  if (node?.comfyClass === "MMDiffLoadSubject") return String(widgetValue(node, "subject") ?? "").split("/").pop();
  return "";
}

/** A subject's name after the file or the picture it comes from. */
export function nameAfter(file) {
  const base = String(file).replace(/\s*\[\w+\]$/, "").split(/[\\/]/).pop();
  return base.replace(/\.\w+$/, "").replace(/[_-]+/g, " ").replace(/[<>|]/g, "").trim();
}
