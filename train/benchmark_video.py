"""Times `fer-zoo video`: frames a second of a 720p clip with one face, decoded, read, annotated and encoded.

    python train/benchmark_video.py

The clip is drawn first: an example photo that sways over a textured background, 30 frames a second, with
sound. The start of Python and the loading of the model are not counted.
"""

from __future__ import annotations

import math
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import torch
from PIL import Image, ImageChops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo import Recognizer
from fer_zoo.loading import default_model
from fer_zoo.video import Timeline, analyze_video
from train.app_process import ROOT
from train.cli import create_parser, run
from train.files import RESULTS_DIR, write_json

SIZE, RATE = (1280, 720), 30


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--model", help="default: the best installed")
    parser.add_argument("--faces", default="mtcnn", help="face detector (%(default)s)")
    parser.add_argument("--seconds", type=int, default=8, help="length of the clip (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "benchmark-video.json")
    args = parser.parse_args()
    if min(args.seconds, args.rounds) < 1:
        raise ValueError("--seconds and --rounds must be at least 1")
    torch.set_num_threads(1)  # as `fer-zoo video` does
    recognizer = Recognizer(args.model, faces=args.faces)
    with tempfile.TemporaryDirectory() as folder:
        clip = draw_clip(Path(folder) / "clip.mp4", args.seconds)
        analyze_video(clip, recognizer, out=Path(folder) / "out.mp4")  # warm-up
        rounds = [measure(clip, recognizer) for _ in range(args.rounds)]
    speeds = [timeline.frames / seconds for timeline, seconds in rounds]
    timeline = rounds[0][0]
    shown = len({point.frame for point in timeline.points}) / timeline.frames
    if not (timeline.stride == timeline.faces == 1 and shown > 0.95):
        raise ValueError("not each frame was read, or its face was lost: give fewer --seconds")
    result = {
        "command": " ".join(["python", "train/benchmark_video.py", *sys.argv[1:]]),
        "model": args.model or default_model(),
        "faces": args.faces,
        "clip": {"size": SIZE, "rate": RATE, "frames": timeline.frames},
        "frames_with_the_face": shown,
        "frames_per_second": statistics.median(speeds),
        "rounds": speeds,
        "hardware": f"{psutil.cpu_count()} x {platform.machine()} CPU",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "av": av.__version__,
            "opencv": cv2.__version__,
        },
    }
    write_json(args.out, result)
    print(f"{result['frames_per_second']:.1f} frames/s ({min(speeds):.1f} to {max(speeds):.1f})")


def measure(clip: Path, recognizer: Recognizer) -> tuple[Timeline, float]:
    """The timeline, and how many seconds it took with both files written."""
    started = time.perf_counter()
    timeline = analyze_video(clip, recognizer, out=clip.with_name("out.mp4"), csv=clip.with_name("out.csv"))
    return timeline, time.perf_counter() - started


def draw_clip(path: Path, seconds: int) -> Path:
    """A 720p clip (H.264, AAC) in which one face sways to the left and the right."""
    width, height = SIZE
    with Image.open(ROOT / "examples" / "astronaut.jpg") as photo:
        photo = photo.resize((height, height))
    background = Image.effect_noise((width // 40, height // 40), 40).resize(SIZE).convert("RGB")
    with av.open(str(path), "w") as file:
        video = file.add_stream("h264", rate=RATE)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = file.add_stream("aac", rate=48_000, layout="mono")
        for i in range(seconds * RATE):
            image = background.copy()
            image.paste(photo, (round((width - height) * (0.5 + 0.5 * math.sin(i / 20))), 0))
            image = ImageChops.offset(image, 0, round(6 * math.sin(i / 7)))  # a hand that holds the camera
            file.mux(video.encode(av.VideoFrame.from_image(image)))
        file.mux(video.encode(None))
        for start in range(0, seconds * 48_000, 1024):
            tone = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 20)[None] / 4
            block = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            block.sample_rate, block.pts = 48_000, start
            file.mux(sound.encode(block))
        file.mux(sound.encode(None))
    return path


if __name__ == "__main__":
    run(main)
