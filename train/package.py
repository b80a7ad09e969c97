"""Turns a finished run into a weight file, float16, with its labels and origin in the metadata.

    python train/package.py runs/fer_cbam-paper-0 --tag paper

It goes into the zoo's folder, or where --folder says; `Recognizer` reads it from anywhere.
"""

import json
import sys
from pathlib import Path

import timm
from safetensors.torch import load_file, save

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from train.cli import create_parser, run
from train.files import sha256, write_atomic

MAX_BYTES = 16 << 20


def package(run_dir: Path, tag: str, folder: Path = WEIGHTS_DIR) -> Path:
    """Writes `<folder>/<arch>.<tag>.safetensors` and returns its path.

    Raises:
        ValueError: The run is not finished, or its weights have no place in the zoo: too large, of another
            architecture, of other labels or of another input size.
    """
    if not (run_dir / "result.json").exists():
        raise ValueError(f"{run_dir} is not a finished run: it has no result.json")
    config = json.loads((run_dir / "config.json").read_text())
    arch = config["model"].partition(".")[0]
    state = load_file(run_dir / "model.safetensors")
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    metadata = {
        "format": "pt",
        "architecture": arch,
        "tag": tag,
        "label_names": json.dumps(config["label_names"]),
        "input_size": str(config["input_size"] or 48),
        "run": json.dumps({"config": config, "result": json.loads((run_dir / "result.json").read_text())}),
    }
    content = save(state, metadata)
    if folder == WEIGHTS_DIR:
        _check_zoo(arch, config, len(content))
    path = folder / f"{arch}.{tag}.safetensors"
    write_atomic(path, content)
    return path


def _check_zoo(arch: str, config: dict, size: int) -> None:
    if arch not in timm.list_models("fer_*"):
        reason = f"{arch} is not one of its architectures"
    elif tuple(config["label_names"]) != EXPRESSIONS or config["input_size"] not in (None, 48):
        reason = "it takes 48x48 pixels and knows the seven expressions only"
    elif size > MAX_BYTES:
        reason = f"{size / 2**20:.1f} MiB are more than its 16"
    else:
        return
    raise ValueError(f"these weights cannot go into the zoo, {reason}: give a --folder of your own")


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--tag", required=True, help="what the weights are called: paper, fer2013, ...")
    parser.add_argument("--folder", type=Path, default=WEIGHTS_DIR, help="where the file goes")
    args = parser.parse_args()
    path = package(args.run, args.tag, args.folder)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB, sha256 {sha256(path)}")


if __name__ == "__main__":
    run(main)
