"""Test faces with their Grad-CAM, drawn on the reader's machine: FER2013 is not ours to show."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fer_zoo import Recognizer
from fer_zoo.drawing import overlay
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from train.figures import new_figure, save
from train.predict import predict

PER_ROW = 4  # faces of each kind
SIZE = 144  # pixels of a face


def draw_gallery(model_name: str, images: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """A row an expression: faces read right, drawn at random, and those most confidently read wrong.

    Args:
        model_name: Packaged weights, or a .safetensors file.
        images: uint8 (N, H, W), the test split.
        labels: int64 (N,), whose the model learnt; those of an image below 0 are unknown.
        file: The PNG to write.
    """
    model = load_model(model_name).eval()
    recognizer = Recognizer(model, faces="whole")
    probs = predict(model, torch.from_numpy(images).unsqueeze(1)).softmax(1).numpy()
    confidence, predicted = probs.max(1), probs.argmax(1)
    rng = np.random.default_rng(0)
    figure = new_figure(4 * PER_ROW, 1.6 * len(EXPRESSIONS))
    grid = figure.subplots(len(EXPRESSIONS), 2 * PER_ROW, squeeze=False)
    for label, (name, row) in enumerate(zip(EXPRESSIONS, grid, strict=True)):
        right = np.flatnonzero((labels == label) & (predicted == label))
        wrong = np.flatnonzero((labels == label) & (predicted != label))
        right = rng.permutation(right)[:PER_ROW]
        wrong = wrong[np.argsort(-confidence[wrong])][:PER_ROW]
        for axes in row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(name)
        for chosen, cells in ((right, row[:PER_ROW]), (wrong, row[PER_ROW:])):
            for index, axes in zip(chosen, cells, strict=False):
                said = EXPRESSIONS[predicted[index]]
                axes.imshow(_beside(recognizer, images[index], said))
                axes.set_title(
                    f"{said} {confidence[index]:.0%}", fontsize=8, color="C2" if said == name else "C3"
                )
    figure.suptitle(
        f"{model_name}: left, read right; right, most confidently wrong. Grad-CAM of what it says"
    )
    save(figure, file, model_name)


def _beside(recognizer: Recognizer, image: np.ndarray, expression: str) -> Image.Image:
    face = Image.fromarray(image)
    heat = recognizer.explain(face).maps[expression]
    both = Image.new("RGB", (2 * SIZE, SIZE))
    both.paste(face.resize((SIZE, SIZE)), (0, 0))
    both.paste(overlay(face, heat, SIZE), (SIZE, 0))
    return both
