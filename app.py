"""The Space: faces in a photo, their expressions, and what speaks for each (`python app.py`).

Screens and events only; every computation is a call into `fer_zoo`.
"""

from __future__ import annotations

import io
import os
import signal
import sys

# Read by gradio on import: no usage statistics leave this machine.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import gradio as gr
import timm
import torch
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image
from torch import nn

from fer_zoo.drawing import draw_faces, overlay
from fer_zoo.faces import DetectorError
from fer_zoo.images import ImageError, load_image
from fer_zoo.labels import COLORS, EXPRESSIONS
from fer_zoo.recognizer import PREFERRED, Face, ModelError, Recognizer, default_model, load_model

EXAMPLES = Path(__file__).parent / "examples"
MAX_FILE_SIZE = "25mb"
KEPT_SECONDS = 3600
FACE_SIZE = 384  # pixels of a face and its map on the screen

# Weights that need no download, best architecture first. Visitors choose among these only.
MODELS = sorted(
    (name for name in timm.list_pretrained("fer_*") if timm.get_pretrained_cfg(name).file),
    key=lambda name: PREFERRED.index(name.partition(".")[0]),
)

TITLE = "# fer-zoo\nFaces in a photo, the expression each one shows, and what on the face speaks for it."
START = "Add a photo: upload, drag, paste, take a snapshot, or choose an example."
NO_FACE = (
    "No face found. A larger or more frontal face may help; if the whole picture is one face, "
    "tick “This picture is already a face”."
)
ABOUT = """
**What it reads.** Every face is cut out, turned gray, reduced to 48x48 pixels and given to a small network
that was trained on FER2013. The seven percentages say how much the picture resembles what people labelled
with these words. That is the *expression* in this one picture, never what the person feels. Blurred,
turned, covered or very small faces, and faces unlike those of FER2013, are read less well.

**The heat map** (Grad-CAM) shows which parts of the face raised the score of the chosen expression: nothing
where they did not, red, then yellow where they did most. All seven maps of a face share one scale, so they
can be compared.

**Privacy.** Photos are read by the machine that runs this page and passed on to no one. Nothing is stored
but a temporary copy, which is deleted after about an hour, or when the app ends. No part of the page comes
from another server.

**Where the law forbids it.** In the European Union, AI systems that infer emotions of people at work or in
education are prohibited, except for medical or safety reasons (EU AI Act, Art. 5(1)(f)). Do not use this
there, nor for decisions about people anywhere.
"""
CSS = """
.gradio-container > main { max-width: 1240px; margin: 0 auto; }
footer .divider { display: none; }
table.bars { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.bars caption { padding-bottom: 6px; text-align: left; }
table.bars :is(th, td) { padding: 3px 0; }
table.bars th { width: 5.5em; text-align: left; font-weight: 400; }
table.bars td:last-child { width: 4.2em; text-align: right; }
table.bars div { height: 1em; min-width: 2px; border-radius: 3px; }
table.bars tr.top :is(th, td) { font-weight: 700; }
"""
# A format that the browser cannot show (HEIC in most) leaves no broken picture: the result is shown anyway.
HEAD = """
<script>
for (const kind of ["error", "load"])
  document.addEventListener(kind, ({ target }) => {
    if (target.tagName === "IMG") target.style.visibility = kind === "error" ? "hidden" : "";
  }, true);
</script>
"""


@dataclass(frozen=True)
class Reading:
    """What is kept of a photo between two events: its faces, and how it was shown."""

    model: str
    faces: list[Face]
    scale: float  # pixels shown per pixel of the photo


@cache
def network(model: str) -> nn.Module:
    return load_model(model)


@cache
def recognizer(model: str, whole: bool = False) -> Recognizer:
    return Recognizer(network(model), faces="whole" if whole else "auto")


def read_photo(path: str, model: str, whole: bool) -> tuple[Image.Image, list[Face]]:
    try:
        file = io.BytesIO(Path(path).read_bytes())
    except FileNotFoundError:
        raise ImageError("This photo was deleted in the meantime; please add it again.") from None
    file.name = Path(path).name  # messages name the visitor's file, not where the server put it
    image = load_image(file)
    return image, recognizer(model, whole)(image)


def uploaded(file: ImageData | None) -> str | None:
    """The path of a file that a visitor uploaded; no other file of this machine is read."""
    if file is None:
        return None
    if not file.path or not Path(file.path).resolve().is_relative_to(get_upload_folder()):
        raise gr.Error("A photo must be uploaded as a file.", print_exception=False)
    return file.path


def predict(photo: str | None, model: str, already_face: bool) -> list[dict]:
    """Read the expression of every face in a photo.

    Returns one entry a face, largest first: its `box` (x1, y1, x2, y2 in pixels), the `score` of the
    detection, the most probable `label` and its `confidence`, the `probs` of the seven expressions, and the
    `landmarks` where they are known.
    """
    if photo is None:
        raise gr.Error("No photo was given.", print_exception=False)
    try:
        _, faces = read_photo(photo, model, already_face)
    except ImageError as error:
        raise gr.Error(str(error), print_exception=False) from None
    return [face.to_dict() for face in faces]


def analyse(path: str | None, model: str, whole: bool) -> list:
    """The whole screen for a new photo, model or way to look at it."""
    if path is None:
        return nothing(START)
    try:
        image, faces = read_photo(path, model, whole)
    except ImageError as error:
        return nothing(str(error))
    if not faces:
        return nothing(NO_FACE, image)
    shown = draw_faces(image, faces)
    reading = Reading(model, faces, shown.width / image.width)
    choices = [(f"{n}: {face.label} {face.confidence:.0%}", n - 1) for n, face in enumerate(faces, 1)]
    found = (
        "1 face found." if len(faces) == 1 else f"{len(faces)} faces found. Choose one below, or click on it."
    )
    return [
        found,
        gr.Image(shown, visible=True),
        reading,
        gr.Row(visible=True),
        gr.Radio(choices=choices, value=0, visible=len(faces) > 1),
        *show_face(reading, 0),
    ]


def nothing(message: str, image: Image.Image | None = None) -> list:
    shown = gr.Image(draw_faces(image, []), visible=True) if image else gr.Image(None, visible=False)
    return [
        message,
        shown,
        None,
        gr.Row(visible=False),
        gr.Radio(choices=[], value=None, visible=False),
        *[None] * 5,
    ]


def show_face(reading: Reading | None, number: int | None) -> list:
    """Crop, bars, and the map of the most probable expression."""
    if reading is None or number is None:
        return [None] * 5
    face = reading.faces[number]
    return [
        face.crop.resize((FACE_SIZE, FACE_SIZE)),
        bars(face),
        face.label,
        *show_map(reading, number, face.label),
    ]


def show_map(reading: Reading | None, number: int | None, expression: str | None) -> list:
    if reading is None or number is None or expression is None:
        return [None, None]
    face = reading.faces[number]
    explanation = recognizer(reading.model).explain(face)
    if expression in explanation.flat:
        words = f"Nothing on this face speaks for **{expression}**: the map is flat."
    else:
        strength = explanation.maps[expression].max()
        words = (
            f"Coloured parts speak for **{expression}** ({face.probs[expression]:.1%}). "
            f"The strongest of them reaches {strength:.0%} of the strongest in all seven maps."
        )
    return [overlay(face.crop, explanation.maps[expression], FACE_SIZE), words]


def face_at(reading: Reading | None, event: gr.SelectData) -> int | None:
    """The number of the face that was clicked on in the photo; the smallest one where boxes overlap."""
    if reading is None:
        return None
    x, y = (value / reading.scale for value in event.index)
    hits = []
    for number, face in enumerate(reading.faces):
        x1, y1, x2, y2 = face.box
        if x1 <= x <= x2 and y1 <= y <= y2:
            hits.append(((x2 - x1) * (y2 - y1), number))
    return min(hits)[1] if hits else gr.skip()


def bars(face: Face) -> str:
    """The seven probabilities in their fixed order, so that faces and models can be compared at a glance."""
    rows = "".join(
        f'<tr class="{"top" if name == face.label else ""}"><th scope="row">{name}</th>'
        f'<td><div style="width: {p:.2%}; background: {COLORS[name]}"></div></td><td>{p:.1%}</td></tr>'
        for name, p in face.probs.items()
    )
    return f'<table class="bars"><caption>Expression: <b>{face.label}</b></caption>{rows}</table>'


def photo_tab() -> None:
    reading = gr.State(time_to_live=KEPT_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photo = gr.Image(
                label="Photo",
                type="filepath",
                sources=["upload", "webcam", "clipboard"],
                height=320,
                elem_id="photo",
            )
            # gr.Image opens and often re-encodes every file, and answers those it cannot read in Pillow's
            # words; `load_image` reads more formats and says what is wrong. So it gets the file itself.
            photo.preprocess = uploaded
            gr.Examples([[str(p)] for p in sorted(EXAMPLES.glob("*.jpg"))], photo, label="Examples")
            model = gr.Dropdown(MODELS, label="Model", elem_id="model")
            whole = gr.Checkbox(label="This picture is already a face", elem_id="whole")
        with gr.Column(scale=3, min_width=300):
            status = gr.Markdown(START, elem_id="status")
            shown = gr.Image(
                label="Faces",
                format="jpeg",
                visible=False,
                interactive=False,
                buttons=["fullscreen"],
                elem_id="shown",
            )
            number = gr.Radio(label="Face", visible=False, elem_id="face")
    with gr.Row(visible=False) as details:
        with gr.Column(scale=2, min_width=300):
            table = gr.HTML(elem_id="bars", apply_default_css=False)
        with gr.Column(scale=3, min_width=300):
            expression = gr.Radio(
                EXPRESSIONS, label="Why happy? Why not sad? Choose an expression", elem_id="expression"
            )
            words = gr.Markdown(elem_id="words")
            with gr.Row():
                still = {"format": "png", "interactive": False, "buttons": ["fullscreen"], "min_width": 130}
                crop = gr.Image(label="Face", elem_id="crop", **still)
                heat = gr.Image(label="Grad-CAM", elem_id="map", **still)

    face = [crop, table, expression, heat, words]
    gr.on(
        [photo.change, model.input, whole.input],
        analyse,
        [photo, model, whole],
        [status, shown, reading, details, number, *face],
        api_visibility="private",
        show_progress_on=[status, shown],
    )
    private = {"api_visibility": "private", "show_progress": "hidden"}
    number.change(show_face, [reading, number], face, **private)
    shown.select(face_at, reading, number, **private)
    expression.input(show_map, [reading, number, expression], [heat, words], **private)

    # What `gradio_client` calls.
    gr.Button(visible=False).click(predict, [photo, model, whole], gr.JSON(visible=False), api_name="predict")


def build() -> gr.Blocks:
    with gr.Blocks(title="fer-zoo", fill_width=True, delete_cache=(600, KEPT_SECONDS)) as app:
        gr.Markdown(TITLE)
        with gr.Tabs(), gr.Tab("Photo"):
            photo_tab()
        with gr.Accordion("About: what it sees, privacy, and where the law forbids it", open=False):
            gr.Markdown(ABOUT)
    return app.queue(default_concurrency_limit=2)


def main() -> None:
    # visitors are served side by side: a photo that takes every core for itself makes the others wait longer
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        recognizer(MODELS[0] if MODELS else default_model())  # loaded before the first visitor waits for it
    except (ModelError, DetectorError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, so that files are deleted
    with TemporaryDirectory(prefix="fer-zoo-") as files:
        os.environ["GRADIO_TEMP_DIR"] = files
        build().launch(
            theme=gr.themes.Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
            css=CSS,
            head=HEAD,
            max_file_size=MAX_FILE_SIZE,
            ssr_mode=False,
            footer_links=["api"],
        )


if __name__ == "__main__":
    main()
