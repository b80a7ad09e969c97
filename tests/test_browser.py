"""The Space in a browser: what a visitor does and sees, with no other server within reach."""

from __future__ import annotations

import json
import re

import pytest
from browsing import SECONDS, two_faces, upload, wait_for_text
from PIL import Image

from fer_zoo.labels import EXPRESSIONS
from space.live import TIME_LIMIT
from space.readers import MODELS
from train.screenshot import TABS, fill, open_tab

TOP = "#bars tr.top th"  # the most probable expression


def pixels(page, picture: str) -> bytes:
    """What is shown of a picture once it is loaded."""
    page.wait_for_function("s => document.querySelector(s)?.complete", arg=f"{picture} img")
    return page.locator(f"{picture} img").screenshot()


def test_astronaut_looks_happy_and_the_map_says_why(page, examples):
    upload(page, examples / "astronaut.jpg")
    page.wait_for_selector("#map img")
    wait_for_text(page, "#status", "^1 face found.$")
    wait_for_text(page, TOP, "^happy$")
    assert page.locator("#bars tr").count() == 7
    assert page.locator("#shown img").is_visible() and page.locator("#crop img").is_visible()
    assert page.get_by_role("radio", name="happy").is_checked()
    assert "happy" in page.inner_text("#words")

    happy, source = pixels(page, "#map"), page.get_attribute("#map img", "src")
    page.get_by_role("radio", name="sad").check()
    wait_for_text(page, "#words", "sad")
    page.wait_for_function("src => document.querySelector('#map img').src != src", arg=source)
    assert pixels(page, "#map") != happy
    assert page.inner_text(TOP) == "happy", "only the map changes"

    for _ in range(3):  # each while the map of the one before is awaited
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(40)
    (chosen,) = (name for name in EXPRESSIONS if page.get_by_role("radio", name=name).is_checked())
    wait_for_text(page, "#words", chosen)


def test_faces_are_chosen_by_number_and_by_click(page, examples, tmp_path):
    photo = two_faces(examples)
    photo.save(tmp_path / "two.png")
    upload(page, tmp_path / "two.png")
    page.wait_for_selector("#map img")
    wait_for_text(page, "#status", "^2 faces found.")
    hopper, collins = (page.locator("#face button.thumbnail-item").nth(n) for n in (0, 1))  # largest first
    wait_for_text(page, "#bars", "^(Expression|Unsure)")
    table_of_hopper = page.inner_text("#bars")

    collins.click()
    page.wait_for_function(
        "hopper => document.querySelector('#bars').innerText != hopper", arg=table_of_hopper
    )
    wait_for_text(page, TOP, "^happy$")

    shown = page.locator("#shown img").bounding_box()
    scale = shown["width"] / photo.width
    page.mouse.click(shown["x"] + 740 * scale, shown["y"] + 220 * scale)
    page.wait_for_function(
        "hopper => document.querySelector('#bars').innerText == hopper", arg=table_of_hopper
    )
    assert "selected" in hopper.get_attribute("class")

    page.locator("#photo").get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")
    assert not page.locator("#face").is_visible() and not page.locator("#shown").is_visible()


def test_example_photo(page):
    page.get_by_role("button", name="Example astronaut").click()
    wait_for_text(page, TOP, "^happy$")


def test_photo_that_the_browser_cannot_show(page, examples, tmp_path):
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif").register_heif_opener()
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.save(tmp_path / "phone.heic", format="HEIF")
    upload(page, tmp_path / "phone.heic")
    wait_for_text(page, TOP, "^happy$")


def test_webcam_snapshot(page):
    page.get_by_label("Capture from camera").first.click()
    page.get_by_text("Click to Access Webcam").first.click()
    page.wait_for_function("document.querySelector('#photo video')?.videoWidth")  # the picture moves
    page.get_by_label("capture photo").first.click()
    wait_for_text(page, TOP, "^happy$")


def test_picture_and_numbers_can_be_taken_home(page, examples):
    upload(page, examples / "astronaut.jpg")
    page.wait_for_selector("#map img")
    with page.expect_download() as picture:
        page.get_by_role("button", name="Picture with boxes").click()
    with Image.open(picture.value.path()) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (512, 512))
    with page.expect_download() as numbers:
        page.get_by_role("button", name="Numbers").click()
    (face,) = json.loads(numbers.value.path().read_text())
    assert face["label"] == "happy" and face["unsure"] is False

    page.get_by_role("button", name="Example grace_hopper").click()
    wait_for_text(page, TOP, "^neutral$")
    assert not page.locator("#png").is_visible() and not page.locator("#json").is_visible()
    with page.expect_download() as numbers:
        page.get_by_role("button", name="Numbers").click()
    assert json.loads(numbers.value.path().read_text())[0]["label"] == "neutral"


def test_keyboard_alone_is_enough(page, examples):
    upload(page, examples / "astronaut.jpg")
    page.wait_for_selector("#map img")
    page.get_by_role("radio", name="happy").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    wait_for_text(page, "#words", "sad")
    page.get_by_role("tab", name="Photo").focus()
    for _ in TABS[1:]:
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText.trim()") == "About":
            break
    page.keyboard.press("Enter")
    page.get_by_text("Art. 5(1)(f)").wait_for()


def test_bad_file_and_missing_face_give_a_sentence(page, tmp_path):
    page.get_by_role("button", name="Example grace_hopper").first.click()  # after that, too
    page.wait_for_selector("#map img")
    page.locator("#photo").get_by_label("Remove Image").click()
    (tmp_path / "notes.jpg").write_text("no picture")
    upload(page, tmp_path / "notes.jpg")
    wait_for_text(page, "#status", r"^'notes\.jpg' is not an image.*\.$")
    page.locator("#photo").get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")

    Image.new("RGB", (300, 300), "gray").save(tmp_path / "gray.png")
    upload(page, tmp_path / "gray.png")
    wait_for_text(page, "#status", "No face found")
    assert not page.locator("#bars").is_visible()
    page.get_by_label("This picture is already a face").check()
    wait_for_text(page, "#status", "^Read as one face: none was looked for.$")
    page.wait_for_selector("#map img")


def test_too_large_file_gives_a_sentence(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(27_000_000))
    upload(page, tmp_path / "large.png")
    page.get_by_text(re.compile("exceed the maximum allowed size")).wait_for()


def test_live_follows_a_face_until_it_is_stopped(page):
    open_tab(page, "Live")
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="Record").click()
    wait_for_text(page, "#live-faces", "Face 1: happy")
    wait_for_text(page, "#live-speed", r"^\d+\.\d frames/s · \d+ ms from camera to screen$")
    first = page.get_attribute("#live-frame img", "src")
    page.wait_for_function("src => document.querySelector('#live-frame img').src != src", arg=first)
    page.wait_for_function("document.querySelectorAll('#live-faces svg rect').length > 2")
    assert "Face 2" not in page.inner_text("#live-faces"), "the face that moves keeps its number"
    page.get_by_label("Show the evidence").check()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_timeout(1.5 * SECONDS)  # for the frame on its way
    last = page.get_attribute("#live-frame img", "src")
    page.wait_for_timeout(1 * SECONDS)
    assert page.get_attribute("#live-frame img", "src") == last


def test_live_ends_where_another_tab_is_opened(page):
    open_tab(page, "Live")
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera").get_by_text("Record", exact=True).click()
    page.wait_for_selector("#live-frame img")
    for tab in ("Zoo", "About", "Live"):  # one stops it, the next does not start it again
        open_tab(page, tab)
    page.locator("#camera").get_by_text("Record", exact=True).wait_for()
    page.wait_for_timeout(1.5 * SECONDS)  # for the frame on its way
    last = page.get_attribute("#live-frame img", "src")
    page.wait_for_timeout(1 * SECONDS)
    assert page.get_attribute("#live-frame img", "src") == last


def test_compare_shows_every_model(page, examples):
    open_tab(page, "Compare")
    page.set_input_files("#compare-photo input[type=file]", examples / "astronaut.jpg")
    wait_for_text(page, "#compare-status", rf"^The face: \d+ of {len(MODELS)} models say happy\.$")
    cards = page.locator("#compare-cards article")
    assert [cards.nth(n).locator("h2").inner_text() for n in range(cards.count())] == MODELS
    assert all(re.search(r"\d ms$", text.strip()) for text in cards.all_inner_texts())
    own = page.get_attribute("#compare-cards img", "src")
    page.get_by_label("sad").last.check()
    page.wait_for_function("src => document.querySelector('#compare-cards img').src != src", arg=own)
    assert "Evidence for sad" in cards.first.inner_text()


def test_photo_comes_along_to_compare(page, examples):
    upload(page, examples / "astronaut.jpg")
    page.wait_for_selector("#map img")
    happy = page.inner_text("#bars tr.top")
    open_tab(page, "Compare")
    wait_for_text(page, "#compare-status", r"models say happy\.$")
    assert page.locator("#compare-cards article").first.locator("tr.top").inner_text() == happy
    for whole, found, said in (
        (True, "Read as one face", "The picture as one"),
        (False, "1 face", "The face"),
    ):
        open_tab(page, "Photo")
        page.get_by_label("This picture is already a face").first.set_checked(whole)
        wait_for_text(page, "#status", f"^{found}")
        open_tab(page, "Compare")
        wait_for_text(page, "#compare-status", f"^{said}")

    page.locator("#compare-photo").get_by_label("Remove Image").click()
    wait_for_text(page, "#compare-status", "Add a photo")
    page.set_input_files("#compare-photo input[type=file]", examples / "grace_hopper.jpg")
    wait_for_text(page, "#compare-status", r"models say neutral\.$")
    open_tab(page, "Photo")
    open_tab(page, "Compare")
    page.wait_for_timeout(1 * SECONDS)
    assert "neutral" in page.inner_text("#compare-status"), "what was added here stays"

    open_tab(page, "Photo")
    page.locator("#photo").get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")
    upload(page, examples / "astronaut.jpg")
    wait_for_text(page, "#status", "^1 face found.$")
    open_tab(page, "Compare")
    wait_for_text(page, "#compare-status", r"models say happy\.$")


def test_zoo_sorts_and_looks_closer(page):
    open_tab(page, "Zoo")
    rows = page.locator("#zoo-table tbody tr")
    rows.first.wait_for()
    parameters = [float(row.split()[7]) for row in rows.all_inner_texts()]
    assert [row.split()[0] for row in sorted(rows.all_inner_texts())] == sorted(MODELS)
    for order in (sorted(parameters, reverse=True), sorted(parameters)):
        page.get_by_role("button", name="parameters").click()
        assert [float(row.split()[7]) for row in rows.all_inner_texts()] == order
    page.locator("#zoo-model input").click()
    page.get_by_role("option", name=MODELS[-1]).click()
    wait_for_text(page, "#zoo-confusion", f"^{MODELS[-1]}")
    assert page.locator("#zoo-confusion td").count() == len(EXPRESSIONS) ** 2


def test_about_says_what_it_sees_and_where_the_law_forbids_it(page):
    open_tab(page, "About")
    page.get_by_text("Art. 5(1)(f)").wait_for()
    page.get_by_text("deleted after about an hour").wait_for()
    assert page.locator("#about-recall tr").count() == len(EXPRESSIONS)


def test_live_ends_by_itself(page):
    open_tab(page, "Live")
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.evaluate(
        "limit => { const wait = window.setTimeout;"
        " window.setTimeout = (f, ms, ...rest) => wait(f, ms == limit ? 5000 : ms, ...rest); }",
        TIME_LIMIT * SECONDS,
    )
    page.locator("#camera").get_by_text("Record", exact=True).click()
    page.wait_for_selector("#live-frame img")
    page.locator("#camera").get_by_text("Record", exact=True).wait_for()
    page.wait_for_timeout(3 * SECONDS)
    assert page.locator("#camera").get_by_text("Record", exact=True).is_visible(), "it does not begin again"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barrier_that_axe_finds(page, app, clip, theme):
    from axe_playwright_python.sync_playwright import Axe

    page.goto(f"{app.url}/?__theme={theme}")
    page.wait_for_selector("#photo input[type=file]", state="attached")
    for tab in TABS:
        show_something(page, tab, clip)
        page.wait_for_timeout(0.5 * SECONDS)  # colours fade in
        found = Axe().run(page).response["violations"]
        assert not found, [(tab, rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


def test_fits_on_a_phone(page, clip, tmp_path):
    page.set_viewport_size({"width": 360, "height": 740})
    for tab in TABS:
        show_something(page, tab, clip)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab
        if answer := {"Photo": "#status", "Compare": "#compare-status"}.get(tab):
            come_into_sight(page, answer, 400)
    open_tab(page, "Photo")
    page.locator("#photo").get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")
    page.evaluate("scrollTo(0, 0)")
    (tmp_path / "notes.jpg").write_text("no picture")
    upload(page, tmp_path / "notes.jpg")
    come_into_sight(page, "#status", 740)
    assert "is not an image" in page.inner_text("#status")
    open_tab(page, "Zoo")
    page.get_by_role("button", name="Model card").click()
    words = page.locator("#zoo-card td").first  # "parameters": not a letter a line
    assert words.bounding_box()["height"] < 60


def come_into_sight(page, answer: str, above: int) -> None:
    place = "document.querySelector(answer).getBoundingClientRect()"
    page.wait_for_function(
        f"([answer, above]) => -1 < {place}.top && {place}.bottom <= above", arg=[answer, above]
    )


def show_something(page, tab: str, clip) -> None:
    """Open a tab, one after the other, and fill it."""
    open_tab(page, tab)
    if tab == "Compare":  # the photo has come along
        page.wait_for_selector("#compare-cards img")
    elif tab != "Live":  # its parts are the others', too
        fill(page, tab, clip)
