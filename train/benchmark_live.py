"""Measures the Live tab: a camera film of a real face, real Chromium, the app, all on one machine.

    python train/benchmark_live.py --seconds 60

The film's frames carry their number in black and white blocks at both edges, so the page can tell how old the
picture is that it shows: latency runs from the camera's frame to the answer on the screen. Memory is the
app's; it is sampled over the whole time, over as many recordings as that takes.
"""

import itertools
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from space.readers import MODELS
from train.app_process import ROOT, running_app
from train.cli import create_parser, run
from train.files import RESULTS_DIR, write_json

FPS = 30  # at which Chromium plays the film
FRAMES = 256
SIZE = (640, 480)
BLOCK = 32  # pixels; eight of them one above the other are a frame's number

# Called whenever a new answer is shown: when, which frame it shows, and which the camera shows now.
WATCH = """
() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const number = (picture) => {
    context.drawImage(picture, 0, 0, 640, 480);
    const column = context.getImageData(16, 0, 1, 480).data;
    let code = 0;
    for (let bit = 0; bit < 8; bit++) code |= (column[4 * (bit * 32 + 16)] > 127) << bit;
    return code;
  };
  window.seen = [];
  document.addEventListener("load", ({ target }) => {
    if (target.closest("#live-frame"))
      seen.push([performance.now(), number(target), number(document.querySelector("#camera video"))]);
  }, true);
}
"""


def film(path: Path, frames: int = FRAMES, numbered: bool = True) -> Path:
    """The astronaut's face, which moves a little, as motion JPEG; its frames carry their number or not."""
    with Image.open(ROOT / "examples" / "astronaut.jpg") as photo:
        photo = photo.crop((60, 0, 444, 288)).resize((800, 600), Image.Resampling.BICUBIC)
    with path.open("wb") as file:
        for number in range(frames):
            shift = abs(number % 128 - 64)
            frame = photo.crop((shift, 20, shift + SIZE[0], 20 + SIZE[1]))
            draw = ImageDraw.Draw(frame)
            for bit in range(8 if numbered else 0):
                for left in (0, SIZE[0] - BLOCK):
                    color = "white" if number >> bit & 1 else "black"
                    draw.rectangle((left, bit * BLOCK, left + BLOCK, (bit + 1) * BLOCK), fill=color)
            frame.save(file, "JPEG", quality=90)
    return path


def find_browser(playwright) -> Path:
    """Where the machine's Chromium is, else where Playwright would have put its own."""
    installed = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    return Path(next(installed, playwright.chromium.executable_path))


def open_browser(playwright, camera: Path):
    """Chromium with a film for a camera; it asks nobody for updates.

    Raises:
        ValueError: There is none.
    """
    if not (browser := find_browser(playwright)).exists():
        raise ValueError("there is no Chromium here: install it, or run playwright install chromium")
    return playwright.chromium.launch(
        executable_path=browser,
        args=[
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}",
        ],
    )  # fmt: skip


def start_recording(page) -> None:
    """Click the button, which is there again after a recording's time is up."""
    page.get_by_text("Record", exact=True).click()


def measure(seconds: float) -> dict:
    """Frames per second, latencies and memory of one visitor."""
    import psutil
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, running_app() as app, sync_playwright() as playwright:
        camera = film(Path(folder) / "camera.mjpeg")
        browser = open_browser(playwright, camera)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(app.url)
        page.get_by_role("tab", name="Live").click()
        page.get_by_text("Click to Access Webcam").click()
        start_recording(page)
        page.wait_for_selector("#live-frame img")
        page.wait_for_timeout(3000)
        page.evaluate(WATCH)
        memory, process = [], psutil.Process(app.process.pid)
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            memory.append(round(process.memory_info().rss / 2**20))
            page.wait_for_timeout(min(10, max(0.1, ended - time.monotonic())) * 1000)
            if page.get_by_text("Record", exact=True).is_visible():
                start_recording(page)
        seen = page.evaluate("seen")
        words = page.inner_text("#live-faces")
        browser.close()
    gaps = [(b[0] - a[0]) / 1000 for a, b in itertools.pairwise(seen)]
    running = [gap for gap in gaps if gap < 2]  # between two recordings nothing is answered
    if not running or not re.search(r"Face \d+: \w+", words):  # a new number after every recording
        raise ValueError(f"there were {len(seen)} answers, the last {words!r}: give more --seconds")
    latency = [(camera - shown) % FRAMES / FPS for _, shown, camera in seen]
    return {
        "seconds": seconds,
        "answers": len(seen),
        "frames_per_second": round(len(running) / sum(running), 2),
        "latency_ms_median": round(1000 * statistics.median(latency)),
        "latency_ms_p95": round(1000 * float(np.percentile(latency, 95))),
        "memory_mib": memory,
    }


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "live.json")
    args = parser.parse_args()
    results = {
        "command": f"python train/benchmark_live.py --seconds {args.seconds:g}",
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores, browser and app together",
        "model": MODELS[0],
        "camera": f"{SIZE[0]}x{SIZE[1]} at {FPS} frames/s, one face",
    } | measure(args.seconds)
    write_json(args.out, results)
    print(json.dumps(results))


if __name__ == "__main__":
    run(main)
