"""Writes README's tables from the results files.

    python train/report.py [--check]

With --check nothing is written; the exit code is 1 where a table is not what the results files say.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, run
from train.evaluate import RESULTS_DIR
from train.files import write_atomic

README = Path(__file__).resolve().parent.parent / "README.md"

# Test accuracy in percent as the course paper gives it ("Final Test Accuracy").
PAPER = {"fer_cnn": 58.26, "fer_kernel_cnn": 59.72, "fer_resnet": 53.13, "fer_cbam": 62.18}


def zoo_table(folder: Path = RESULTS_DIR) -> str:
    """A Markdown table, a row for each results file, best clean test accuracy first."""
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("fer_*.json"))]
    results.sort(key=lambda row: -row["splits"]["test_clean"]["accuracy"])
    rows = [
        "| model | parameters | MB | test accuracy % | clean test accuracy % | clean test macro-F1 % "
        "| course paper % |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results:
        test, clean = row["splits"]["test"], row["splits"]["test_clean"]
        rows.append(
            f"| `{row['model']}` | {row['parameters']:,} | {row['bytes'] / 1e6:.1f} "
            f"| {test['accuracy']:.2f} ± {test['accuracy_ci95']:.2f} "
            f"| {clean['accuracy']:.2f} ± {clean['accuracy_ci95']:.2f} "
            f"| {clean['macro_f1']:.2f} | {PAPER[row['model'].partition('.')[0]]} |"
        )
    return "\n".join(rows)


def cv_table(file: Path = RESULTS_DIR / "cv-paper.json") -> str:
    """A Markdown table of a cross-validation, a row a model."""
    summary = json.loads(file.read_text())
    rows = [
        f"| {summary['folds']} folds, recipe {summary['recipe']} | accuracy % | macro-F1 % | NLL | Brier |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, model in summary["models"].items():
        cells = [
            f"{model['mean'][key]:.{digits}f} ± {model['sd'][key]:.{digits}f}"
            for key, digits in (("accuracy", 2), ("macro_f1", 2), ("nll", 3), ("brier", 3))
        ]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_tables(readme: str) -> str:
    """`readme` with each table between its two markers."""
    for name, table in (("zoo", zoo_table()), ("cv", cv_table())):
        head, _, rest = readme.partition(f"<!-- {name} -->")
        _, _, tail = rest.partition(f"<!-- /{name} -->")
        readme = f"{head}<!-- {name} -->\n{table}\n<!-- /{name} -->{tail}"
    return readme


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say whether README is up to date"
    )
    args = parser.parse_args()
    readme = README.read_text()
    new = with_tables(readme)
    if args.check:
        print("README is up to date" if new == readme else "README differs: run python train/report.py")
        return int(new != readme)
    write_atomic(README, new)
    return 0


if __name__ == "__main__":
    run(main)
