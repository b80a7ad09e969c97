"""Measure how FER2013 frames faces, and how well `fer_zoo.faces.face_frame` finds that frame again.

    python train/calibrate_crop.py --data SOURCE [--split validation --model fer_cbam]

Runs the face detectors over FER2013's own images and prints quartiles: where the face lies, in shares of the
image's side; by how much each length must be multiplied to give that side (the best is the one with the least
spread); where between eyes and mouth the centre lies; and what `face_frame` says, which should be side 1 and
centre (0.5, 0.5). With a model, its accuracy on the images as they are and as cut by that rule.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.faces import Detection, crop_face, face_frame, get_detector
from fer_zoo.loading import load_model
from fer_zoo.preprocess import to_input
from train.cli import add_data_arguments, create_parser, load_data, run


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    parser.add_argument("--split", default="train", choices=("train", "validation"))
    parser.add_argument("--images", type=int, default=3000, help="how many, evenly spread over the split")
    parser.add_argument("--detectors", nargs="+", default=["mtcnn", "yunet"])
    parser.add_argument("--model", help="also compare its accuracy; sensible on the validation split")
    args = parser.parse_args()
    detectors = {name: get_detector(name) for name in args.detectors}
    model = load_model(args.model).eval() if args.model else None
    split = load_data(args)[args.split]
    images, labels = split.images, split.labels
    picked = np.linspace(0, len(images) - 1, min(args.images, len(images))).astype(int)
    for name, detector in detectors.items():
        found, faces, photos = [], [], []
        for index in tqdm(picked, name, disable=None):
            # Five times the size, so that rounding to pixels costs nothing.
            photo = Image.fromarray(images[index]).resize((240, 240), Image.Resampling.BICUBIC).convert("RGB")
            best = detector.detect(np.asarray(photo))[:1]
            if best:
                found.append(index)
                faces += best
                photos.append(np.asarray(photo))
        print(f"\n{name}: a face in {len(found)} of {len(picked)} images       q25  median     q75")
        report(faces, side=240)
        if model is not None:
            crops = [crop_face(photo, face) for photo, face in zip(photos, faces, strict=True)]
            print(f"  accuracy of {args.model} on these images")
            print(f"    as they are {accuracy(model, images[found], labels[found]):9.1%}")
            print(f"    cut out again {accuracy(model, crops, labels[found]):7.1%}")


def report(faces: Sequence[Detection], side: int) -> None:
    """Print the quartiles over one face per image of `side` pixels."""
    boxes = np.array([face.box for face in faces]) / side
    points = np.array([face.landmarks for face in faces]) / side
    eyes, mouth = points[:, :2].mean(axis=1), points[:, 3:].mean(axis=1)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    lengths = {
        "box width": width,
        "box height": height,
        "root of box area": np.sqrt(width * height),
        "between the eyes": np.linalg.norm(points[:, 1] - points[:, 0], axis=1),
        "eyes to mouth": np.linalg.norm(mouth - eyes, axis=1),
        "spread of landmarks": np.sqrt(points.var(axis=1).sum(axis=1)),
    }
    places = {"box centre": (boxes[:, :2] + boxes[:, 2:]) / 2, "middle of the eyes": eyes}

    print("  share of the image's side")
    for name, values in lengths.items():
        show(name, values)
    for name, values in places.items():
        show(f"{name}, x", values[:, 0])
        show(f"{name}, y", values[:, 1])

    print("  image's side / length                                      spread / median")
    for name, values in lengths.items():
        low, median, high = np.quantile(1 / values, (0.25, 0.5, 0.75))
        show(name, 1 / values, f"{(high - low) / median:12.3f}")

    print("  image's centre on the way from the eyes (0) to the mouth (1)")
    way = mouth - eyes
    show("share of the way", ((0.5 - eyes) * way).sum(axis=1) / (way**2).sum(axis=1))

    print("  what face_frame finds")
    frames = np.array([face_frame(face) for face in faces]) / side
    for name, values in zip(("centre, x", "centre, y", "side"), frames.T, strict=True):
        show(name, values)


def show(name: str, values: np.ndarray, more: str = "") -> None:
    print(f"    {name:32}" + "".join(f"{q:8.3f}" for q in np.quantile(values, (0.25, 0.5, 0.75))) + more)


def accuracy(model: nn.Module, images: Sequence, labels: np.ndarray) -> float:
    with torch.inference_mode():
        batches = [to_input(images[i : i + 256], model) for i in range(0, len(images), 256)]
        predicted = torch.cat([model(x).argmax(dim=1) for x in batches])
    return float((predicted.numpy() == labels).mean())


if __name__ == "__main__":
    run(main)
