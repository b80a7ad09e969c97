"""Scores packaged weights on one split and writes the figures into their results file.

    python train/evaluate.py --model fer_cbam.paper --data SOURCE --split validation

Each split is scored twice: whole, and clean of the images that stand in train too. Test is a release gate:
every read is logged, and a second weight file under the same name is refused without a written reason.
train/verify.py repeats those of the zoo.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from fer_zoo.metrics import scores
from fer_zoo.models import WEIGHTS_DIR
from train import ferplus
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Fer2013
from train.files import RESULTS_DIR, sha256, write_json
from train.networks import size_of
from train.predict import predict

TEST_READS = "test_reads.jsonl"


class EvaluationError(ValueError):
    """A model or a read that is refused; the message is one sentence for the user."""


def packaged(folder: Path) -> list[Path]:
    """The weight files in a folder, by name.

    Raises:
        EvaluationError: There are none.
    """
    if not (paths := sorted(folder.glob("*.safetensors"))):
        raise EvaluationError(f"{folder} has no weight files: give the folder of some .safetensors")
    return paths


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what scripts take that measure all files of a folder; `out_of` and `packaged` read it."""
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS_DIR, help="folder of files (default: the zoo's)"
    )
    parser.add_argument(
        "--out", type=Path, help="the JSON file (default: the zoo's, else beside the weights)"
    )


def out_of(args: argparse.Namespace, file: Path) -> Path:
    """Where the figures go, in a folder that is made if absent.

    Where --out does not say, into `file`, the zoo's own, for its weights only; else beside the weights.
    """
    out = args.out or (file if args.weights.resolve() == WEIGHTS_DIR else args.weights / file.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def weight_file(name: str) -> Path:
    """The packaged file of `name`, "arch.tag", or the file that `name` is the path of.

    Raises:
        EvaluationError: There is no such file; the message lists what is packaged.
    """
    if name.endswith(".safetensors") and Path(name).is_file():
        return Path(name)
    known = {path.stem: path for path in packaged(WEIGHTS_DIR)}
    if name not in known:
        raise EvaluationError(f"no packaged weights {name!r}: there are {', '.join(known)}")
    return known[name]


def evaluate(path: Path, data: Fer2013, split: str) -> dict[str, dict]:
    """Scores of a weight file on a split, whole and clean: `{split: ..., split_clean: ...}`.

    They are what `fer_zoo.metrics.scores` gives for a single forward in fp32, and beside them
    `flip_accuracy`, in percent, of the probabilities averaged over image and mirror image, and
    `uncalibrated`, the calibration figures of the logits before the temperature. Of weights that learnt FER+
    there are two more, `..._ferplus`, against the majority of its votes, ties left out.

    Raises:
        DataError: The weights learnt FER+, and this source has no votes.
        EvaluationError: It is no file of `train/package.py`, of the seven expressions.
    """
    parts = ferplus.parts(data, split, learnt(path))  # before the time that predicting takes
    images = torch.from_numpy(data[split].images).unsqueeze(1)
    model = load_model(path).eval()
    logits, mirrored = predict(model, images), predict(model, images.flip(3))
    joint = (logits.softmax(1) + mirrored.softmax(1)).argmax(1)
    temperature = float(_metadata(path).get("temperature", 1))

    def figures(rows: torch.Tensor, labels: torch.Tensor) -> dict:
        before = scores(logits[rows] * temperature, labels[rows])
        return scores(logits[rows], labels[rows]) | {
            "flip_accuracy": 100 * (joint == labels)[rows].float().mean().item(),
            "uncalibrated": {figure: before[figure] for figure in ("ece", "nll", "brier", "reliability")},
        }

    return {key: figures(*map(torch.from_numpy, part)) for key, part in parts.items()}


def learnt(path: Path) -> str:
    """Whose labels the weights of a file learnt: "fer2013" or "ferplus"."""
    return labels_of(json.loads(_metadata(path)["run"]))


def labels_of(run: dict) -> str:
    """Whose labels a run learnt, by what its files say of it: "fer2013" or "ferplus"."""
    return run["config"].get("labels", "fer2013")


def judged(results: dict, split: str) -> dict:
    """A split's figures in a results file, against the labels that the weights learnt."""
    return results["splits"][ferplus.judging(split, labels_of(results["run"]))]


def log_test_read(name: str, digest: str, accuracy: float, reason: str | None, folder: Path) -> None:
    """Appends a line to the log of test reads."""
    line = {
        "model": name,
        "sha256": digest,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "test_accuracy": accuracy,
        "reason": reason,
    }
    with (folder / TEST_READS).open("a") as log:
        log.write(json.dumps(line) + "\n")


def check_test_read(name: str, digest: str, reason: str | None, folder: Path) -> None:
    """Refuses to read test for a second file of one name without a reason.

    Raises:
        EvaluationError: Test was read for another file of this name and `reason` is empty.
    """
    log = folder / TEST_READS
    reads = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    other = {read["sha256"] for read in reads if read["model"] == name} - {digest}
    if other and not reason:
        raise EvaluationError(
            f"test was read for {len(other)} other file(s) called {name}: give a --reason, which is logged"
        )


def need_test_read(weights: Path) -> None:
    """Refuses a weight file for which test was never read.

    Raises:
        EvaluationError: Neither the zoo's log has it, nor one beside it.
    """
    logs = [folder / TEST_READS for folder in (RESULTS_DIR, weights.parent)]
    lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    if sha256(weights) not in {json.loads(line)["sha256"] for line in lines}:
        ours = weights.resolve().parent == WEIGHTS_DIR
        raise EvaluationError(
            f"test was never read for {weights.name}: python train/evaluate.py --model "
            f"{weights.stem if ours else weights} --split test does, and logs it"
        )


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--model", required=True, help="packaged weights, arch.tag, or a .safetensors file")
    add_data_arguments(parser)
    parser.add_argument("--split", choices=("validation", "test"), required=True)
    parser.add_argument("--reason", help="why test is read again for a new file of the same name")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of the results file (default: the zoo's, else beside the weights)",
    )
    args = parser.parse_args()

    path = weight_file(args.model)
    name, digest = path.stem, sha256(path)
    if args.results is None:
        args.results = RESULTS_DIR if path.resolve().parent == WEIGHTS_DIR else path.parent
    if args.split == "test":
        check_test_read(name, digest, args.reason, args.results)
    # what is published is of the real data
    data = load_data(args, strict=args.results.resolve() == RESULTS_DIR)
    args.results.mkdir(parents=True, exist_ok=True)
    file = args.results / f"{name}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    if results.get("sha256") != digest:
        results = {"model": name, "sha256": digest}
    of = {"fingerprint": data.fingerprint, "lossy": data.lossy}
    if results.get("data", of) != of:
        raise EvaluationError(f"{file} has figures of other data: give --results another folder")
    about, splits = origin(path), evaluate(path, data, args.split)
    if args.split == "test":
        log_test_read(name, digest, splits["test"]["accuracy"], args.reason, args.results)

    results |= about | {"data": of, "splits": results.get("splits", {}) | splits}
    write_json(file, results)
    for key, figures in splits.items():
        print(
            f"{name} on {key:>24} (n = {figures['n']:,}): accuracy {figures['accuracy']:.2f} "
            f"± {figures['accuracy_ci95']:.2f} %, macro-F1 {figures['macro_f1']:.2f} %"
        )


def origin(path: Path) -> dict:
    """What stands beside a file's figures: size, parameters, cost, its run, and logits that tests compare."""
    metadata = _metadata(path)
    model = load_model(path).eval()
    faces = golden_input(model.pretrained_cfg["input_size"][1:])
    with torch.no_grad():
        logits = model(faces)
    return {
        "bytes": path.stat().st_size,
        **size_of(model, faces),
        "temperature": float(metadata.get("temperature", 1)),
        "golden_logits": logits.tolist(),
        "run": json.loads(metadata["run"]),
    }


def _metadata(path: Path) -> dict[str, str]:
    """Of a file of `train/package.py`, of the seven expressions.

    Raises:
        EvaluationError: It is another file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error
    if missing := {"run", "label_names"} - metadata.keys():
        raise EvaluationError(f"{path} lacks {min(missing)}: give a file that train/package.py made of a run")
    if (labels := tuple(json.loads(metadata["label_names"]))) != EXPRESSIONS:
        raise EvaluationError(f"{path} knows {', '.join(labels)}, not FER2013's {', '.join(EXPRESSIONS)}")
    return metadata


def golden_input(size: tuple[int, int] = (48, 48)) -> torch.Tensor:
    """Two wave patterns, float32 (2, 1, *size), -1 to 1: the same on every machine, and no one's face."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    return torch.stack([(9 * x).sin() * (7 * y).cos(), (13 * x * y).sin()]).unsqueeze(1)


if __name__ == "__main__":
    run(main)
