"""Times the Space: its start, and `/predict` for a 12-megapixel photo with one face.

    python train/benchmark_app.py

The client reaches the app on the loopback address, as a visitor's program would; the upload counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.app_process import ROOT, running_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="calls of /predict (default: %(default)s)")
    args = parser.parse_args()
    with running_app() as app:
        print(f"start-up: {app.seconds:.1f} s")
        seconds = time_predictions(app.url, args.repeats)
    low, median, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"/predict, 12 megapixels: median {median:.2f} s of {len(seconds)} ({low:.2f} to {high:.2f} s)")


def time_predictions(url: str, repeats: int) -> list[float]:
    """Seconds of each call."""
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        photos = [large_photo(Path(folder) / f"{shade}.jpg", shade) for shade in range(repeats)]
        for photo in photos:
            started = time.perf_counter()
            faces = client.predict(handle_file(photo), api_name="/predict")
            seconds.append(time.perf_counter() - started)
            assert len(faces) == 1, f"{len(faces)} faces found instead of 1"
    return seconds


def large_photo(path: Path, shade: int) -> Path:
    """A 4000x3000 JPEG with one face and a camera's noise; another `shade` is another file to every cache."""
    photo = Image.new("RGB", (4000, 3000), (shade, 128, 128))
    with Image.open(ROOT / "examples" / "astronaut.jpg") as face:
        photo.paste(face.resize((3000, 3000), Image.Resampling.BICUBIC), (500, 0))
    noise = Image.effect_noise(photo.size, 80).convert("RGB")
    Image.blend(photo, noise, 0.1).save(path, quality=92)
    assert 4e6 < path.stat().st_size < 5e6
    return path


if __name__ == "__main__":
    main()
