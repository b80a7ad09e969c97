"""Measures `import fer_zoo` beside `import timm`, in processes of their own that take turns.

    python train/benchmark_import.py

Written to model_cards/results/benchmark-import.json.
"""

import platform
import statistics
import subprocess
import sys
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, run
from train.files import RESULTS_DIR, write_json

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("timm", "fer_zoo")
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    """How long a fresh process imports a module."""
    args = [sys.executable, "-c", CODE.format(module)]
    return float(subprocess.run(args, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--turns", type=int, default=10, help="of each module (default: %(default)s)")
    args = parser.parse_args()
    if args.turns < 1:
        raise ValueError(f"--turns must be 1 or more, not {args.turns}")
    for module in MODULES:  # from here on both are in the file system's cache
        seconds(module)
    times = {module: [] for module in MODULES}
    for _ in range(args.turns):
        for module in MODULES:
            times[module].append(seconds(module))
    medians = {module: statistics.median(each) for module, each in times.items()}
    results = {
        "hardware": f"{platform.machine()} CPU",
        "versions": {
            "python": platform.python_version(),
            "timm": timm.__version__,
            "torch": torch.__version__,
        },
        "seconds": medians,
        "ratio": medians["fer_zoo"] / medians["timm"],
    }
    write_json(RESULTS_DIR / "benchmark-import.json", results)
    print(", ".join(f"{module} {each:.2f} s" for module, each in medians.items()), end="")
    print(f": {results['ratio']:.2f} times as long")


if __name__ == "__main__":
    run(main)
