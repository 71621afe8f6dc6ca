// What the options of this pack's lists are called in the page's language; what is chosen and saved stays English.
import { app } from "../../scripts/app.js";
import { t } from "./translate.js";

const labels = () => ({
  auto: t("auto"),
  "by file": t("by file"),
  "by word": t("by word"),
  index: t("index"),
  largest: t("largest"),
  leftmost: t("leftmost"),
  "none saved yet": t("none saved yet"),
  "none there yet": t("none there yet"),
  number: t("number"),
  reference: t("reference"),
  "to the subject": t("to the subject"),
  "whole photo": t("whole photo"),
});

app.registerExtension({
  name: "mm-diff.options",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MMDiff")) return;
    const own = labels();
    for (const widget of node.widgets ?? []) {
      if (widget.type === "combo") widget.options.getOptionLabel = (value) => own[value] ?? value ?? "";
    }
  },
});
