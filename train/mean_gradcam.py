"""Where a model looks: the mean Grad-CAM of each expression, and its share in the bands of eyes and mouth.

    python train/mean_gradcam.py --model fer_cbam.paper --data SOURCE

Over the faces of clean validation on which a detector finds eyes and mouth. Where those of an expression are
fewer than 120, the first such faces of train fill them up. Bands reach to either side by a quarter, a third
and half of the way between the two, so that nothing hangs on their width. Shares and picture go beside the
other results; with --out, a picture beside that file.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.faces import FaceDetector, get_detector
from fer_zoo.gradcam import gradcam
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from fer_zoo.preprocess import to_input
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Arrays
from train.evaluate import weight_file
from train.figures import FIGURES_DIR, draw_mean_maps
from train.files import RESULTS_DIR, sha256, write_json

FILE = RESULTS_DIR / "mean-gradcam.json"
ENOUGH = 120  # faces of an expression
REACHES = (1 / 4, 1 / 3, 1 / 2)  # half heights of bands, as shares of the way from eyes to mouth
SHOWN = 1  # of these, in the picture
ENLARGED = 5  # times, for the detector


def landmark_rows(detector: FaceDetector, images: np.ndarray) -> np.ndarray:
    """Heights of eyes and mouth, float (N, 2) in pixels from the top; nan where no face is found.

    Args:
        detector: Gives landmarks.
        images: uint8 (N, H, W).
    """
    rows = np.full((len(images), 2), np.nan)
    for i, image in enumerate(tqdm(images, "landmarks", disable=None)):
        size = (ENLARGED * image.shape[1], ENLARGED * image.shape[0])
        photo = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).convert("RGB")
        for face in detector.detect(np.asarray(photo))[:1]:
            eyes, mouth = face.landmarks[:2, 1].mean(), face.landmarks[3:, 1].mean()
            rows[i] = eyes / ENLARGED, mouth / ENLARGED
    return rows


def bands(rows: np.ndarray, height: int, reach: float) -> np.ndarray:
    """Which rows of pixels belong to the eyes and which to the mouth: (N, 2) -> bool (N, 2, height)."""
    half = reach * (rows[:, 1] - rows[:, 0])
    centre = np.arange(height) + 0.5
    return np.abs(centre - rows[:, :, None]) <= half[:, None, None]


def class_maps(model: torch.nn.Module, faces: Arrays) -> np.ndarray:
    """Each face's Grad-CAM of its own label, float32 (N, H, W), sum 1, or 0 where the map is flat."""
    maps = np.zeros(faces.images.shape, np.float32)
    for start in tqdm(range(0, len(faces), 64), "Grad-CAM", disable=None):
        rows = np.arange(start, min(start + 64, len(faces)))
        part = faces[rows]
        found = gradcam(model, to_input(list(part.images), model))
        own = found[torch.arange(len(part)), torch.from_numpy(part.labels)]
        maps[rows] = F.interpolate(own[:, None], maps.shape[1:], mode="bilinear")[:, 0].numpy()
    total = maps.sum((1, 2), keepdims=True)
    return np.divide(maps, total, out=np.zeros_like(maps), where=total > 0)


def look(model: torch.nn.Module, detector: FaceDetector, faces: Arrays) -> tuple[np.ndarray, ...]:
    """The faces whose eyes and mouth are found and whose map is not flat, in their order.

    Returns:
        Their images, uint8 (N, H, W), maps, float32 (N, H, W), and heights of eyes and mouth, float (N, 2).
    """
    rows = landmark_rows(detector, faces.images)
    seen = rows[:, 0] < rows[:, 1]  # nan is not
    faces, rows = faces[seen], rows[seen]
    maps = class_maps(model, faces)
    shown = maps.sum((1, 2)) > 0
    return faces.images[shown], maps[shown], rows[shown]


def shares_of(maps: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """How much of the maps lies in each band, and how much of the picture does, in percent.

    Args:
        maps: float (N, H, W), sum 1 each.
        inside: bool (N, 2, H).

    Returns:
        For `eyes` and `mouth` the mean share, `..._ci95`, half its 95 % interval over the faces, and
        `area_...`, the band's share of the picture.
    """
    found = {}
    for part, name in enumerate(("eyes", "mouth")):
        each = 100 * (maps.sum(2) * inside[:, part]).sum(1)
        found[name] = float(each.mean())
        found[f"{name}_ci95"] = 1.96 * float(each.std()) / math.sqrt(len(each))
        found[f"area_{name}"] = 100 * float(inside[:, part].mean())
    return found


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--model", default="fer_cbam.paper", help="packaged weights or a .safetensors file")
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file (default: %(default)s)")
    args = parser.parse_args()
    weights = weight_file(args.model)
    published = args.out.resolve() == FILE
    data = load_data(args, strict=published)
    model, detector = load_model(weights).eval(), get_detector("auto")
    clean, train = data["validation"][data.clean("validation")], data["train"]
    found, means = {}, {}
    for label, name in enumerate(EXPRESSIONS):
        kept = look(model, detector, clean[clean.labels == label])
        missing = max(0, ENOUGH - len(kept[0]))
        if missing:
            more = look(model, detector, train[train.labels == label])
            kept = [np.concatenate([ours, theirs[:missing]]) for ours, theirs in zip(kept, more, strict=True)]
            missing = min(missing, len(more[0]))
        images, maps, rows = kept
        if not len(images):
            raise ValueError(f"eyes and mouth are found on no face that is {name}")
        inside = [bands(rows, maps.shape[1], reach) for reach in REACHES]
        found[name] = {"faces": len(images), "of_train": missing}
        found[name]["bands"] = [shares_of(maps, each) for each in inside]
        means[name] = (images.mean(0), maps.mean(0), inside[SHOWN].mean(0))
    results = {
        "model": weights.stem,
        "sha256": sha256(weights),
        "detector": type(detector).__name__.lower(),
        "split": "validation_clean",
        "reaches": REACHES,
        "shown": SHOWN,
        "shares": found,
    }
    write_json(args.out, results)
    picture = FIGURES_DIR / "mean-gradcam.png" if published else args.out.with_suffix(".png")
    draw_mean_maps(results, means, picture)
    print(
        f"{'expression':<12}{'faces':>7}{'of train':>10}{'eyes %':>9}{'mouth %':>9}   area: eyes %, mouth %"
    )
    for name, row in found.items():
        band = row["bands"][SHOWN]
        print(
            f"{name:<12}{row['faces']:>7}{row['of_train']:>10}{band['eyes']:>9.1f}{band['mouth']:>9.1f}"
            f"{band['area_eyes']:>18.1f}{band['area_mouth']:>9.1f}"
        )


if __name__ == "__main__":
    run(main)
