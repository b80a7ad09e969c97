"""What the tabs share: the models, and the visitors' files."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

import gradio as gr
import numpy as np
import timm
from gradio.data_classes import FileData, ImageData
from gradio.utils import get_upload_folder
from PIL import Image
from torch import nn

from fer_zoo.faces import WORK_SIDE, Detection, FaceDetector, detect_reduced, get_detector
from fer_zoo.images import ImageError, load_image
from fer_zoo.loading import PREFERRED, load_model
from fer_zoo.recognizer import Face, Recognizer
from fer_zoo.thresholds import sure_from

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
RESULTS = ROOT / "model_cards" / "results"

KEPT_SECONDS = 3600
MAX_FACES = 50  # of one photo, the largest
REDUCTION = 0.6  # of a picture's size, where faces are looked for
REDUCED_SIDE = 360  # pixels; the longer side is not reduced below this
FACE_SIZE = 384  # pixels of a face and its map on the screen
DELETED = "This {} was deleted in the meantime; please add it again."

# Weights that need no download, the preferred first. Visitors choose among these only.
MODELS = [
    name
    for name in dict.fromkeys((*PREFERRED, *timm.list_pretrained("fer_*")))
    if timm.get_pretrained_cfg(name).file
]


@cache
def network(model: str) -> nn.Module:
    return load_model(model)


class Reduced:
    """Looks for faces in a smaller copy; they are cut out of the picture itself.

    MTCNN takes 36 ms, not 74, for a camera's 640x480, and 66, not 143, for 1,000 pixels. Pictures of 1,600
    and more are left to it as they are: it never works on more than 960 pixels. It finds faces from 24
    pixels on, so those under 40 pixels are missed: the models read 48.
    """

    def __init__(self, detector: FaceDetector):
        self.detector = detector

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        longest = max(rgb.shape[:2])
        scale = max(REDUCTION, REDUCED_SIDE / longest)
        return detect_reduced(self.detector, rgb, 1 if scale * longest >= WORK_SIDE[1] else scale)


@cache
def detector(faces: str) -> FaceDetector:
    return Reduced(detector("auto")) if faces == "reduced" else get_detector(faces)


@cache
def recognizer(model: str, faces: str = "reduced") -> Recognizer:
    """A model with a detector: "reduced", or one of `fer_zoo.faces.DETECTORS`."""
    reader = Recognizer(network(model), faces=detector(faces))
    reader.sure_from = sure_from(model)  # which a network alone does not tell
    return reader


def uploaded(file: ImageData | FileData | None) -> str | None:
    """The path of a file that a visitor uploaded; no other file of this machine is read."""
    if file is None:
        return None
    if not file.path or not Path(file.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("A file must be uploaded first.")
    return file.path


def new_file(name: str) -> Path:
    """A path where Gradio serves files from, and deletes them with the visitors' own."""
    return Path(tempfile.mkdtemp(dir=get_upload_folder())) / name


def open_uploaded(path: str) -> io.BytesIO:
    """A visitor's file; its name is the one that the visitor gave it, without where the server put it.

    Raises:
        FileNotFoundError: It was deleted in the meantime.
    """
    file = io.BytesIO(Path(path).read_bytes())
    file.name = Path(path).name
    return file


def read_image(path: str) -> Image.Image:
    """A visitor's photo.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        return load_image(open_uploaded(path))
    except FileNotFoundError:
        raise ImageError(DELETED.format("photo")) from None


def read_photo(path: str, model: str, whole: bool) -> tuple[Image.Image, list[Face]]:
    image = read_image(path)
    return image, recognizer(model, "whole" if whole else "reduced")(image)[:MAX_FACES]


def photo_input(elem_id: str) -> gr.Image:
    """Where a visitor gives a photo; its value is the path of the file as it was uploaded."""
    photo = gr.Image(
        label="Photo",
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        height=320,
        elem_id=elem_id,
    )
    # gr.Image opens and often re-encodes every file, and answers those it cannot read in Pillow's
    # words; `load_image` reads more formats and says what is wrong. So it gets the file itself.
    photo.preprocess = uploaded
    return photo


def scroll_to(elem_id: str, photo: str) -> str:
    """JavaScript: on a phone the answer to a photo lies below the fold, be it only that there is none."""
    return f"""() => {{
      if (innerWidth < 640 && document.querySelector("#{photo} img"))
        document.querySelector("#{elem_id}").scrollIntoView({{ behavior: "smooth" }});
    }}"""


def model_input(elem_id: str) -> gr.Dropdown:
    info = "The first is this demo's choice; the tab Zoo says why, and what each one scores."
    return gr.Dropdown(MODELS, label="Model", info=info, elem_id=elem_id)
