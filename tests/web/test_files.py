"""What a large model needs, said where it is missing; and the demo that needs nothing."""

import pytest
from pages import load, look_at, template, vue_nodes


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue nodes"])
def test_missing_files_are_named_with_a_link_and_the_demo_is_offered(page, vue):
    vue_nodes(page, vue)
    load(page, template("MM-Diff 13 - Two People (SDXL)"))
    look_at(page, "MMDiffLoad")
    missing = page.locator(".mmdiff-problem", has_text="CLIP ViT-L/14 (openai)")
    missing.wait_for()
    assert "clip_vision" in missing.inner_text()
    assert missing.locator("a").get_attribute("href").endswith("clip-vit-large-patch14/resolve/main/model.safetensors")
    assert page.locator(".mmdiff-problem", has_text="w600k_r50.onnx").count() == 2, "in both Analyze Face nodes"
    page.get_by_role("button", name="Open the demo instead").first.click()
    page.wait_for_function("app.graph.nodes.some((node) => node.type === 'MMDiffLoadDemo')")


def test_a_panel_is_not_saved(page):
    load(page, template("MM-Diff 13 - Two People (SDXL)"))
    saved = page.evaluate("app.graph.nodes.find((node) => node.type === 'MMDiffLoad').serialize().widgets_values")
    assert saved == ["portrait_generation", "by file"]
