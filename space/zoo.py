"""Zoo: what every model scores, from the results files and nothing else."""

from __future__ import annotations

import json
import os
import re
from functools import cache

import gradio as gr
import pandas as pd

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.thresholds import thresholds
from fer_zoo.tracking import track_color

from .html import SORT, heat_table, legend, sortable_table
from .readers import MODELS, RESULTS, ROOT

COLUMNS = (
    "model",
    "labels",
    "test %",
    "± 95 %",
    "clean test %",
    "clean macro-F1 %",
    "calib. error %",
    "parameters M",
    "file MB",
    "sure above %",
    "answers sure %",
)
# Links of a card to the files beside it: its figure, and the log of reads.
BESIDE = re.compile(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?!https?:)[^)]*\)")
# On the Hub, whoever runs the Space has the models, too: `publish.py --repo me` sends both there.
OWNER = os.environ.get("SPACE_AUTHOR_NAME")
NOTES = """
*Test* is FER2013's PrivateTest, read once a weight file; *clean* leaves out the images that stand in the
training split too, pixel for pixel; macro-F1 and calibration error (15 equal-width bins) are of clean test.
*Sure above*: the smallest confidence from which on at least 85 % of the answers are right, on validation
images that do not stand in the training split; *answers sure*: how many of them reach that. *Labels* are
those that a model learnt and is judged by: FER2013's own, with which people agree on about 65 % of the
images, or the expression that FER+'s ten annotators saw most often, ties left out. Figures by the one and by
the other do not compare; the plot shows the former. The demo's own choice is the model of the highest mean
of two figures: accuracy on faces as they are, turned, blurred, noisy or covered, and macro-F1 by FER+.
"""


@cache
def results() -> dict[str, dict]:
    """The results file of every model that visitors can choose, once scored on test, in their order."""
    files = {model: RESULTS / f"{model}.json" for model in MODELS}
    found = {model: json.loads(file.read_bytes()) for model, file in files.items() if file.exists()}
    return {model: result for model, result in found.items() if "test_clean" in result["splits"]}


def judged(model: str, split: str = "test_clean") -> dict:
    """A model's figures against the labels that it learnt: FER2013's, or the majority of FER+'s votes."""
    splits = results()[model]["splits"]
    return splits[f"{split}_ferplus" if learnt_votes(model) else split]


def learnt_votes(model: str) -> bool:
    """Whether it learnt FER+'s votes in place of FER2013's labels."""
    return results()[model]["run"]["config"].get("labels") == "ferplus"


def by_votes(model: str) -> str:
    """What a caption adds where a model is judged by those votes."""
    return ", by FER+'s majority" if learnt_votes(model) else ""


def table() -> str:
    """A row a model, FER2013's labels before FER+'s, each best on clean test first; on the Hub with links."""
    rows = []
    for model, result in results().items():
        test, clean = judged(model, "test"), judged(model)
        labels = "FER+" if learnt_votes(model) else "FER2013"
        sure = thresholds()[model]
        figures = [
            test["accuracy"],
            test["accuracy_ci95"],
            clean["accuracy"],
            clean["macro_f1"],
            clean["ece"],
        ]
        cells = [
            f'<a href="https://huggingface.co/{OWNER}/{model}">{model}</a>' if OWNER else model,
            labels,
            *[f"{figure:.2f}" for figure in figures],
            f"{result['parameters'] / 1e6:.2f}",
            f"{result['bytes'] / 1e6:.1f}",
            "none" if sure["threshold"] is None else f"{100 * sure['threshold']:.1f}",
            "0" if sure["coverage"] is None else f"{sure['coverage']:.1f}",
        ]
        rows.append((labels == "FER+", -clean["accuracy"], cells))
    rows.sort()
    return sortable_table(COLUMNS, [cells for *_, cells in rows], "What every model scores on FER2013")


def accuracy_against_size() -> pd.DataFrame:
    models = [model for model in results() if not learnt_votes(model)]
    return pd.DataFrame(
        {
            "model": models,
            "network": [model.partition(".")[0] for model in models],
            "parameters (millions)": [results()[model]["parameters"] / 1e6 for model in models],
            "clean test accuracy (%)": [judged(model)["accuracy"] for model in models],
        }
    )


def recalls() -> str:
    """Per-class recall of every model on clean test, as a table that is shaded."""
    rows = {model: [judged(model)["recall"][name] / 100 for name in EXPRESSIONS] for model in results()}
    return heat_table(
        rows,
        EXPRESSIONS,
        "model",
        "Of 100 faces of each expression, by the labels that the model learnt, how many are named so",
    )


def confusion(model: str) -> str:
    counts = judged(model)["confusion"]
    rows = {name: [n / max(1, sum(row)) for n in row] for name, row in zip(EXPRESSIONS, counts, strict=True)}
    return heat_table(
        rows,
        EXPRESSIONS,
        "is \\ called",
        f"{model}{by_votes(model)}: of 100 faces of a row, how many are called what",
    )


def card(model: str) -> str:
    """A model's card; of the files beside it, which the page does not serve, only the links' words remain."""
    file = ROOT / "model_cards" / f"{model}.md"
    if not file.exists():
        return f"The card of {model} is not part of this installation."
    return BESIDE.sub(lambda link: "" if link["image"] else link["words"], file.read_text(encoding="utf-8"))


def choose(model: str) -> tuple[str, str]:
    return confusion(model), card(model)


def zoo_tab() -> None:
    if not results():
        gr.Markdown("What the models score is not part of this installation.")
        return
    first = next(iter(results()))
    gr.HTML(table(), js_on_load=SORT, elem_id="zoo-table", apply_default_css=False)
    gr.Markdown(NOTES)
    points = accuracy_against_size()
    size, accuracy = points["parameters (millions)"], points["clean test accuracy (%)"]
    # a colour a network: there are not enough for every file, and those of a network differ in accuracy only
    colors = {name: track_color(number) for number, name in enumerate(points["network"].unique(), 1)}
    gr.ScatterPlot(
        points,
        x=size.name,
        y=accuracy.name,
        color="network",
        tooltip="all",
        color_map=colors,
        colors_in_legend=[],
        x_lim=[0, 1.1 * size.max()],
        y_lim=[accuracy.min() - 1, accuracy.max() + 1],
        height=260,
        elem_id="zoo-plot",
    )
    gr.HTML(legend(colors), apply_default_css=False)
    model = gr.Dropdown(list(results()), value=first, label="Look closer at", elem_id="zoo-model")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.HTML(recalls(), elem_id="zoo-recall", apply_default_css=False)
        with gr.Column(min_width=300):
            matrix = gr.HTML(confusion(first), elem_id="zoo-confusion", apply_default_css=False)
    with gr.Accordion("Model card", open=False):
        text = gr.Markdown(card(first), elem_id="zoo-card")
    model.input(
        choose,
        model,
        [matrix, text],
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
