"""Scores one model's runs of several seeds: each of them, their mean and deviation, and their ensemble.

    python train/seeds.py runs/fer_net-flagship-[0-4] --tag fer2013 --data SOURCE

The ensemble is the mean of the runs' probabilities. Test is read once for each run and once for the ensemble,
and logged, as `train/evaluate.py` does.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.metrics import scores
from train import ferplus
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Fer2013
from train.evaluate import check_test_read, log_test_read
from train.files import RESULTS_DIR, sha256, write_json
from train.recipe import without_seed
from train.run_dir import WEIGHTS, check_learnt, finished
from train.summary import mean_and_sd
from train.teacher import probabilities

# What the runs' configs have in common, besides the recipe but for its seed.
SAME = (
    "model",
    "data",
    "labels",
    "votes",
    "label_names",
    "teacher",
    "fold",
    "input_size",
    "pretrained",
    "start",
)
FIGURES = ("accuracy", "macro_f1", "nll", "brier", "ece", "flip_accuracy")


def same_runs(runs: list[Path]) -> list[dict]:
    """The configs of finished runs that differ in nothing but the seed.

    Raises:
        RunError: A run is not finished.
        ValueError: Two differ in anything of `SAME` or in the recipe, or not in the seed.
    """
    configs = [finished(folder)[0] for folder in runs]
    alike = [
        {key: config.get(key) for key in SAME} | {"recipe": without_seed(config["recipe"])}
        for config in configs
    ]
    for folder, other in zip(runs, alike, strict=True):
        if other != alike[0]:
            raise ValueError(f"{folder} differs from {runs[0]} in more than the seed")
    seeds = [config["recipe"]["seed"] for config in configs]
    if len(runs) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"give at least two runs, each of another seed; these have {seeds}")
    return configs


def score(runs: list[Path], configs: list[dict], data: Fer2013, split: str) -> dict[str, dict]:
    """Figures of each run and of their ensemble, on a split whole and clean.

    Returns:
        By key of `train.ferplus.parts`: `seeds` (a dict a run, of the figures of `fer_zoo.metrics.scores` and
        `flip_accuracy`), `mean` and `sd` of their figures, and `ensemble` (the same figures).
    """
    parts = ferplus.parts(data, split, configs[0]["labels"])
    images = torch.from_numpy(data[split].images)
    probs = torch.stack([probabilities(each, images.unsqueeze(1)) for each in runs])
    found = {}
    for key, part in parts.items():
        rows, labels = map(torch.from_numpy, part)
        *seeds, ensemble = (_figures(each[:, rows], labels[rows]) for each in (*probs, probs.mean(0)))
        columns = {figure: [seed[figure] for seed in seeds] for figure in FIGURES}
        found[key] = {"seeds": seeds} | mean_and_sd(columns) | {"ensemble": ensemble}
    return found


def _figures(probs: torch.Tensor, labels: torch.Tensor) -> dict:
    plain, mirrored = probs
    flipped = (plain + mirrored).argmax(1) == labels
    figures = scores(plain.clamp_min(1e-12).log(), labels)
    return figures | {"flip_accuracy": 100 * flipped.float().mean().item()}


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--tag", required=True, help="what the weights are called: fer2013, ...")
    add_data_arguments(parser)
    parser.add_argument("--reason", help="why test is read again for new runs of the same name")
    parser.add_argument("--results", type=Path, default=RESULTS_DIR, help="folder of the results files")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)  # before test is read
    configs = same_runs(args.runs)
    # what is published is of the real data
    data = load_data(args, strict=args.results.resolve() == RESULTS_DIR)
    check_learnt(args.runs[0], configs[0], data.fingerprint)  # the others are like it
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
    judge = splits[ferplus.judging("validation_clean", configs[0]["labels"])]
    chosen = [figures["accuracy"] for figures in judge["seeds"]]
    results = {
        "model": f"{arch}.{args.tag}",
        "seeds": seeds,
        "labels": configs[0]["labels"],
        "teacher": configs[0].get("teacher"),
        "start": configs[0].get("start"),
        "recipe": without_seed(configs[0]["recipe"]),
        "sha256": dict(zip(map(str, seeds), digests, strict=False)),
        "best_on_clean_validation": seeds[int(np.argmax(chosen))],
        "splits": splits,
    }
    file = args.results / f"seeds-{arch}.{args.tag}.json"
    write_json(file, results)
    for key, row in splits.items():
        print(
            f"{key:>24}: {row['mean']['accuracy']:.2f} ± {row['sd']['accuracy']:.2f} %, flipped too "
            f"{row['mean']['flip_accuracy']:.2f} %, ensemble {row['ensemble']['accuracy']:.2f} %"
        )
    print(f"written: {file}; best on clean validation: seed {results['best_on_clean_validation']}")


if __name__ == "__main__":
    run(main)
