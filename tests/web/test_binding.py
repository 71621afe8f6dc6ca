"""Who is bound to which word, while one types: chips, words to click, slips, names behind @, wildcards."""

import pytest
from pages import at_rest, load, overlaps, run, template, vue_nodes

HOSTILE = '<img src=x onerror="window.pwned=1">'


@pytest.fixture(params=[False, True], ids=["canvas", "vue nodes"])
def prompt(page, request):
    """The prompt's text area of the template with two demo subjects, the penguin and the fire engine."""
    vue_nodes(page, request.param)
    load(page, template("MM-Diff 4 - Two Subjects by Word (demo)"))
    chip(page, "1 penguin → toy").wait_for()
    # By itself, not by its place: those of the graph before may still be there, and its own may come after its chips.
    page.wait_for_function(
        """() => {
            const areas = [...document.querySelectorAll("textarea")]
            const found = areas.find((one) => one.value.startsWith("a toy<|subj|>"))
            if (found) found.dataset.tested = "prompt"
            return Boolean(found)
        }"""
    )
    return page.locator("[data-tested=prompt]")


def chip(page, text):
    return page.locator(".mmdiff-chip", has_text=text)


def word(page, text):
    return page.get_by_role("button", name=text, exact=True)


def until(page, prompt, text):
    page.wait_for_function("([area, text]) => area.value === text", arg=[prompt.element_handle(), text])


def test_chips_follow_what_is_typed(page, prompt):
    prompt.fill("a toy<|subj|> at home")
    chip(page, "2 fire engine → no word yet").wait_for()
    page.locator(".mmdiff-problem", has_text="No marker is left in the prompt for 'fire engine'").wait_for()
    prompt.fill("a penguin and a fire engine")
    chip(page, "2 fire engine → engine").wait_for()
    assert page.locator(".mmdiff-problem").count() == 0


def test_a_chip_shows_its_picture_before_any_run(page, prompt):
    page.wait_for_function("document.querySelectorAll('.mmdiff-chip img').length === 2")
    page.wait_for_function("[...document.querySelectorAll('.mmdiff-chip img')].every((one) => one.naturalWidth > 0)")


def test_a_click_on_a_word_binds_and_unbinds(page, prompt):
    prompt.fill("a toy and a car")
    chip(page, "1 penguin → no word yet").wait_for()
    word(page, "toy").click()
    until(page, prompt, "a toy<|subj|> and a car")
    word(page, "car").click()
    until(page, prompt, "a toy<|subj|> and a car<|subj|>")
    word(page, "toy").press("Enter")
    until(page, prompt, "a toy and a car<|subj|>")


def test_a_slip_is_seen_and_corrected(page, prompt):
    prompt.fill("a toy<|sub|> and a car<|Subject|>")
    page.get_by_role("button", name="Correct it").click()
    until(page, prompt, "a toy<|subj|> and a car<|subj|>")


def test_names_are_completed_behind_an_at(page, prompt):
    prompt.fill("a toy")
    prompt.press("End")
    prompt.press_sequentially("@fi")
    page.get_by_role("button", name="@fire engine").wait_for()
    prompt.press("Tab")
    until(page, prompt, "a toy<|subj:fire engine|>")


def test_markup_is_text(page, prompt):
    prompt.fill(f"a toy<|subj|> {HOSTILE} and a car<|subj:{HOSTILE}|>")
    page.locator(".mmdiff-problem", has_text=HOSTILE).wait_for()
    assert page.evaluate("window.pwned") is None


def test_a_wildcard_keeps_its_markers(page, prompt):
    prompt.fill("a {toy<|subj|>|toy<|subj|>} and a car<|subj|>")
    posted = page.evaluate("async () => (await app.graphToPrompt()).output")
    (sent,) = [node["inputs"]["prompt"] for node in posted.values() if node["class_type"] == "MMDiffBindSubjects"]
    assert sent == "a toy<|subj|> and a car<|subj|>"
    assert prompt.input_value() == "a {toy<|subj|>|toy<|subj|>} and a car<|subj|>"


def test_a_name_follows_the_picture_until_one_is_given(page, prompt):
    def choose(number, picture):
        page.evaluate(
            """([number, picture]) => {
                app.graph.nodes.filter((node) => node.type === "MMDiffDemoSubject")[number].widgets[0].value = picture
                document.body.dispatchEvent(new Event("change", { bubbles: true }))
            }""",
            [number, picture],
        )

    choose(0, "owl")
    chip(page, "1 owl").wait_for()
    page.evaluate(
        """app.graph.nodes.filter((node) => node.type === "MMDiffEncodeSubject")[1].widgets
            .find((widget) => widget.name === "name").value = "Ben" """
    )
    choose(1, "kiwi")
    chip(page, "2 Ben").wait_for()


def test_subjects_that_nothing_draws_are_said(page, prompt):
    page.evaluate(
        """() => {
            const bind = app.graph.nodes.find((node) => node.type === "MMDiffBindSubjects")
            bind.disconnectOutput(bind.outputs.findIndex((output) => output.name === "binding"))
            document.body.dispatchEvent(new Event("change", { bubbles: true }))
        }"""
    )
    page.locator(".mmdiff-problem", has_text="connect binding to Apply MM-Diff Attention").wait_for()


def test_a_sampler_without_the_subjects_is_said(page, prompt):
    page.evaluate(
        """() => {
            const of = (kind) => app.graph.nodes.find((node) => node.type === kind)
            of("MMDiffLoadDemo").connect("model", of("KSampler"), "model")
            document.body.dispatchEvent(new Event("change", { bubbles: true }))
        }"""
    )
    page.locator(".mmdiff-problem", has_text="sample with its model").wait_for()


def test_sockets_count_from_one(page, prompt):
    labels = """() => app.graph.nodes.find((node) => node.type === "MMDiffBindSubjects").inputs
        .filter((input) => input.name.startsWith("subjects.")).map((input) => input.label)"""
    page.wait_for_function(f"() => ({labels})().join() === 'subject 1,subject 2,subject 3'")
    if page.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')"):
        page.get_by_text("subject 3", exact=True).wait_for()
        assert page.get_by_text("subject_0", exact=True).count() == 0


def test_a_node_dragged_from_the_sidebar_is_read(page):
    page.locator(".side-bar-button", has_text="Nodes").click()
    page.get_by_placeholder("Search...").last.fill("Multi-Subject Binding")
    row = page.get_by_text("Multi-Subject Binding", exact=True).first.bounding_box()
    page.mouse.move(row["x"] + 5, row["y"] + 5)
    page.mouse.down()
    page.mouse.move(800, 300, steps=5)
    page.mouse.move(900, 200, steps=5)
    page.mouse.up()
    page.wait_for_function("app.graph.nodes[0]?.inputs.some((input) => input.label === 'subject 1')")
    page.locator(".mmdiff-problem", has_text="Connect a subject").wait_for()


@pytest.mark.parametrize("way", ["toolbox", "chips"])
def test_another_subject_comes_with_its_wires_and_is_drawn(page, prompt, way):
    place = page.locator(".mmdiff")
    if way == "toolbox":
        place = page.locator(".selection-toolbox")
        page.evaluate("app.canvas.selectNode(app.graph.nodes.find((node) => node.type === 'MMDiffBindSubjects'))")
    place.get_by_role("button", name="Add another subject").click()
    chip(page, "3 kiwi → no word yet").wait_for()
    prompt.fill("a toy<|subj|> and a car<|subj|> beside a bird<|subj|>")
    chip(page, "3 kiwi → bird").wait_for()
    at_rest(page)
    assert overlaps(page) == []
    run(page)
