"""Takes the pictures of the Space's tabs in docs/, from the running app and the example photos.

    python train/screenshot.py

Needs Chromium, which Playwright drives; the camera and the clip show the astronaut.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.app_process import ROOT, running_app
from train.benchmark_live import film, open_browser, start_recording
from train.cli import create_parser, run

TABS = ("Photo", "Live", "Video", "Compare", "Zoo", "About")


def clip_of(camera: Path, path: Path) -> Path:
    """A camera film's frames as H.264."""
    import av

    with av.open(camera, format="mjpeg") as frames, av.open(path, "w") as out:
        stream = out.add_stream("h264", rate=15, width=640, height=480)
        for frame in frames.decode(video=0):
            frame.pts = None
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode())
    return path


def open_tab(page, name: str) -> None:
    """Click on a tab, on small screens in the menu that holds those without room."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def fill(page, tab: str, clip: Path) -> None:
    """Do on a tab what a visitor would, until there is something to see."""
    photo = ROOT / "examples" / "astronaut.jpg"
    if tab == "Photo":
        page.set_input_files("#photo input[type=file]", photo)
        page.wait_for_selector("#map img")
    elif tab == "Live":
        page.get_by_text("Click to Access Webcam").click()
        start_recording(page)
        page.get_by_label("Show the evidence").check()
        page.wait_for_selector("#live-frame img")
        page.wait_for_timeout(6000)
    elif tab == "Video":
        page.set_input_files("#clip input[type=file]", clip)
        page.wait_for_selector("#clip video")
        page.get_by_role("button", name="Read the clip").click()
        page.wait_for_selector("#annotated video")
    elif tab == "Compare":
        page.set_input_files("#compare-photo input[type=file]", ROOT / "examples" / "grace_hopper.jpg")
        page.wait_for_selector("#compare-cards img")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = create_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder (default: docs)")
    parser.add_argument("--width", type=int, default=1280, help="of the window (default: %(default)s)")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_app() as app, sync_playwright() as playwright:
        camera = film(Path(folder) / "camera.mjpeg", numbered=False)
        clip = clip_of(camera, Path(folder) / "clip.mp4")
        browser = open_browser(playwright, camera)
        for tab in TABS:
            page = browser.new_page(viewport={"width": args.width, "height": 800})
            page.goto(f"{app.url}/?__theme={args.theme}")
            page.get_by_role("tab", name=TABS[0]).wait_for()
            page.wait_for_timeout(500)  # on small screens the tabs without room move into a menu
            open_tab(page, tab)
            fill(page, tab, clip)
            page.wait_for_timeout(1500)  # for what fades in
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            # a palette would tint the photos; without subsampling text stays crisp
            picture.convert("RGB").save(
                args.out / f"{tab.lower()}.jpg", quality=88, subsampling=0, optimize=True
            )
            page.close()


if __name__ == "__main__":
    run(main)
