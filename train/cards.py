"""A card for each weight file: what it is, how well it reads, and how to make it again."""

import inspect
import json
import sys

import numpy as np
import timm

import fer_zoo  # noqa: F401, registers the architectures
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.metrics import half_interval
from train.costs import cost_in_words, recipe_name, reproducible, seen
from train.evaluate import TEST_READS, judged, labels_of
from train.files import RESULTS_DIR, read_results
from train.lineage import LIVE, SHORTER, needs
from train.recipe import without_seed
from train.search import table as search_table

# What is to be known of a recipe.
ABOUT = {
    "paper": "They follow the protocol of the course paper that the architecture comes from: Adam, "
    "cross-entropy, 20 epochs, mild augmentation.",
    "strong": "They come from this project's own recipe: a longer schedule than the course paper's, wider "
    "augmentation, label smoothing and a moving average of the weights.",
    "strong-mix": "They come from this project's own recipe: a longer schedule than the course paper's, "
    "wider augmentation, mixup, erasing, label smoothing and a moving average of the weights.",
    "taught": "They come from this project's own recipe: a longer schedule than the course paper's, wider "
    "augmentation, mixup, erasing, blur, noise and light, and a moving average of the weights.",
    "student": "They come from this project's own recipe: a longer schedule than the course paper's, wider "
    "augmentation and a moving average of the weights.",
    "student-quick": "They come from this project's own recipe: a longer schedule than the course paper's, "
    "with smaller images in its first epochs, wider augmentation, blur, noise and light, and a moving "
    "average of the weights.",
    "student-long": "They come from this project's own recipe: a far longer schedule than the course "
    "paper's, wider augmentation and a moving average of the weights.",
    "student-full": "They come from this project's own recipe: a far longer schedule than the course "
    "paper's, wider augmentation, blur, noise and light, patches erased and a moving average of the weights.",
    "student-again": "They go on where a run of this project's own ended, with wider augmentation than "
    "the course paper's, blur, noise and light, patches erased and a moving average of the weights.",
    "ferplus": "They go on where a run on FER2013's own labels ended, with blur, noise and light, patches "
    "erased and a moving average of the weights.",
    "flagship": "They come from this project's own recipe: a far longer schedule than the course paper's, "
    "wider augmentation, mixup, erasing and a moving average of the weights.",
}
ABOUT["flagship-student"] = ABOUT["flagship"]
ABOUT["flagship-tiny"], ABOUT["flagship-tiny-alone"] = ABOUT["student"], ABOUT["strong"]
ABOUT["ferplus-full"] = ABOUT["ferplus-long"] = ABOUT["ferplus"]
ABOUT["flagship-ferplus"] = ABOUT["flagship-ferplus-full"] = ABOUT["ferplus"]
ABOUT["student-again-full"] = ABOUT["student-again"]
ABOUT["student-live"] = ABOUT["student-live-short"] = ABOUT["student-live-again"] = ABOUT["student-again"]
FERPLUS = (
    " They learnt the shares of FER+'s votes (Barsoum et al. 2016, arXiv:1608.01041), ten an image, and are "
    "judged by its *majority*: of the seven expressions the one with the most votes, where the seven have at "
    "least five together; it need not be more than half. Ties are left out, and what is mostly called no "
    "face. Figures against FER2013's own labels, which they learnt before and then left, stand beside those."
)
DISTILLED = " Besides the labels they learnt what other networks made of the training images."
WATCHED = (
    " Besides the labels they learnt what `{}`, calibrated on clean validation, made of each training image "
    "as it was augmented."
)

# What is read, of weights of either labels.
ANNOTATORS = (
    "FER2013's annotators\ncalled by these seven words: the labels are noisy, and people agree with them on "
    "about 65 % of the images\n(Goodfellow et al. 2013, arXiv:1307.0414)"
)
VOTERS = "FER+'s ten\nannotators most often called by these seven words, and those often disagreed"

UNMEASURED = """
*Not measured*: when test was read the script did not give that figure yet, and test is read once."""

CARD = """\
# {model}

{summary} These are its `{tag}` weights, trained on FER2013's training split alone. {about}

```python
import fer_zoo, timm
from fer_zoo.preprocess import to_input

model = timm.create_model("{model}", pretrained=True).eval()  # gray 1x48x48, mean and std 0.5
face = fer_zoo.load_image("face.jpg")  # a square one, cut out; `fer_zoo.Recognizer` finds those of a photo
probs = model(to_input([face], model)).softmax(1)  # of angry, disgust, fear, happy, sad, surprise, neutral
```

```text
{docstring}
```

| | |
|---|---|
| parameters | {parameters:,} |
| multiply-adds | {gmacs:.3f} G a face |
| one face, network alone | {latency} |
| its own trainings | {cost} |
| file | {megabytes:.1f} MB, float16 safetensors, sha256 `{sha256}` |
| labels, in order | {labels} |
| temperature | {temperature} |

## How well it reads

{figures}

± is the 95 % interval. *Clean* leaves out the images that stand in the training split too, pixel for pixel.
*Flipped too* averages the probabilities of a face and its mirror image; all else is a single forward. ECE has
15 equal-width bins. Epoch {best} of {epochs} was chosen on {validation}. Test was read {reads}.{unmeasured}

| recall % | {header} |
|---|{rule}|
{recalls}
{counts}

![Confusion matrix, recall of each expression, and reliability](figures/{model}.png)

{tried}## Limits

It reads expressions in single pictures, never what a person feels, and it reads what {annotators}.
It misses {missed} most often; the table above says how often.
In the European Union, systems that infer emotions of people at work or in education are prohibited but for
medical and safety reasons (AI Act, Art. 5(1)(f)). Do not base decisions about people on this.

## Make it again

```sh
{command}
```

In one process it trains {trainings}. Stopped and started again, it goes on where it was. {training} took
{minutes:.0f} minutes on {hardware} ({speed:,.0f} images/s, {precision}), torch {torch}.
Seed {seed}, {dropout}, commit `{git}`.

## Licence

Weights and code: Apache-2.0. FER2013's images carry no licence of their own and are not distributed.
"""

COLUMNS = (
    ("accuracy %", "accuracy", 2),
    ("macro-F1 %", "macro_f1", 2),
    ("flipped too %", "flip_accuracy", 2),
    ("ECE %", "ece", 2),
    ("NLL", "nll", 3),
    ("Brier", "brier", 3),
)
SPLITS = {"validation_clean": "clean validation", "test": "test", "test_clean": "clean test"}
ROWS = SPLITS | {f"{key}_ferplus": f"{title}, FER+ majority" for key, title in SPLITS.items()}


def load_results() -> list[dict]:
    """The results files of the zoo, best clean test accuracy by FER2013's labels first.

    Raises:
        ValueError: One lacks a split.
    """
    results = [json.loads(file.read_text()) for file in sorted(RESULTS_DIR.glob("fer_*.json"))]
    for row in results:
        if missing := SPLITS.keys() - row["splits"]:
            split = min(missing).removesuffix("_clean")
            raise ValueError(
                f"{row['model']} has no figures of {split}: python train/evaluate.py --model {row['model']} "
                f"--split {split} makes them"
            )
    return sorted(results, key=lambda row: -row["splits"]["test_clean"]["accuracy"])


def card(results: dict) -> str:
    """The card of one weight file, as Markdown."""
    arch, _, tag = results["model"].partition(".")
    entrypoint = timm.model_entrypoint(arch)
    config, result = results["run"]["config"], results["run"]["result"]
    recipe = recipe_name(results)
    if recipe not in ABOUT:
        raise ValueError(
            f"{results['model']} was trained by {recipe}: say what that is in ABOUT of train/cards.py"
        )
    votes, led_up_to = labels_of(results["run"]) == "ferplus", config.get("teacher") or config.get("start")
    taught = WATCHED.format(LIVE[recipe][0]) if recipe in LIVE else DISTILLED
    about = ABOUT[recipe] + (FERPLUS if votes else "") + (taught if config.get("teacher") else "")
    validation = "clean validation" + (", by FER+'s majority" if votes else "")
    return CARD.format(
        model=results["model"],
        tag=tag,
        summary=inspect.getdoc(entrypoint).partition("\n")[0],
        about=about,
        docstring=inspect.getdoc(sys.modules[entrypoint.__module__]),
        parameters=results["parameters"],
        gmacs=results["gmacs"],
        megabytes=results["bytes"] / 1e6,
        sha256=results["sha256"],
        labels=", ".join(EXPRESSIONS),
        latency=_latency(results["model"]),
        cost=cost_in_words(results),
        temperature=(
            "none: the logits are the network's own"
            if results["temperature"] == 1
            else f"{results['temperature']:.3f}, fitted on {validation}; the weights hold it already"
        ),
        figures=_figures(results["splits"]) + _seeds(arch, config),
        unmeasured=UNMEASURED if any("flip_accuracy" not in results["splits"][key] for key in SPLITS) else "",
        reads=_reads(results),
        header=" | ".join(EXPRESSIONS),
        rule="|".join(["--:"] * len(EXPRESSIONS)),
        recalls="\n".join(
            f"| {title} | "
            + " | ".join(f"{results['splits'][key]['recall'][e]:.1f}" for e in EXPRESSIONS)
            + " |"
            for key, title in ROWS.items()
            if key in results["splits"]
        ),
        counts="\n".join(
            f"| *images of {title}* | "
            + " | ".join(str(sum(row)) for row in results["splits"][key]["confusion"])
            + " |"
            for key, title in ROWS.items()
            if key.startswith("test_clean") and key in results["splits"]
        ),
        missed=_missed(results),
        tried=_tried(arch) if tag == "fer2013" else "",
        command=_command(arch, tag, recipe, config["recipe"]["seed"]),
        trainings=_trainings(arch, tag, recipe),
        best=result["best"]["epoch"],
        epochs=config["recipe"]["epochs"],
        seed=config["recipe"]["seed"],
        precision=config["recipe"]["precision"],
        training="The last" if led_up_to else "That",
        validation=validation,
        annotators=VOTERS if votes else ANNOTATORS,
        dropout=_dropout(config["recipe"]["drop_rate"]),
        minutes=result["train_seconds"] / 60,
        hardware=_hardware(config["hardware"]),
        speed=seen(config["recipe"], result) / result["train_seconds"],
        torch=config["versions"]["torch"],
        git=config["git"],
    )


def _command(arch: str, tag: str, recipe: str, seed: int) -> str:
    """What makes the weight file again."""
    if not reproducible(arch, tag, recipe):
        return "python train/flagship.py --data path/to/fer2013"
    best = f" --seeds {seed + 1}" if tag == "fer2013" else ""
    return f"python train/reproduce.py --only {arch}.{tag}{best} --data path/to/fer2013"


def _trainings(arch: str, tag: str, recipe: str) -> str:
    """What a file comes from, in order: networks and their recipes in `train/recipes`."""
    if not reproducible(arch, tag, recipe):
        return "the seeds, folds, teachers and students that this is one of"
    # no links: on the Hub a card has no recipes beside it
    return ", ".join(
        f"`{model}` by `{name}`"
        + (f" ({SHORTER[model, name]} epochs of it)" if (model, name) in SHORTER else "")
        for model, name in (*needs(arch, recipe), (arch, recipe))
    )


def _hardware(name: str) -> str:
    count, _, device = name.partition(" x ")
    local = count != "1" and "thread" in device  # on GPUs BatchNorm is synchronised
    return name + (", each process with BatchNorm of its own share of a batch" if local else "")


def _latency(model: str) -> str:
    """Milliseconds by `train/benchmark_onnx.py`."""
    found = read_results("benchmark-onnx", {"models": {}})
    if model not in found["models"]:
        return "not measured"
    times = {kind: ms["1"] for kind, ms in found["models"][model]["milliseconds"].items()}
    return f"{times['torch']:.2f} ms in PyTorch, {times['onnx']:.2f} ms by ONNX ({found['hardware']})"


def _dropout(rate: float | None) -> str:
    return "the network's own dropout" if rate is None else f"a dropout of {rate:g}"


def _seeds(arch: str, config: dict) -> str:
    """Mean, deviation and ensemble of several runs that differ from the file's in the seed, if there are."""
    found = [json.loads(file.read_text()) for file in sorted(RESULTS_DIR.glob(f"seeds-{arch}.*.json"))]
    own = (config.get("labels", "fer2013"), config.get("teacher"), without_seed(config["recipe"]))
    alike = [row for row in found if (row["labels"], row["teacher"], without_seed(row["recipe"])) == own]
    if not alike:
        return ""
    results, seed = alike[0], config["recipe"]["seed"]
    lines = [
        f"\n\n| {len(results['seeds'])} seeds: mean ± standard deviation; ensemble ± 95 % interval "
        "| accuracy % | flipped too % | ensemble % | ensemble, flipped too % |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, title in ROWS.items():
        if row := results["splits"].get(key):
            single = " | ".join(
                f"{row['mean'][figure]:.2f} ± {row['sd'][figure]:.2f}"
                for figure in ("accuracy", "flip_accuracy")
            )
            joint = " | ".join(
                f"{value:.2f} ± {half_interval(value, row['ensemble']['n']):.2f}"
                for value in (row["ensemble"][figure] for figure in ("accuracy", "flip_accuracy"))
            )
            lines.append(f"| {title} | {single} | {joint} |")
    best = results["best_on_clean_validation"]
    which = "the file's" if seed == best else f"{best}, the file's {seed}"
    count = len(results["seeds"])
    kin = (
        " All went on from one run: seeds from scratch would differ by more." if results.get("start") else ""
    )
    return "\n".join(lines) + (
        f"\n\nThe seed that is best on clean validation is {which}. "
        f"Test was read once more for each of the {count} seeds, and for their ensemble.{kin}"
    )


def _tried(arch: str) -> str:
    """What the search for the recipe found, where there was one."""
    results = read_results(f"search-{arch}", {})
    if not results:
        return ""
    base, *_ = results["trials"]
    half = half_interval(np.mean(base["accuracy"]), results["validation_images"])
    of = "" if base["model"] == arch else f" of `{base['model']}` of train/trials.py"
    return (
        f"## What was tried\n\nOne change{of} at a time, {results['epochs']} epochs. Accuracy is that on "
        f"clean validation, the mean of the last five epochs, and has a 95 % interval of ± {half:.1f}, other "
        "seeds apart: small differences decide nothing, and longer trainings may ask for other changes. "
        f"Milliseconds are those of one face in PyTorch on {results['timed_on']}, and minutes those of a "
        f"training beside others.\n\n{search_table(results['trials'])}\n\n"
    )


def _figures(splits: dict[str, dict]) -> str:
    """Rows of figures, and below a split that has them, those before the temperature."""
    lines = [
        "| | n | " + " | ".join(title for title, *_ in COLUMNS) + " |",
        "|---|" + "--:|" * (1 + len(COLUMNS)),
    ]
    for key, title in ROWS.items():
        if key not in splits:
            continue
        figures = splits[key]
        lines.append(f"| {title} | {figures['n']:,} | {_cells(figures, absent='not measured')} |")
        before = figures.get("uncalibrated")
        if before and before["nll"] != figures["nll"]:
            lines.append(f"| … before the temperature | | {_cells(before, absent='')} |")
    return "\n".join(lines)


def _cells(figures: dict, absent: str) -> str:
    cells = {key: f"{figures[key]:.{digits}f}" if key in figures else absent for _, key, digits in COLUMNS}
    for key in {"accuracy", "flip_accuracy"} & figures.keys():
        cells[key] += f" ± {half_interval(figures[key], figures['n']):.2f}"
    return " | ".join(cells.values())


def _reads(results: dict) -> str:
    lines = map(json.loads, (RESULTS_DIR / TEST_READS).read_text().splitlines())
    files = [line["sha256"] for line in lines if line["model"] == results["model"]]
    own = files.count(results["sha256"])
    earlier = len(files) - own
    text = f"{_times(own)} for this file"
    if earlier:
        text += f" and {_times(earlier)} for earlier ones of its name"
    return f"{text} ([log](results/{TEST_READS}))"


def _missed(results: dict) -> str:
    """The three expressions that are recognized least, on clean test."""
    recall = judged(results, "test_clean")["recall"]
    first, second, third = sorted(EXPRESSIONS, key=recall.get)[:3]
    return f"{first}, {second} and {third}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
