// A sidebar of the saved subjects: find one, put it on the graph, delete it.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { button } from "./elements.js";
import { t } from "./translate.js";

let list = null; // where they are shown, while the sidebar is open

async function show() {
  const answer = await api.fetchApi("/mmdiff/subjects");
  const names = await answer.json();
  if (!list) return;
  list.replaceChildren(...names.map(card));
  if (!names.length) list.textContent = t("No subject is saved yet: connect Encode Subject to Save Subject, and run.");
}

function card(name) {
  const made = document.createElement("div");
  made.className = "mmdiff-subject";
  made.dataset.name = name.toLowerCase();
  const photo = document.createElement("img");
  photo.src = api.apiURL(`/mmdiff/subject?${new URLSearchParams({ name })}`);
  photo.alt = "";
  photo.addEventListener("error", () => photo.remove()); // saved before photos were kept
  const put = button("", () => add(name));
  put.title = t("Put {name} on the graph", { name });
  put.append(photo, name);
  const gone = button("\u2715", () => remove(name));
  gone.setAttribute("aria-label", t("Delete {name}", { name }));
  made.append(put, gone);
  return made;
}

async function add(name) {
  await app.refreshComboInNodes();
  const node = LiteGraph.createNode("MMDiffLoadSubject");
  const [x, y] = app.canvas.ds.offset;
  node.pos = [200 / app.canvas.ds.scale - x, 200 / app.canvas.ds.scale - y];
  app.graph.add(node);
  node.widgets.find((widget) => widget.name === "subject").value = name;
  app.canvas.selectNode(node);
}

async function remove(name) {
  const sure = await app.extensionManager.dialog.confirm({
    title: t("Delete {name}", { name }),
    message: t("The file of {name} is deleted for good.", { name }),
    type: "delete",
  });
  if (!sure) return;
  const answer = await api.fetchApi(`/mmdiff/subject?${new URLSearchParams({ name })}`, { method: "DELETE" });
  if (!answer.ok) {
    const { problem } = await answer.json();
    app.extensionManager.toast.add({ severity: "error", summary: "MM-Diff", detail: problem, life: 15_000 });
  }
  await Promise.all([show(), app.refreshComboInNodes()]);
}

function render(element) {
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = t("Search subjects");
  search.setAttribute("aria-label", search.placeholder);
  search.addEventListener("input", () => {
    for (const one of list.children) one.hidden = !one.dataset.name?.includes(search.value.trim().toLowerCase());
  });
  list = document.createElement("div");
  const frame = document.createElement("div");
  frame.className = "mmdiff mmdiff-sidebar";
  frame.append(search, list);
  element.replaceChildren(frame);
  show();
}

app.registerExtension({
  name: "mm-diff.subjects",
  setup() {
    app.extensionManager.registerSidebarTab({
      id: "mm-diff.subjects",
      icon: "pi pi-users",
      title: t("Subjects"),
      tooltip: t("Saved MM-Diff subjects"),
      type: "custom",
      render,
      destroy: () => {
        list = null;
      },
    });
  },
  nodeCreated(node) {
    if (node.comfyClass !== "MMDiffSaveSubject") return;
    const inherited = node.onExecuted;
    node.onExecuted = function (output) {
      inherited?.call(this, output);
      app.refreshComboInNodes(); // what was saved can be chosen
      show();
    };
  },
});
