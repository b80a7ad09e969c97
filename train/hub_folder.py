"""What a repository on the Hub holds, as a folder: weights with their card, or the Space."""

import json
import re
import shutil
from pathlib import Path

import timm
from huggingface_hub import EvalResult, ModelCardData, RepoCard, SpaceCardData
from safetensors import safe_open
from timm.models._hub import save_config_for_hf

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from train.cards import ROWS, SPLITS
from train.evaluate import packaged, weight_file
from train.files import RESULTS_DIR, sha256, with_metadata

ROOT = Path(__file__).resolve().parent.parent
CARDS_DIR = RESULTS_DIR.parent

METRICS = (
    ("accuracy", "accuracy", "accuracy %"),
    ("f1", "macro_f1", "macro-F1 %"),
    ("expected_calibration_error", "ece", "ECE %"),
    ("negative_log_likelihood", "nll", "NLL"),
    ("brier_score", "brier", "Brier"),
)

ON_THE_HUB = """\
## From the Hub

```python
import fer_zoo, timm
from fer_zoo import Recognizer
from transformers import pipeline

model = timm.create_model("hf-hub:{repo}", pretrained=True)  # RGB 3x48x48; in_chans=1 for gray
recognizer = Recognizer("hf-hub:{repo}")  # from any photo to its faces and their expressions
classify = pipeline("image-classification", model="{repo}")  # of a picture that is one face
```

"""
SPACE = """\
# fer-zoo

Facial expressions in photos, in clips and before the camera, and the evidence for each on the face. The
weights are part of this Space; what it is shown is read by the machine that runs it, passed on to no one,
and deleted after about an hour.

![A photo with one face, its seven probabilities and a Grad-CAM](docs/photo.jpg)
"""


def write_model(name: str, folder: Path, repo: str) -> None:
    """Writes `model.safetensors`, `config.json`, `README.md` and the files that it links to.

    The tensors are the packaged ones to the byte. The config asks for RGB, through the networks' fixed luma,
    since transformers' pipeline makes every picture RGB.

    Args:
        name: Packaged weights, "arch.tag".
        folder: Is made, or emptied, once nothing speaks against it.
        repo: "owner/name", for the card.

    Raises:
        ValueError: There are no such weights, or no results file or card of exactly these.
    """
    results = checked_results(name)
    card = load_card(name, results)
    _empty(folder)
    weights = folder / "model.safetensors"
    content = weight_file(name).read_bytes()
    weights.write_bytes(with_metadata(content, results_sha256=sha256(RESULTS_DIR / f"{name}.json")))
    write_config(name, folder / "config.json", results["temperature"])

    links = re.findall(r"\]\(((?:figures|results)/[^)]+)\)", card)
    for link in [*links, f"results/{name}.json"]:
        (folder / link).parent.mkdir(exist_ok=True)
        shutil.copy(CARDS_DIR / link, folder / link)
    card = card.replace(results["sha256"], sha256(weights))
    head, mark, tail = card.partition("## How well it reads")
    text = f"{head}{ON_THE_HUB.format(repo=repo)}{mark}{tail}"
    (folder / "README.md").write_text(f"---\n{front_matter(results).to_yaml()}\n---\n\n{text}")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def checked_results(name: str) -> dict:
    """The results file of packaged weights.

    Raises:
        ValueError: It is missing, or is not of these weights, or their labels are not in this zoo's order.
    """
    weights, file = weight_file(name), RESULTS_DIR / f"{name}.json"
    score = f"run python train/evaluate.py --model {name} --split validation, then test"
    if not file.exists():
        raise ValueError(f"{name}: no results file says how well these weights read: {score}")
    results = json.loads(file.read_text())
    if results["sha256"] != sha256(weights):
        raise ValueError(f"{name}: its results file is of other weights: {score}")
    if missing := [title for split, title in SPLITS.items() if split not in results["splits"]]:
        raise ValueError(f"{name}: its results file lacks {missing[0]}: {score}")
    with safe_open(weights, framework="pt") as tensors:
        labels = json.loads((tensors.metadata() or {}).get("label_names", "[]"))
    if tuple(labels) != EXPRESSIONS:
        raise ValueError(
            f"{name}: its labels are {', '.join(labels) or 'not named'}, not {', '.join(EXPRESSIONS)}"
        )
    return results


def load_card(name: str, results: dict) -> str:
    """The text of a card.

    Raises:
        ValueError: It is missing, or not of the weights that these results are of.
    """
    file = CARDS_DIR / f"{name}.md"
    card = file.read_text() if file.exists() else ""
    if results["sha256"] not in card:
        raise ValueError(f"{name}: its card is not of these weights: run python train/report.py")
    return card


def write_config(name: str, path: Path, temperature: float) -> None:
    """timm's config.json of a three-channel model, in a form that transformers takes as well.

    Args:
        name: Packaged weights, "arch.tag".
        path: The file.
        temperature: What the logits were divided by; a record, for the weights hold it already.
    """
    model = timm.create_model(name, in_chans=3)
    gray = model.pretrained_cfg
    size = (3, *gray["input_size"][1:])
    save_config_for_hf(
        model,
        path,
        model_config={
            "label_names": EXPRESSIONS,
            "temperature": temperature,
            "dtype": "float32",  # else transformers computes in float16
        },
        data_config={"input_size": size, "mean": gray["mean"] * 3, "std": gray["std"] * 3},
    )
    config = json.loads(path.read_text())
    config["model_args"].pop("num_classes", None)  # transformers' wrapper passes it, too
    path.write_text(json.dumps(config, indent=2) + "\n")


def front_matter(results: dict) -> ModelCardData:
    """The Hub's data of a card, with the figures of the results file."""
    return ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        license="apache-2.0",
        datasets=["fer2013"],
        tags=["timm", "transformers", "facial-expression-recognition", "emotion-recognition"],
        metrics=["accuracy", "f1"],
        model_name=results["model"],
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type="fer2013",
                dataset_name=f"FER2013, {title}",
                dataset_split=split,
                metric_type=kind,
                metric_name=metric,
                metric_value=round(results["splits"][split][key], 4),
            )
            for split, title in ROWS.items()
            if split in results["splits"]
            for kind, key, metric in METRICS
        ],
    )


def write_space(folder: Path, repo: str) -> None:
    """Writes the Space: the app, the package with its weights, and what they show.

    Args:
        folder: Is made, or emptied, once nothing speaks against it.
        repo: "owner/name", for the address of the thumbnail; the models are the owner's, too.

    Raises:
        ValueError: Weights have no results file or card of theirs.
    """
    models = [path.stem for path in packaged(WEIGHTS_DIR)]
    for model in models:
        load_card(model, checked_results(model))
    _empty(folder)
    skip = shutil.ignore_patterns("__pycache__", "*.tmp", ".*")
    for part in ("fer_zoo", "space", "examples"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=skip)
    cards = [CARDS_DIR / f"{model}.md" for model in models]  # without their figures, which no tab shows
    shown = [path.relative_to(ROOT) for path in (*cards, *sorted(RESULTS_DIR.glob("*.json")))]
    for file in ("app.py", "requirements.txt", "LICENSE", "docs/photo.jpg", *shown):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    data: SpaceCardData = RepoCard.load(ROOT / "README.md").data
    data.models = [f"{repo.partition('/')[0]}/{model}" for model in models]
    data.thumbnail = f"https://huggingface.co/spaces/{repo}/resolve/main/docs/photo.jpg"
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n\n{SPACE}")
