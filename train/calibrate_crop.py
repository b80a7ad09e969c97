"""Measure how FER2013 frames faces, for `fer_zoo.faces.crop_face`.

    python train/calibrate_crop.py --data SOURCE

Runs the face detectors over FER2013's own images and prints where the face lies in them, as shares of the
image's side, and which rule to find that frame again from a detection varies least. A good rule has a small
spread: the interquartile range of what it would have to say to hit every image's frame exactly.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from tqdm import tqdm

from fer_zoo.data import DataError, load_fer2013, to_arrays
from fer_zoo.faces import Detection, DetectorError, FaceDetector, get_detector


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="any source that fer_zoo.data.load_fer2013 reads")
    parser.add_argument("--split", default="train", choices=("train", "validation"))
    parser.add_argument("--images", type=int, default=3000, help="how many, evenly spread over the split")
    parser.add_argument("--detectors", nargs="+", default=["mtcnn", "yunet"])
    args = parser.parse_args()
    try:
        detectors = {name: get_detector(name) for name in args.detectors}
        images, _ = to_arrays(load_fer2013(args.data)[args.split])
    except (DataError, DetectorError, ValueError) as error:
        parser.error(str(error))
    picked = images[np.linspace(0, len(images) - 1, min(args.images, len(images))).astype(int)]
    for name, detector in detectors.items():
        report(name, picked, detector)
    return 0


def report(name: str, images: np.ndarray, detector: FaceDetector) -> None:
    """Print one detector's numbers over (N, H, W) uint8 images."""
    found = [detector.detect(np.stack([image] * 3, axis=-1)) for image in tqdm(images, name, disable=None)]
    best = [faces[0] for faces in found if faces]
    print(f"\n{name}: a face in {len(best)} of {len(images)} images")
    side = images.shape[1]
    lengths = {key: np.array(values) / side for key, values in measure(best, lengths_of).items()}
    points = {key: np.array(values) / side for key, values in measure(best, points_of).items()}

    print("  share of the image's side            q25  median     q75")
    for key, values in lengths.items():
        print(f"    {key:28}{quartiles(values)}")
    for key, values in points.items():
        print(f"    {key + ', x':28}{quartiles(values[:, 0])}")
        print(f"    {key + ', y':28}{quartiles(values[:, 1])}")

    print("  side of the frame / length           q25  median     q75   spread/median")
    for key, values in lengths.items():
        ratio = 1 / values
        print(f"    {key:28}{quartiles(ratio)}{spread(ratio) / np.median(ratio):12.3f}")

    print("  centre of the frame - point: median x, y in units of the length, spread x, y in image sides")
    for length, values in lengths.items():
        for point, places in points.items():
            offset = (0.5 - places) / values[:, None]
            middle = np.median(offset, axis=0)
            missed = places + middle * values[:, None]
            print(
                f"    {point + ' by ' + length:44}{middle[0]:8.3f}{middle[1]:8.3f}"
                f"{spread(missed[:, 0]):8.3f}{spread(missed[:, 1]):8.3f}"
            )


def measure(faces: list[Detection], what) -> dict[str, list]:
    """The measures of every face, by name."""
    rows = [what(face) for face in faces]
    return {key: [row[key] for row in rows] for key in rows[0]}


def lengths_of(face: Detection) -> dict[str, float]:
    """Lengths that grow with a face, in pixels."""
    x1, y1, x2, y2 = face.box
    left_eye, right_eye, _, left_mouth, right_mouth = face.landmarks
    eyes = float(np.hypot(*(right_eye - left_eye)))
    eye_mouth = float(np.hypot(*((left_mouth + right_mouth) - (left_eye + right_eye)) / 2))
    return {
        "box width": x2 - x1,
        "box height": y2 - y1,
        "box side (root of area)": float(np.sqrt((x2 - x1) * (y2 - y1))),
        "between the eyes": eyes,
        "eyes to mouth": eye_mouth,
        "eyes + eyes to mouth": eyes + eye_mouth,
        "larger of these two": max(eyes, eye_mouth),
        "spread of landmarks": float(np.sqrt(face.landmarks.var(axis=0).sum())),
    }


def points_of(face: Detection) -> dict[str, np.ndarray]:
    """Points of a face, (2,) in pixels."""
    x1, y1, x2, y2 = face.box
    return {
        "centre of the box": np.array([(x1 + x2) / 2, (y1 + y2) / 2]),
        "middle of the eyes": face.landmarks[:2].mean(axis=0),
        "middle of eyes and mouth": face.landmarks[[0, 1, 3, 4]].mean(axis=0),
        "mean of landmarks": face.landmarks.mean(axis=0),
    }


def quartiles(values: np.ndarray) -> str:
    return "".join(f"{q:8.3f}" for q in np.quantile(values, (0.25, 0.5, 0.75)))


def spread(values: np.ndarray) -> float:
    low, high = np.quantile(values, (0.25, 0.75))
    return float(high - low)


if __name__ == "__main__":
    sys.exit(main())
