"""How long the Space takes to start, and to answer `/predict` for a 12-megapixel photo.

    python train/benchmark_app.py

The app runs in its own process; the client reaches it on the loopback address, as a visitor's program would.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 120  # seconds after which the app counts as broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        wait_for(url, app)
        print(f"start-up: {time.perf_counter() - started:.1f} s")
        seconds = time_predictions(url, args.repeats)
        print(
            f"/predict, 12 megapixels: median {statistics.median(seconds):.2f} s of {len(seconds)}, "
            f"{min(seconds):.2f} to {max(seconds):.2f} s"
        )
    finally:
        app.terminate()
        app.wait()


def wait_for(url: str, app: subprocess.Popen) -> None:
    """Return as soon as the page is served."""
    import httpx

    deadline = time.perf_counter() + START_LIMIT
    while time.perf_counter() < deadline and app.poll() is None:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise SystemExit("The app did not start.")


def time_predictions(url: str, repeats: int) -> list[float]:
    """Seconds of each call, upload included."""
    from gradio_client import Client, handle_file

    client = Client(url, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for repeat in range(repeats):
            photo = large_photo(Path(folder) / f"{repeat}.jpg", shade=repeat)
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
