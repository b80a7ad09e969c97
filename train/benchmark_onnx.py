"""Measures PyTorch, ONNX and ONNX in int8 in one run: speed, how far the logits differ, what int8 loses.

    python train/benchmark_onnx.py --data SOURCE

All packaged weights, on clean validation; int8 is calibrated on training faces. Written to
model_cards/results/benchmark-onnx.json.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.onnx_model import OnnxModel, export_onnx, quantize_onnx
from fer_zoo.preprocess import to_input
from fer_zoo.recognizer import load_model
from train.cli import add_data_arguments, create_parser, load_data, run
from train.evaluate import RESULTS_DIR
from train.files import write_atomic

BATCHES = (1, 64)
CALIBRATION = 512  # training faces
PARITY = 1000  # faces of clean validation
SECONDS = 4.0  # of every measurement


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
        speed = _speeds(kinds, x)
    return {
        "milliseconds": speed,
        "faces_per_second": {
            kind: {n: 1000 * int(n) / ms for n, ms in row.items()} for kind, row in speed.items()
        },
        "largest_difference": (logits["torch"] - logits["onnx"])[:PARITY].abs().max().item(),
        "accuracy": {
            kind: 100 * (each.argmax(1).numpy() == labels).mean().item() for kind, each in logits.items()
        },
        "megabytes": megabytes,
    }


def _speeds(kinds: dict[str, Callable], x: torch.Tensor) -> dict[str, dict[str, float]]:
    """Median milliseconds of a batch; the kinds take turns, so that none has the machine in a better hour."""
    times = {kind: {str(n): [] for n in BATCHES} for kind in kinds}
    for n in BATCHES:
        batch = x[:n].contiguous()
        ends = time.perf_counter() + SECONDS * len(kinds)
        while time.perf_counter() < ends:
            for kind, net in kinds.items():
                started = time.perf_counter()
                net(batch)
                times[kind][str(n)].append(1000 * (time.perf_counter() - started))
    return {kind: {n: statistics.median(each) for n, each in row.items()} for kind, row in times.items()}


def table(models: dict[str, dict]) -> str:
    """The measurements for a terminal."""
    lines = [
        f"{'weights':<24}{'kind':<11}{'1 face, ms':>11}{'64, faces/s':>13}{'accuracy %':>12}"
        f"{'difference':>12}"
    ]
    for name, row in models.items():
        for kind, ms in row["milliseconds"].items():
            difference = f"{row['largest_difference']:.1e}" if kind == "onnx" else ""
            lines.append(
                f"{name:<24}{kind:<11}{ms['1']:>11.2f}{row['faces_per_second'][kind]['64']:>13,.0f}"
                f"{row['accuracy'][kind]:>12.2f}{difference:>12}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    args = parser.parse_args()
    data = load_data(args)
    clean = data["validation"][data.clean("validation")]
    spread = np.linspace(0, len(data["train"]) - 1, CALIBRATION).astype(int)
    models = {}
    for path in tqdm(sorted(WEIGHTS_DIR.glob("*.safetensors")), disable=None):
        models[path.stem] = measure(path, data["train"].images[spread], clean.images, clean.labels)
    results = {"split": "validation_clean", "threads": torch.get_num_threads(), "models": models}
    write_atomic(RESULTS_DIR / "benchmark-onnx.json", json.dumps(results, indent=2) + "\n")
    print(table(models))


if __name__ == "__main__":
    run(main)
