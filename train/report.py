"""Writes README's zoo table from the results files.

    python train/report.py [--check]

With --check nothing is written; the exit code is 1 where the table is not what the results files say.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, run
from train.evaluate import RESULTS_DIR
from train.files import write_atomic

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- zoo -->", "<!-- /zoo -->"

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


def with_table(readme: str, table: str) -> str:
    """`readme` with the table between its two markers."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say whether README is up to date"
    )
    args = parser.parse_args()
    readme = README.read_text()
    new = with_table(readme, zoo_table())
    if args.check:
        print("README is up to date" if new == readme else "README differs: run python train/report.py")
        return int(new != readme)
    write_atomic(README, new)
    return 0


if __name__ == "__main__":
    run(main)
