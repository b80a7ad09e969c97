"""Turns a finished run into a weight file, float16, with its labels and origin in the metadata.

    python train/package.py runs/fer_cbam-strong-0 --tag fer2013 --data SOURCE

With --data its probabilities are calibrated: a temperature is fitted on clean validation (Guo et al. 2017,
arXiv:1706.04599), and the classifier is divided by it, so that whoever loads the weights, by timm, from the
Hub or as ONNX, has calibrated logits. The file goes into the zoo's folder, or where --folder says;
`Recognizer` reads it from anywhere.
"""

import json
import math
import re
import sys
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save
from scipy.optimize import minimize_scalar
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from train.cli import create_parser, load_data, run
from train.dataset import Fer2013
from train.ferplus import clean_validation
from train.files import sha256, with_metadata, write_atomic
from train.networks import network_of
from train.predict import predict
from train.run_dir import finished, read_weights

MAX_BYTES = 16 << 20


def package(run_dir: Path, tag: str, folder: Path = WEIGHTS_DIR, data: Fer2013 | None = None) -> Path:
    """Writes `<folder>/<arch>.<tag>.safetensors` and returns its path.

    Args:
        run_dir: Of a finished run.
        tag: What the weights are called.
        folder: Where the file goes.
        data: What the temperature is fitted on; None leaves the logits as they are.

    Raises:
        RunError: The run is not finished.
        ValueError: There are data, and the run knows other labels; or its weights have no place in the zoo:
            too large, of another architecture, of other labels or of another input size; or its classifier
            is no single layer.
    """
    config, result = finished(run_dir)
    # with its tag, where it has one: of other weights timm may know another mean and standard deviation
    name = config["model"]
    arch = name.partition(".")[0]
    size = config["input_size"] or 48
    temperature = 1.0
    if data:
        if tuple(config["label_names"]) != EXPRESSIONS:
            raise ValueError(f"{run_dir} did not learn FER2013's expressions: leave --data out")
        model = network_of(run_dir)
        if not isinstance(model.get_classifier(), nn.Linear | nn.Conv2d):
            raise ValueError(f"{name} has no single layer for a classifier to calibrate: leave --data out")
        clean = clean_validation(data, config.get("labels", "fer2013"))
        images = torch.from_numpy(clean.images).unsqueeze(1)
        temperature = fit_temperature(predict(model, images), torch.from_numpy(clean.labels))
        with torch.no_grad():
            for parameter in model.get_classifier().parameters():
                parameter /= temperature
        state = model.state_dict()
    else:
        state = read_weights(run_dir)
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    metadata = {
        "format": "pt",
        "architecture": name,
        "tag": tag,
        "label_names": json.dumps(config["label_names"]),
        "input_size": str(size),
        "temperature": str(temperature),
        "run": json.dumps({"config": config, "result": result}),
    }
    content = with_metadata(save(state, metadata))
    if folder.resolve() == WEIGHTS_DIR:
        _check_zoo(arch, tag, config, len(content))
    path = folder / f"{arch}.{tag}.safetensors"
    write_atomic(path, content)
    return path


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The number by which logits must be divided for the least cross-entropy.

    Args:
        logits: float32 (N, classes).
        labels: int64 (N,).
    """

    def nll(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), labels).item()

    return math.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded").x)


def _check_zoo(arch: str, tag: str, config: dict, size: int) -> None:
    if arch not in timm.list_models("fer_*"):
        reason = f"{arch} is not one of its architectures"
    elif f"{arch}.{tag}" not in timm.list_pretrained(f"{arch}.*"):
        reason = f"the default_cfgs of {arch} lack a line for {arch}.{tag}"
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
    parser.add_argument("--data", help="FER2013, to calibrate the probabilities on its clean validation")
    parser.add_argument("--folder", type=Path, default=WEIGHTS_DIR, help="where the file goes")
    args = parser.parse_args()
    if not re.fullmatch(r"[\w-]+", args.tag):
        raise ValueError(f"--tag must be one word of letters, digits, - and _, not {args.tag!r}")
    # what goes into the zoo is calibrated on the real data
    data = load_data(args, strict=args.folder.resolve() == WEIGHTS_DIR) if args.data else None
    path = package(args.run, args.tag, args.folder, data)
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB, sha256 {sha256(path)}")


if __name__ == "__main__":
    run(main)
