"""How well models read faces that are turned, blurred, noisy, dark, covered or badly cut out.

    python train/robustness.py --data SOURCE

All packaged weights, on clean validation, so that the figures may decide which model is the default: the
one with the highest mean of its accuracy over these conditions and its macro-F1 against the majority of FER+
(Barsoum et al. 2016, arXiv:1608.01041). The table goes into model_cards/results/robustness.json; weights that
stand there already, with the same sha256, are not measured again.
"""

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2 import functional as TF
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.loading import load_model
from fer_zoo.metrics import scores
from train import ferplus
from train.augment import GRAY, Augmentation, augment
from train.cli import add_data_arguments, create_parser, load_data, run
from train.evaluate import add_weights_arguments, out_of, packaged
from train.files import RESULTS_DIR, sha256, write_json
from train.predict import predict

FILE = RESULTS_DIR / "robustness.json"


def turned(degrees: float) -> Callable:
    """Rotates by so many degrees, the border continued."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    theta = torch.tensor([[cos, -sin, 0], [sin, cos, 0]])
    return lambda x: _sampled(x, theta.expand(len(x), 2, 3))


def badly_cut(x: torch.Tensor) -> torch.Tensor:
    """A box whose place and size are wrong by up to 15 % of its side."""
    generator = torch.Generator().manual_seed(0)
    wrong = torch.empty(len(x), 3).uniform_(-0.15, 0.15, generator=generator)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + wrong[:, 0]
    theta[:, :, 2] = 2 * wrong[:, 1:]
    return _sampled(x, theta)


def noisy(x: torch.Tensor) -> torch.Tensor:
    """Gaussian noise of a standard deviation of 20 of 255."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + 20 * noise).clamp(0, 255).round().byte()


def small(x: torch.Tensor) -> torch.Tensor:
    """Reduced to half of its side, and enlarged again."""
    return F.interpolate(F.avg_pool2d(x.float(), 2), scale_factor=2, mode="bilinear").round().byte()


def covered(top: int) -> Callable:
    """Gray in place of half of the face, from row `top` on."""
    return lambda x: TF.erase(x, top, 0, 24, 48, torch.tensor(round(GRAY)))


def compressed(x: torch.Tensor) -> torch.Tensor:
    """JPEG of quality 20."""
    faces = []
    for (image,) in x.numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=20)
        faces.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(faces)).unsqueeze(1)


# Each from uint8 (N, 1, 48, 48) to the same.
CONDITIONS = {
    "as they are": lambda x: x,
    "turned -30°": turned(-30),
    "turned +30°": turned(30),
    "blur, sigma 1.5": lambda x: TF.gaussian_blur(x, [9, 9], [1.5, 1.5]),
    "noise": noisy,
    "JPEG 20": compressed,
    "24 pixels": small,
    "dark": lambda x: TF.adjust_brightness(x, 0.5),
    "bright": lambda x: TF.adjust_brightness(x, 1.6),
    "low contrast": lambda x: TF.adjust_contrast(x, 0.4),
    "high contrast": lambda x: TF.adjust_contrast(x, 1.8),
    "upper half covered": covered(0),
    "lower half covered": covered(24),
    "badly cut out": badly_cut,
}


def _sampled(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    return augment(x, Augmentation(theta)).round().byte()


def measure(images: torch.Tensor, labels: torch.Tensor, majority: torch.Tensor, paths: list[Path]) -> dict:
    """The table.

    Args:
        images: uint8 (N, 1, 48, 48).
        labels: int64 (N,).
        majority: int64 (N,), of FER+'s votes; -1 where there is none.
        paths: Weight files.

    Returns:
        JSON-able, by model: the file's `sha256`, `accuracy` in percent by condition, their `mean`,
        `ferplus_macro_f1` in percent, and `merit`, the mean of the two.
    """
    changed = {name: change(images) for name, change in tqdm(CONDITIONS.items(), "faces", disable=None)}
    decided = majority >= 0
    found = {}
    for path in tqdm(paths, "models", disable=None):
        model = load_model(path).eval()
        logits = {name: predict(model, faces) for name, faces in changed.items()}
        accuracy = {
            name: 100 * (each.argmax(1) == labels).float().mean().item() for name, each in logits.items()
        }
        mean = sum(accuracy.values()) / len(accuracy)
        f1 = scores(logits["as they are"][decided], majority[decided])["macro_f1"]
        found[path.stem] = {
            "sha256": sha256(path),
            "accuracy": accuracy,
            "mean": mean,
            "ferplus_macro_f1": f1,
            "merit": (mean + f1) / 2,
        }
    return found


def still_true(paths: list[Path], file: Path, fingerprint: str) -> dict:
    """The figures stored in `file` of those weights that have not changed, under conditions of today's names.

    A condition that changes needs another name, or --out another file. Nothing where they are of other data
    than those of `fingerprint`.
    """
    results = json.loads(file.read_text()) if file.exists() else {}
    stored = results["models"] if results.get("data") == fingerprint else {}
    return {
        path.stem: row
        for path in paths
        if (row := stored.get(path.stem))
        and row["sha256"] == sha256(path)
        and list(row["accuracy"]) == list(CONDITIONS)
    }


def table(file: Path = FILE) -> str:
    """The figures stored in `file` as Markdown, a column a model, best first."""
    found = json.loads(file.read_text())["models"]
    names = sorted(found, key=lambda name: -found[name]["merit"])
    lines = ["| clean validation | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|---|" + "--:|" * len(names))
    for condition in CONDITIONS:
        cells = " | ".join(f"{found[name]['accuracy'][condition]:.1f}" for name in names)
        lines.append(f"| {condition} | {cells} |")
    for key, title in (
        ("mean", "mean"),
        ("ferplus_macro_f1", "macro-F1, FER+ majority"),
        ("merit", "mean of both"),
    ):
        lines.append(f"| **{title}** | " + " | ".join(f"**{found[name][key]:.1f}**" for name in names) + " |")
    return "\n".join([*lines, "", f"The highest mean of both is that of `{names[0]}`."])


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    add_weights_arguments(parser)
    args = parser.parse_args()
    out = out_of(args, FILE)
    data = load_data(args, strict=out.resolve() == FILE)
    clean = data.clean("validation")
    faces = data["validation"][clean]
    majority = torch.from_numpy(ferplus.majority(ferplus.votes_of(data, "validation"))[clean])
    images, labels = torch.from_numpy(faces.images).unsqueeze(1), torch.from_numpy(faces.labels)
    paths = packaged(args.weights)
    found = still_true(paths, out, data.fingerprint)
    found |= measure(images, labels, majority, [path for path in paths if path.stem not in found])
    results = {
        "split": "validation_clean",
        "data": data.fingerprint,
        "images": len(labels),
        "ferplus_images": int((majority >= 0).sum()),
        "models": dict(sorted(found.items())),
    }
    write_json(out, results)
    print(table(out))


if __name__ == "__main__":
    run(main)
