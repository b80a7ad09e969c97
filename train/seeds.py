"""Scores one model's runs of several seeds: each of them, their mean and deviation, and their ensemble.

    python train/seeds.py runs/fer_net-flagship-[0-4] --tag fer2013 --data SOURCE
    python train/seeds.py runs/fer_net-flagship-[0-4] --tag fer2013 --data SOURCE --teach teacher.parquet

The ensemble is the mean of the runs' probabilities. Test is read once for each run and once for the ensemble,
and logged, as `train/evaluate.py` does. With --teach nothing but train is read: the ensemble's probabilities
of the training images are written, as a teacher for `train/fit.py`.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.metrics import scores
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Fer2013
from train.engine import predict
from train.evaluate import RESULTS_DIR, check_test_read, log_test_read
from train.files import sha256, write_atomic
from train.networks import create_network
from train.teacher import write_probabilities

FIGURES = ("accuracy", "macro_f1", "nll", "brier", "ece", "flip_accuracy")
WEIGHTS = "model.safetensors"


class SeedsError(ValueError):
    """Runs that do not belong together; the message is one sentence for the user."""


def same_runs(runs: list[Path]) -> list[dict]:
    """The configs of finished runs that differ in nothing but the seed.

    Raises:
        SeedsError: A run is not finished, or two differ in model, data or recipe, or not in the seed.
    """
    configs = []
    for folder in runs:
        if not (folder / "result.json").exists():
            raise SeedsError(f"{folder} is not a finished run: it has no result.json")
        configs.append(json.loads((folder / "config.json").read_text()))
    alike = [
        {key: config.get(key) for key in ("model", "data", "labels", "teacher")}
        | {"recipe": config["recipe"] | {"seed": None}}
        for config in configs
    ]
    for folder, other in zip(runs, alike, strict=True):
        if other != alike[0]:
            raise SeedsError(f"{folder} differs from {runs[0]} in more than the seed")
    seeds = [config["recipe"]["seed"] for config in configs]
    if len(runs) < 2 or len(set(seeds)) < len(seeds):
        raise SeedsError(f"give at least two runs, each of another seed; these have {seeds}")
    return configs


def probabilities(run: Path, config: dict, images: torch.Tensor) -> torch.Tensor:
    """A run's probabilities, float32 (2, N, 7), of images as they are and mirrored.

    Args:
        run: Its directory.
        config: Its config.
        images: uint8 (N, 1, 48, 48).
    """
    model = create_network(config["model"], input_size=config["input_size"])
    # as they are packaged: rounded to float16
    model.load_state_dict({k: v.half().to(v.dtype) for k, v in load_file(run / WEIGHTS).items()})
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, images = model.to(device), images.to(device)
    return torch.stack([predict(model, x).softmax(1).cpu() for x in (images, images.flip(3))])


def score(runs: list[Path], configs: list[dict], data: Fer2013, split: str) -> dict[str, dict]:
    """Figures of each run and of their ensemble, on a split whole and clean.

    Returns:
        By split, whole and clean: `seeds` (a dict a run, of the figures of `fer_zoo.metrics.scores` and
        `flip_accuracy`), `mean` and `sd` of their figures, and `ensemble` (the same figures).
    """
    images, labels = (torch.from_numpy(part) for part in (data[split].images, data[split].labels))
    probs = torch.stack(
        [probabilities(each, config, images.unsqueeze(1)) for each, config in zip(runs, configs, strict=True)]
    )
    found = {}
    for key, rows in data.parts(split).items():
        rows = torch.from_numpy(rows)
        *seeds, ensemble = (_figures(each[:, rows], labels[rows]) for each in (*probs, probs.mean(0)))
        columns = {figure: [seed[figure] for seed in seeds] for figure in FIGURES}
        found[key] = {
            "seeds": seeds,
            "mean": {figure: float(np.mean(values)) for figure, values in columns.items()},
            "sd": {figure: float(np.std(values, ddof=1)) for figure, values in columns.items()},
            "ensemble": ensemble,
        }
    return found


def _figures(probs: torch.Tensor, labels: torch.Tensor) -> dict:
    plain, mirrored = probs
    flipped = (plain + mirrored).argmax(1) == labels
    figures = scores(plain.clamp_min(1e-12).log(), labels)
    return figures | {"flip_accuracy": 100 * flipped.float().mean().item()}


def teach(runs: list[Path], configs: list[dict], data: Fer2013, file: Path) -> None:
    """Writes the ensemble's probabilities of the training images, mirror images averaged in."""
    train = data["train"]
    images = torch.from_numpy(train.images).unsqueeze(1)
    total = sum(probabilities(each, config, images) for each, config in zip(runs, configs, strict=True))
    write_probabilities(file, np.arange(len(train)), train, (total.mean(0) / len(runs)).numpy())


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--tag", required=True, help="what the weights are called: fer2013, ...")
    add_data_arguments(parser)
    parser.add_argument("--teach", type=Path, metavar="FILE", help="write a teacher's parquet, nothing else")
    parser.add_argument("--reason", help="why test is read again for new runs of the same name")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="folder of the results files")
    args = parser.parse_args()
    configs = same_runs(args.runs)
    data = load_data(args, strict=False)
    if args.teach:
        teach(args.runs, configs, data, args.teach)
        print(f"written: {args.teach}")
        return
    arch = configs[0]["model"].partition(".")[0]
    seeds = [config["recipe"]["seed"] for config in configs]
    digests = [sha256(each / WEIGHTS) for each in args.runs]
    names = [f"{arch}.{args.tag}, seed {seed}" for seed in seeds] + [f"{arch}.{args.tag}, ensemble"]
    digests.append(hashlib.sha256("".join(sorted(digests)).encode()).hexdigest())
    for name, digest in zip(names, digests, strict=True):
        check_test_read(name, digest, args.reason, args.results)
    splits = score(args.runs, configs, data, "validation") | score(args.runs, configs, data, "test")
    test = splits["test"]
    for name, digest, figures in zip(names, digests, [*test["seeds"], test["ensemble"]], strict=True):
        log_test_read(name, digest, figures["accuracy"], args.reason, args.results)
    chosen = [figures["accuracy"] for figures in splits["validation_clean"]["seeds"]]
    results = {
        "model": f"{arch}.{args.tag}",
        "seeds": seeds,
        "sha256": dict(zip(map(str, seeds), digests, strict=False)),
        "best_on_clean_validation": seeds[int(np.argmax(chosen))],
        "splits": splits,
    }
    file = args.results / f"seeds-{arch}.{args.tag}.json"
    write_atomic(file, json.dumps(results, indent=2) + "\n")
    for key, row in splits.items():
        print(
            f"{key:>16}: {row['mean']['accuracy']:.2f} ± {row['sd']['accuracy']:.2f} %, flipped too "
            f"{row['mean']['flip_accuracy']:.2f} %, ensemble {row['ensemble']['accuracy']:.2f} %"
        )
    print(f"written: {file}; best on clean validation: seed {results['best_on_clean_validation']}")


if __name__ == "__main__":
    run(main)
