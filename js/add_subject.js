// "Add another subject" for a Multi-Subject Binding: one more Encode Subject with a picture of its own, wired as its
// neighbour is.
import { app } from "../../scripts/app.js";
import { freeSocket, stepDown } from "./arrange.js";
import { everyNode, widgetValue } from "./graph.js";
import { DEFAULT, nameAfter, origin } from "./subjects_of.js";
import { t } from "./translate.js";

const COMMAND = "mm-diff.addSubject";
const BINDING = "MMDiffBindSubjects";
const ENCODER = "MMDiffEncodeSubject";
const DRAWING = "MMDiffDemoSubject";
const FACES = "MMDiffAnalyzeFace";
const GAP = 60; // pixels between nodes: a title's height, and air

/** Whether a node is a Binding with a socket left. */
export const hasRoom = (node) => node?.comfyClass === BINDING && freeSocket(node) >= 0;

/** Add a subject to a Binding that has room, and select its picture, which is to be chosen. */
export function addSubject(bind) {
  const { graph } = bind;
  const others = [...everyNode(graph)];
  const sources = bind.inputs.map((input) => origin(bind, input.name));
  const encoderLike = sources.findLast((one) => one?.comfyClass === ENCODER);
  const imageLike = encoderLike && origin(encoderLike, "image");
  const faceLike = encoderLike && origin(encoderLike, "face");
  graph.beforeChange?.();
  const image = like(imageLike, imageLike?.comfyClass === DRAWING ? DRAWING : "LoadImage");
  const face = faceLike?.comfyClass === FACES ? like(faceLike, FACES) : null;
  const encoder = like(encoderLike, ENCODER);
  const made = face ? [image, face, encoder] : [image, encoder];
  place(made, face ? [imageLike, faceLike, encoderLike] : [imageLike, encoderLike], bind);
  for (const node of made) graph.add(node);
  wire(wireOf(encoderLike ?? bind, "mmdiff"), encoder, "mmdiff");
  wire(wireOf(encoderLike, "clip_vision") ?? outputOf(others, "CLIP_VISION"), encoder, "clip_vision");
  image.connect(0, encoder, "image");
  if (!encoderLike || (imageLike && origin(encoderLike, "mask") === imageLike)) image.connect(1, encoder, "mask");
  if (face) {
    wire(wireOf(faceLike, "mmdiff"), face, "mmdiff");
    image.connect(0, face, "image");
    face.connect(0, encoder, "face");
  }
  const drawing = image.comfyClass === DRAWING && image.widgets.find((one) => one.name === "subject");
  if (drawing) drawing.value = firstLeft(drawing.options.values, values(others, DRAWING, "subject")) ?? drawing.value;
  const name = drawing ? nameAfter(drawing.value) : DEFAULT;
  const numbered = [name, ...others.map((_, number) => `${name} ${number + 2}`)];
  encoder.widgets.find((one) => one.name === "name").value = firstLeft(numbered, values(others, ENCODER, "name"));
  encoder.connect(0, bind, freeSocket(bind));
  graph.afterChange?.();
  app.canvas.selectNode(image);
  app.graph.setDirtyCanvas(true, true);
}

/** A new node of a kind; as wide as another one and with its settings, where that is of the same kind. */
function like(other, kind) {
  const node = LiteGraph.createNode(kind);
  if (other?.comfyClass !== kind) return node;
  node.setSize([other.size[0], node.size[1]]);
  const settings = kind === "LoadImage" ? [] : (node.widgets ?? []).filter((widget) => widget.serialize !== false);
  for (const widget of settings) widget.value = widgetValue(other, widget.name) ?? widget.value;
  return node;
}

/** Put nodes, left to right, below those that they are like, or left of the Binding, where no other node is. */
function place(made, likes, bind) {
  let [right, top] = bind.pos;
  const wanted = [];
  for (let number = made.length - 1; number >= 0; number--) {
    const [width, height] = made[number].size;
    [right, top] = likes[number]?.pos ?? [right - width - GAP, top];
    wanted[number] = [right, top, width, Math.max(height, likes[number]?.size[1] ?? 0)];
  }
  const step = stepDown(wanted, bind.graph.nodes.map((node) => [...node.pos, ...node.size]), GAP);
  for (const [number, node] of made.entries()) node.pos = [wanted[number][0], wanted[number][1] + step];
}

/** What an input of a node gets, [node, output], or undefined. */
function wireOf(node, name) {
  const link = node?.graph.getLink(node.inputs.find((input) => input.name === name)?.link);
  const source = link && node.graph.getNodeById(link.origin_id);
  return source ? [source, link.origin_slot] : undefined;
}

/** The first output of a type among nodes, [node, output], or undefined. */
function outputOf(nodes, type) {
  const node = nodes.find((one) => one.outputs?.some((output) => output.type === type));
  return node && [node, node.outputs.findIndex((output) => output.type === type)];
}

function wire(source, node, name) {
  source?.[0].connect(source[1], node, name);
}

const values = (nodes, kind, name) => nodes.filter((one) => one.comfyClass === kind).map((one) => widgetValue(one, name));
const firstLeft = (offered, taken) => offered.find((one) => !taken.includes(one));

app.registerExtension({
  name: COMMAND,
  commands: [
    {
      id: COMMAND,
      label: () => t("Add another subject"),
      icon: "pi pi-user-plus",
      function: () => Object.values(app.canvas.selected_nodes).filter(hasRoom).forEach(addSubject),
    },
  ],
  getSelectionToolboxCommands: (item) => (hasRoom(item) ? [COMMAND] : []),
  getNodeMenuItems: (node) =>
    hasRoom(node) ? [{ content: t("Add another subject"), callback: () => addSubject(node) }] : [],
});
