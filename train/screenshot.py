"""Takes the README's picture of the Space: the astronaut, her expression and its map.

    python train/screenshot.py docs/photo.png

Needs Chromium, which Playwright drives.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.app_process import ROOT, running_app


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="of the window (default: %(default)s)")
    args = parser.parse_args()
    with running_app() as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless=new", "--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": args.width, "height": 900})
        page.goto(app.url)
        page.set_input_files("#photo input[type=file]", ROOT / "examples" / "astronaut.jpg")
        page.wait_for_selector("#map img")
        page.wait_for_timeout(1000)  # for pictures that fade in
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture.quantize(256).save(args.out, optimize=True)  # a third of the size, and it looks the same


if __name__ == "__main__":
    main()
