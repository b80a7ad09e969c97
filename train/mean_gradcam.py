"""Where a model looks: the mean Grad-CAM of each expression, and its share in the bands of eyes and mouth.

    python train/mean_gradcam.py --model fer_cbam.paper --data SOURCE

Over the faces of clean validation on which a detector finds eyes and mouth. A band reaches to either side by
a third of the way between the two. The picture and the shares go beside the other results.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.faces import get_detector
from fer_zoo.gradcam import gradcam, upsample_maps
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.preprocess import to_input
from fer_zoo.recognizer import load_model
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Arrays
from train.evaluate import RESULTS_DIR
from train.figures import FIGURES_DIR, draw_mean_maps
from train.files import write_atomic

BAND = 1 / 3  # half height, as a share of the way from eyes to mouth
ENLARGED = 5  # times, for the detector


def landmark_rows(images: np.ndarray) -> np.ndarray:
    """Heights of eyes and mouth, float (N, 2) in pixels from the top; nan where no face is found.

    Args:
        images: uint8 (N, H, W).
    """
    detector = get_detector("auto")
    rows = np.full((len(images), 2), np.nan)
    for i, image in enumerate(tqdm(images, "landmarks", disable=None)):
        size = (ENLARGED * image.shape[1], ENLARGED * image.shape[0])
        photo = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC).convert("RGB")
        for face in detector.detect(np.asarray(photo))[:1]:
            eyes, mouth = face.landmarks[:2, 1].mean(), face.landmarks[3:, 1].mean()
            rows[i] = eyes / ENLARGED, mouth / ENLARGED
    return rows


def bands(rows: np.ndarray, height: int) -> np.ndarray:
    """Which rows of pixels belong to the eyes and which to the mouth: (N, 2) -> bool (N, 2, height)."""
    reach = BAND * (rows[:, 1] - rows[:, 0])
    centre = np.arange(height) + 0.5
    return np.abs(centre - rows[:, :, None]) <= reach[:, None, None]


def class_maps(model: torch.nn.Module, faces: Arrays) -> np.ndarray:
    """Each face's Grad-CAM of its own label, float (N, H, W), sum 1, or 0 where the map is flat."""
    maps = []
    for start in tqdm(range(0, len(faces), 64), "Grad-CAM", disable=None):
        part = faces[np.arange(start, min(start + 64, len(faces)))]
        x = to_input(list(part.images), model)
        found = gradcam(model, x)[torch.arange(len(part)), torch.from_numpy(part.labels)]
        maps.append(upsample_maps(found[:, None], x.shape[2:])[:, 0])
    maps = torch.cat(maps).numpy()
    total = maps.sum((1, 2), keepdims=True)
    return np.divide(maps, total, out=np.zeros_like(maps), where=total > 0)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--model", default="fer_cbam.paper", help="packaged weights or a .safetensors file")
    add_data_arguments(parser)
    args = parser.parse_args()
    model = load_model(args.model).eval()
    data = load_data(args, strict=False)
    faces = data["validation"][data.clean("validation")]
    rows = landmark_rows(faces.images)
    seen = ~np.isnan(rows[:, 0]) & (rows[:, 0] < rows[:, 1])
    faces, rows = faces[seen], rows[seen]
    maps = class_maps(model, faces)
    height = faces.images.shape[1]
    inside = bands(rows, height)
    found, means = {}, {}
    for label, name in enumerate(EXPRESSIONS):
        chosen = (faces.labels == label) & (maps.sum((1, 2)) > 0)
        mass = maps[chosen].sum(2)
        eyes, mouth = ((mass * inside[chosen, part]).sum(1).mean() for part in (0, 1))
        area_eyes, area_mouth = (inside[chosen, part].mean() for part in (0, 1))
        found[name] = {
            "faces": int(chosen.sum()),
            "eyes": 100 * float(eyes),
            "mouth": 100 * float(mouth),
            "area_eyes": 100 * float(area_eyes),
            "area_mouth": 100 * float(area_mouth),
        }
        means[name] = (faces.images[chosen].mean(0), maps[chosen].mean(0))
    results = {"model": args.model, "split": "validation_clean", "band": BAND, "shares": found}
    write_atomic(RESULTS_DIR / "mean-gradcam.json", json.dumps(results, indent=2) + "\n")
    draw_mean_maps(results, means, FIGURES_DIR / "mean-gradcam.png")
    print(f"{'expression':<12}{'faces':>7}{'eyes %':>9}{'mouth %':>9}   of the area: eyes %, mouth %")
    for name, row in found.items():
        print(
            f"{name:<12}{row['faces']:>7}{row['eyes']:>9.1f}{row['mouth']:>9.1f}"
            f"{row['area_eyes']:>18.1f}{row['area_mouth']:>9.1f}"
        )


if __name__ == "__main__":
    run(main)
