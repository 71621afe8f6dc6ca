// The page's language, before anything of ours is shown.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { useLanguage } from "./translate.js";

app.registerExtension({
  name: "mm-diff.language",
  async init() {
    const answer = await api.fetchApi("/i18n");
    useLanguage(await answer.json(), app.extensionManager.setting.get("Comfy.Locale"));
  },
});
