"""Turns a finished run into the zoo's weight file, float16, with its labels and origin in the metadata.

python train/package.py runs/fer_cbam-paper-0 --tag paper
"""

import json
import sys
from pathlib import Path

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
        ValueError: The run is not finished, or the file would be over 16 MiB.
    """
    if not (run_dir / "result.json").exists():
        raise ValueError(f"{run_dir} is not a finished run: it has no result.json")
    config = json.loads((run_dir / "config.json").read_text())
    state = load_file(run_dir / "model.safetensors")
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    metadata = {
        "format": "pt",
        "architecture": config["model"],
        "tag": tag,
        "label_names": json.dumps(EXPRESSIONS),
        "run": json.dumps({"config": config, "result": json.loads((run_dir / "result.json").read_text())}),
    }
    content = save(state, metadata)
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"{config['model']} takes {len(content) / 2**20:.1f} MiB as float16; 16 is the limit"
        )
    path = folder / f"{config['model']}.{tag}.safetensors"
    write_atomic(path, content)
    return path


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--tag", required=True, help="what the weights are called: paper, fer2013, ...")
    args = parser.parse_args()
    path = package(args.run, args.tag)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB, sha256 {sha256(path)}")


if __name__ == "__main__":
    run(main)
