"""What several test files share: no network, the example photos, and the running Space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

# Before a library is imported that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["ACCELERATE_USE_CPU"] = "true"

import pytest
from browsing import SECONDS
from drawn_fer2013 import draw, write_parquet
from launch import reset_accelerate

from fer_zoo import Recognizer
from train.app_process import ROOT, AppProcess, running_app

REQUIRED = bool(os.environ.get("FER_ZOO_REQUIRE_BROWSER"))


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """A training in this process leaves its precision to no other."""
    yield
    reset_accelerate()


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of example photos."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A folder of drawn data that a network can learn, in FER2013's form."""
    return write_parquet(tmp_path_factory.mktemp("fer2013"), draw(per_class=40, waves=True))


@pytest.fixture(scope="session")
def few(tmp_path_factory) -> Path:
    """As `source`, but only as much as makes a training run."""
    return write_parquet(tmp_path_factory.mktemp("few"), draw(per_class=6, waves=True))


@pytest.fixture(scope="session")
def whole() -> Recognizer:
    """Takes each frame as a face, which is quick."""
    return Recognizer("fer_cnn", faces="whole")


@pytest.fixture(scope="session")
def app() -> Iterator[AppProcess]:
    """One running Space for all tests that only look at it."""
    with running_app() as app:
        yield app


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    from train.benchmark_live import film, find_browser, open_browser

    with sync_playwright() as playwright:
        if not find_browser(playwright).exists():
            message = "no Chromium is installed"
            pytest.fail(message) if REQUIRED else pytest.skip(message)
        camera = film(tmp_path_factory.mktemp("camera") / "astronaut.mjpeg", frames=30)
        yield open_browser(playwright, camera)


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


@pytest.fixture(scope="session")
def long(tmp_path_factory) -> Path:
    """A clip that takes minutes to read, as long as the Space takes them."""
    from drawn_clips import moving, write_clip

    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", moving(3500), rate=60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of one face, 20 frames long."""
    from train.benchmark_live import film
    from train.screenshot import clip_of

    folder = tmp_path_factory.mktemp("clip")
    return clip_of(film(folder / "film.mjpeg", frames=20), folder / "clip.mp4")
