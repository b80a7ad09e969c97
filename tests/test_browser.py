"""The Space in a browser: what a visitor does and sees, with no other server within reach."""

from __future__ import annotations

import os
import re
import shutil
from urllib.parse import urlparse

import pytest
from PIL import Image

REQUIRED = bool(os.environ.get("FER_ZOO_REQUIRE_BROWSER"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
)
TOP = "#bars tr.top th"  # the most probable expression
SECONDS = 1000  # Playwright counts in milliseconds


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        message = "no Chromium is installed"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())


@pytest.fixture
def page(browser, app):
    """A freshly opened page; the test fails if the page asks any other machine for anything."""
    outside, errors = [], []

    def only_loopback(route):
        if urlparse(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60 * SECONDS)
    page.route("**/*", only_loopback)
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(app.url)
    page.wait_for_selector("#photo input[type=file]", state="attached")
    yield page
    page.close()
    assert not outside
    assert not errors


def upload(page, path) -> None:
    page.set_input_files("#photo input[type=file]", path)


def wait_for_text(page, selector: str, pattern: str) -> None:
    """Wait until the element shows what the pattern says; pages change piece by piece."""
    matches = "([s, p]) => new RegExp(p).test(document.querySelector(s)?.innerText.trim())"
    page.wait_for_function(matches, arg=[selector, pattern])


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


def test_faces_are_chosen_by_number_and_by_click(page, examples, tmp_path):
    with Image.open(examples / "astronaut.jpg") as left, Image.open(examples / "grace_hopper.jpg") as right:
        photo = Image.new("RGB", (1024, 600), "white")
        photo.paste(left, (0, 0))
        photo.paste(right, (512, 0))
    photo.save(tmp_path / "two.png")
    upload(page, tmp_path / "two.png")
    page.wait_for_selector("#map img")
    wait_for_text(page, "#status", "^2 faces found.")
    hopper, collins = (page.locator("#face label").nth(n) for n in (0, 1))  # the larger face comes first
    wait_for_text(page, "#bars", "^Expression")
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
    assert hopper.locator("input").is_checked()

    page.get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")
    assert not page.locator("#face").is_visible() and not page.locator("#shown").is_visible()


def test_example_photo(page):
    page.get_by_role("button").filter(has=page.locator("img[src*=astronaut]")).click()
    wait_for_text(page, TOP, "^happy$")


def test_webcam_snapshot(page):
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#photo video')?.videoWidth")  # the picture moves
    page.get_by_label("capture photo").click()
    # Whatever the fake camera shows was looked at.
    wait_for_text(page, "#status", "face(s?) found")


def test_bad_file_and_missing_face_give_a_sentence(page, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    upload(page, tmp_path / "notes.jpg")
    wait_for_text(page, "#status", r"^'notes\.jpg' is not an image.*\.$")
    page.get_by_label("Remove Image").click()
    wait_for_text(page, "#status", "Add a photo")

    Image.new("RGB", (300, 300), "gray").save(tmp_path / "gray.png")
    upload(page, tmp_path / "gray.png")
    wait_for_text(page, "#status", "No face found")
    assert not page.locator("#bars").is_visible()
    page.get_by_label("This picture is already a face").check()
    wait_for_text(page, "#status", "^1 face found.$")
    page.wait_for_selector("#map img")


def test_too_large_file_gives_a_sentence(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(27_000_000))
    upload(page, tmp_path / "large.png")
    page.get_by_text(re.compile("exceed the maximum allowed size")).wait_for()


def test_law_and_privacy_stand_in_the_page(page):
    page.get_by_text("About: what it sees").click()
    page.get_by_text("Art. 5(1)(f)").wait_for()
    page.get_by_text("deleted after about an hour").wait_for()


def test_fits_on_a_phone(page, examples):
    page.set_viewport_size({"width": 360, "height": 740})
    upload(page, examples / "astronaut.jpg")
    page.wait_for_selector("#map img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
