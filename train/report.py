"""Writes README's tables, the model cards and their figures from the results files.

    python train/report.py [--check]
    python train/report.py --gallery runs/faces.png --model fer_cbam.paper --data SOURCE

With --check nothing is written; the exit code is 1 where something is not what the results files say. With
--gallery only that picture is drawn: test faces that a model reads right and most confidently wrong.
"""

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.data import COUNTS
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.metrics import half_interval
from train import robustness
from train.cards import card, load_results
from train.claims import difference, is_more
from train.cli import add_data_arguments, create_parser, load_data, run
from train.costs import minutes_of, record_of
from train.curves import draw_curves
from train.earlier import SPLITS
from train.evaluate import judged, labels_of, learnt, need_test_read, weight_file
from train.ferplus import truth
from train.figures import FIGURES_DIR, draw_costs, draw_model, is_current, need_faces, peer_name
from train.files import RESULTS_DIR, read_results, write_atomic
from train.gallery import draw_gallery
from train.lineage import LIVE, RECIPES, STARTS, TEACHERS, epochs, needs
from train.paper_page import page, study_curves
from train.summary import cells, curves_of, published, unlike

README = Path(__file__).resolve().parent.parent / "README.md"
CARDS_DIR = RESULTS_DIR.parent
CURVES = "cv-paper.png"
EPOCH = sum(COUNTS["train"])  # images


def zoo_table() -> str:
    """A row for each weight file and other package, best accuracy on test first, and what they say."""
    rows = [
        "| model | parameters | GMACs | ms by ONNX | minutes of training | test % | clean test % "
        "| test macro-F1 % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    found = []  # accuracy on test, and the row
    results = _of_labels("fer2013")
    times = _times(results)
    for row in results:
        test, clean = row["splits"]["test"], row["splits"]["test_clean"]
        name = row["model"]
        text = (
            f"| [`{name}`](model_cards/{name}.md) | {row['parameters']:,} | {row['gmacs']:.3f} "
            f"| {f'{times[name]:.2f}' if name in times else ''} "
            f"| {'' if (minutes := minutes_of(row)) is None else f'{minutes:.0f}'} "
            f"| {test['accuracy']:.2f} ± {test['accuracy_ci95']:.2f} "
            f"| {clean['accuracy']:.2f} ± {clean['accuracy_ci95']:.2f} | {test['macro_f1']:.2f} |"
        )
        found.append((test["accuracy"], text))
    for peer in _peers():
        half = half_interval(peer["accuracy"], results[0]["splits"]["test"]["n"])
        text = (
            f"| *{peer_name(peer)}* | {peer['parameters']:,} | | | | {peer['accuracy']:.1f} ± {half:.2f} | "
            f"| {peer['macro_f1']:.1f} |"
        )
        found.append((peer["accuracy"], text))
    return "\n".join([*rows, *(text for _, text in sorted(found, reverse=True)), "", _against_peers()])


def lineage_table() -> str:
    """A row for each training that the files of other recipes than the paper's come from."""
    files = {
        (model, recipe): f"`{model}.{tag}`"
        for tag in ("fer2013", "ferplus")
        for model, recipe in RECIPES[tag].items()
    }
    rows = [
        "| network | recipe | epochs | minutes | goes on from | taught by | clean validation % | test % "
        "| clean test % | gives |",
        "|---|---|--:|--:|---|---|--:|--:|--:|---|",
    ]
    runs = dict.fromkeys(one for file in files for one in (*needs(*file), file))
    for model, recipe in runs:
        kept = record_of(model, recipe) or {"accuracy": {}}
        teachers = (LIVE[recipe],) if recipe in LIVE else TEACHERS.get(recipe, ())
        cells = [
            f"`{model}`",
            f"[{recipe}](train/recipes/{recipe}.toml)",
            str(epochs(model, recipe)),
            f"{kept['train_seconds'] / 60:.0f}" if "train_seconds" in kept else "",
            STARTS.get((model, recipe), ""),
            ", ".join(f"`{network}` by {name}" for network, name in teachers) + ", live" * (recipe in LIVE),
            *(f"{kept['accuracy'][split]:.2f}" if split in kept["accuracy"] else "" for split in SPLITS),
            files.get((model, recipe), ""),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    for name, kept in read_results("earlier_runs").items():
        model, _, recipe = name.partition("-")
        if (model, recipe) not in runs:
            read, test, clean = (f"{kept['accuracy'][split]:.2f} %" for split in SPLITS)
            rows.append(
                f"\nBeside these, `{model}` by {recipe} read {read} of clean validation, {test} of test and "
                f"{clean} of clean test."
            )
    return "\n".join(rows)


def ferplus_table() -> str:
    """A row for each weight file that learnt the votes of FER+, best on clean test first."""
    rows = [
        "| model | FER+: test % | FER+: clean test % | FER+: clean macro-F1 % | FER+: clean ECE % "
        "| FER2013: test % | FER2013: clean test % |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    results = _of_labels("ferplus")
    for row in sorted(results, key=lambda row: -judged(row, "test_clean")["accuracy"]):
        name, splits = row["model"], row["splits"]
        whole, clean, *own = [
            f"{splits[key]['accuracy']:.2f} ± {splits[key]['accuracy_ci95']:.2f}"
            for key in ("test_ferplus", "test_clean_ferplus", "test", "test_clean")
        ]
        seen = splits["test_clean_ferplus"]
        rows.append(
            f"| [`{name}`](model_cards/{name}.md) | {whole} | {clean} | {seen['macro_f1']:.2f} "
            f"| {seen['ece']:.2f} | {' | '.join(own)} |"
        )
    test, clean = (judged(results[0], key) for key in ("test", "test_clean"))
    disgust = sum(clean["confusion"][EXPRESSIONS.index("disgust")])
    votes = read_results("audit")["ferplus"]["test"]
    return "\n".join(rows) + (
        f"\n\nFER+ decides {test['n']:,} of the {results[0]['splits']['test']['n']:,} images of test, and "
        f"{clean['n']:,} of the clean ones; {disgust} of these are disgust, and macro-F1 hangs on them. "
        f"FER+ and FER2013 agree on {votes['agreed'] / votes['decided']:.1%} of those of test: weights that "
        "read what FER+ saw cannot do much better by the FER2013 columns, nor in the table below."
    )


def _of_labels(labels: str) -> list[dict]:
    """Results of the weight files that learnt the labels of "fer2013", or of "ferplus"."""
    return [row for row in load_results() if labels_of(row["run"]) == labels]


def _against_peers() -> str:
    """What the table says of us and the others, in words."""
    ours = {row["model"]: row["splits"]["test"] for row in _of_labels("fer2013")}
    n = next(iter(ours.values()))["n"]
    best, f1 = (max(_peers(), key=lambda peer: peer[key]) for key in ("accuracy", "macro_f1"))
    gaps = {name: round(test["accuracy"], 1) - best["accuracy"] for name, test in ours.items()}  # as theirs
    above, alike, below = (
        [name for name, gap in gaps.items() if np.sign(gap) == sign] for sign in (1, 0, -1)
    )
    surely = [
        name for name in above if is_more(difference((ours[name]["accuracy"], n), (best["accuracy"], n)))
    ]
    fairer = [name for name, test in ours.items() if round(test["macro_f1"], 1) > f1["macro_f1"]]
    return (
        "*In italics*: other packages whose weights install offline, each with its own preprocessing, "
        "measured once by this project, by no script that is kept here. What they were trained on is not "
        "always known.\n\n"
        f"The best of them have {best['accuracy']} % accuracy and {f1['macro_f1']} % macro-F1. More accurate "
        f"are {_listed(above)}; beyond chance, by the 95 % interval of the difference, {_listed(surely)}. "
        + (f"Alike are {_listed(alike)}. " if alike else "")
        + f"Less accurate are {_listed(below)}. Of higher macro-F1: {_listed(fairer)}.\n\n"
        "This is no survey. On this split a VGG trained from scratch is reported at 72.7 % (Pramerdorfer and "
        "Kampel 2016, arXiv:1612.02903), larger networks that start from ImageNet's weights at 74.14 % (Pham "
        "et al., ICPR 2020)."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none of ours"


def cv_table() -> str:
    """Cross-validation by the paper's recipe, a row a model."""
    summary = published()
    rows = [
        f"| {summary['folds']} folds a seed, recipe {summary['recipe']} | seeds | accuracy % | macro-F1 % "
        "| NLL | Brier |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, model in summary["models"].items():
        rows.append(f"| `{name}` | {model['seeds']} | {' | '.join(cells(model))} |")
    if mixed := unlike(summary):
        rows.append(f"\n{mixed}")
    if curves := _curves():
        missing = [f"`{name}`" for name in summary["models"] if name not in curves]
        rows.append(f"\n![Learning curves of the folds](model_cards/figures/{CURVES})")
        if missing:
            rows.append(f"\nThe learning curves of {' and '.join(missing)} were not kept.")
    return "\n".join(rows)


def speed_table() -> str:
    """The training loop beside a plain one, a row for each device and model."""
    rows = [
        "| hardware | model | ours, images/s | an epoch, s | without compiled attention | plain loop "
        "| ours / model alone | ... as a CUDA graph | ours / plain loop | of peak FLOP/s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for file in sorted(RESULTS_DIR.glob("benchmark-[cg]pu.json")):
        for name, row in json.loads(file.read_text())["models"].items():
            speed = row["images_per_second"]
            eager = f"{speed['ours_eager']:,.0f}" if "ours_eager" in speed else ""
            epoch = f"{EPOCH / speed['ours']:.1f}"
            graphed = f"{speed['ours'] / speed['alone_graphed']:.0%}" if "alone_graphed" in speed else ""
            rows.append(
                f"| {row['hardware']} | `{name}` | {speed['ours']:,.0f} | {epoch} | {eager} "
                f"| {speed['plain']:,.0f} | {row['ours_over_alone']:.0%} | {graphed} "
                f"| {row['ours_over_plain']:.2f} | {row['share_of_peak_flops']:.0%} |"
            )
    return "\n".join(rows)


def onnx_table() -> str:
    """PyTorch, ONNX and ONNX in int8, a row a weight file."""
    rows = [
        "| one face, ms / 64 at once, faces/s | PyTorch | ONNX | ONNX int8 | int8 costs, points |",
        "|---|--:|--:|--:|--:|",
    ]
    results = read_results("benchmark-onnx")
    for name, row in results["models"].items():
        cells = [
            f"{ms['1']:.2f} / {row['faces_per_second'][kind]['64']:,.0f}"
            for kind, ms in row["milliseconds"].items()
        ]
        loss = row["accuracy"]["torch"] - row["accuracy"]["onnx_int8"]
        rows.append(f"| `{name}` | {' | '.join(cells)} | {loss:.2f} |")
    for name, row in results.get("peers", {}).items():
        rows.append(
            f"\nIn the same run the default model of {name} takes {row['milliseconds']['1']:.2f} ms for one "
            f"face and reads {row['faces_per_second']['64']:,.0f} faces/s, 64 at once."
        )
    rates = [row["faces_per_second"] for row in results["models"].values()]
    one, many = ([rate["onnx"][size] / rate["torch"][size] for rate in rates] for size in ("1", "64"))
    rows.append(
        f"\nBy ONNX one face is read {min(one):.1f} to {max(one):.1f} times as fast as in PyTorch, "
        f"64 at once {min(many):.2f} to {max(many):.2f} times."
    )
    return "\n".join(rows)


def demo_table() -> str:
    """What visitors of the demo wait for."""
    measured = live, load, leaving, clip = [
        read_results(name) for name in ("live", "load", "load-leaving", "benchmark-video")
    ]
    models = sorted({each["model"] for each in measured})
    width, height = clip["clip"]["size"]
    return (
        f"| {_listed(models)} on {live['hardware'].rpartition(',')[0]}, which run the visitors, too | |\n"
        "|---|--:|\n"
        "| [Live](model_cards/results/live.json): pictures read a second, median latency "
        f"| {live['frames_per_second']:.0f}, {live['latency_ms_median']} ms |\n"
        f"| [Photo](model_cards/results/load.json): {load['visitors']} visitors who pause for 5 s after each "
        f"answer wait in the median, 95th percentile "
        f"| {load['seconds_median']:.2f} s, {load['seconds_p95']:.2f} s |\n"
        f"| the same, [with {leaving['left']} of {leaving['requests']} requests given up]"
        f"(model_cards/results/load-leaving.json) "
        f"| {leaving['seconds_median']:.2f} s, {leaving['seconds_p95']:.2f} s |\n"
        f"| [Video](model_cards/results/benchmark-video.json): frames of {width}x{height} read, annotated "
        f"and encoded a second | {clip['frames_per_second']:.0f} |"
    )


def with_tables(readme: str) -> str:
    """`readme` with each table between its two markers."""
    tables = {
        "demo": demo_table,
        "onnx": onnx_table,
        "zoo": zoo_table,
        "lineage": lineage_table,
        "ferplus": ferplus_table,
        "robustness": robustness.table,
        "cv": cv_table,
        "speed": speed_table,
    }
    for name, table in tables.items():
        if not 0 <= readme.find(f"<!-- {name} -->") < readme.find(f"<!-- /{name} -->"):
            raise ValueError(f"README.md lacks the marks <!-- {name} --> and <!-- /{name} --> of a table")
        head, _, rest = readme.partition(f"<!-- {name} -->")
        _, _, tail = rest.partition(f"<!-- /{name} -->")
        readme = f"{head}<!-- {name} -->\n{table()}\n<!-- /{name} -->{tail}"
    return readme


def texts() -> dict[Path, str]:
    """README, every card and the page on the paper, as they should be."""
    cards = {CARDS_DIR / f"{results['model']}.md": card(results) for results in load_results()}
    return {README: with_tables(README.read_text()), CARDS_DIR / "paper.md": page(), **cards}


def figures() -> dict[Path, tuple]:
    """Every figure: the function that draws it, or says what does, and what that is given."""
    results, usual = load_results(), _of_labels("fer2013")
    found = {FIGURES_DIR / f"{row['model']}.png": (draw_model, row) for row in results}
    if curves := _curves():
        title = "Cross-validation on FER2013, recipe paper, seed 0"
        found[FIGURES_DIR / CURVES] = (draw_curves, curves, title)
    if studies := read_results("studies", {}):
        found[FIGURES_DIR / "studies.png"] = (draw_curves, study_curves(studies), "Variants of recipe paper")
    return found | {
        FIGURES_DIR / "accuracy-and-cost.png": (draw_costs, usual, _peers(), _times(usual)),
        # last: where it is old, the script ends there
        FIGURES_DIR / "mean-gradcam.png": (need_faces, read_results("mean-gradcam")),
    }


def stale() -> dict[Path, Callable[[], None]]:
    """The files that are not what the results files say, and what writes each anew."""
    old: dict[Path, Callable[[], None]] = {
        file: partial(write_atomic, file, text)
        for file, text in texts().items()
        if not file.exists() or file.read_text() != text
    }
    return old | {
        file: partial(draw, *shown, file)
        for file, (draw, *shown) in figures().items()
        if not is_current(file, *shown)
    }


def _curves() -> dict[str, list[list[dict]]]:
    """Of the first seed of the cross-validation: those of all would hide one another."""
    return curves_of(read_results("cv-paper"))


def _times(results: list[dict]) -> dict[str, float]:
    """Milliseconds a face of those of the weight files that were timed, by ONNX, one at a time."""
    models = read_results("benchmark-onnx")["models"]
    names = [row["model"] for row in results if row["model"] in models]
    return {name: models[name]["milliseconds"]["onnx"]["1"] for name in sorted(names)}


def _peers() -> list[dict]:
    return read_results("peers")["peers"]


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that are old")
    parser.add_argument("--gallery", type=Path, help="the PNG to write")
    parser.add_argument("--model", default="fer_cbam.paper", help="of the gallery (default: %(default)s)")
    add_data_arguments(parser)
    args = parser.parse_args()
    if args.gallery:
        data = load_data(args, strict=False)
        weights = weight_file(args.model)
        need_test_read(weights)  # a picture of what is wrong on test is a look at it
        labels = truth(data, "test", learnt(weights))
        draw_gallery(args.model, data["test"].images, labels, args.gallery)
        print(f"written: {args.gallery}")
        return 0
    old = stale()
    if args.check:
        names = ", ".join(str(file.relative_to(README.parent)) for file in old)
        print(
            f"old: {names}: run python train/report.py" if old else "README, cards and figures are up to date"
        )
        return int(bool(old))
    for write in old.values():
        write()
    return 0


if __name__ == "__main__":
    run(main)
