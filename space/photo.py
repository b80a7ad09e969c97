"""Photo: every face of a photo, its seven probabilities, and the evidence for each expression."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import gradio as gr
from PIL import Image

from fer_zoo.drawing import draw_faces, overlay
from fer_zoo.images import ImageError
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.recognizer import Explanation, Face
from fer_zoo.thresholds import thresholds

from .html import bars
from .readers import (
    DELETED,
    EXAMPLES,
    FACE_SIZE,
    KEPT_SECONDS,
    MAX_FACES,
    model_input,
    new_file,
    photo_input,
    read_image,
    read_photo,
    recognizer,
    scroll_to,
)

START = "Add a photo: upload, drag, paste, take a snapshot, or choose an example."
NO_FACE = (
    "No face found. A larger or more frontal face may help; if the whole picture is one face, "
    "tick “This picture is already a face”."
)
CROWD = 9  # faces, from which on each is kept smaller
DOWNLOAD_SIDE = 4096  # pixels; of the picture with boxes that visitors download


@dataclass(frozen=True)
class Reading:
    """What is kept of a photo between two events: numbers and small crops, never the photo."""

    path: str
    whole: bool  # the picture was taken as one face
    model: str
    faces: list[Face]
    explanations: list[Explanation]
    scale: float  # pixels shown per pixel of the photo


def analyse(
    path: str | None, model: str, whole: bool, before: Reading | None = None, number: int | None = None
) -> list:
    """The whole screen for a new photo, model or way to look at it.

    Where only the model is another, the face that was shown stays.
    """
    if path is None:
        return nothing(START)
    try:
        image, faces = read_photo(path, model, whole)
    except ImageError as error:
        return nothing(str(error))
    if not faces:
        return nothing(NO_FACE, image)
    shown = draw_faces(image, faces)
    reading = Reading(
        path,
        whole,
        model,
        [replace(face, crop=reduced(face.crop, len(faces))) for face in faces],
        recognizer(model).explain(faces),
        shown.width / image.width,
    )
    found = "Read as one face: none was looked for." if whole else "1 face found."
    if len(faces) > 1:
        most = "The largest " if len(faces) == MAX_FACES else ""
        found = f"{most}{len(faces)} faces found. Choose one below, or click on it."
    same = before is not None and (before.path, before.whole) == (path, whole)
    number = number if same and number else 0
    captions = [f"{n}: {face.marked} {face.confidence:.0%}" for n, face in enumerate(faces, 1)]
    crops = zip((face.crop for face in reading.faces), captions, strict=True)
    return [
        found,
        gr.Image(shown, visible=True),
        reading,
        gr.Column(visible=True),
        gr.Gallery(list(crops), selected_index=number, visible=len(faces) > 1),
        *show_face(reading, number),
    ]


def reduced(crop: Image.Image, faces: int) -> Image.Image:
    """What is kept of one of so many faces for an hour: no more than is shown, half of that in a crowd."""
    side = FACE_SIZE if faces < CROWD else FACE_SIZE // 2
    return crop if crop.width <= side else crop.resize((side, side))


def nothing(message: str, image: Image.Image | None = None) -> list:
    shown = gr.Image(draw_faces(image, []), visible=True) if image else gr.Image(None, visible=False)
    return [
        message,
        shown,
        None,
        gr.Column(visible=False),
        gr.Gallery(None, visible=False),
        *[None] * 6,
    ]


def show_face(reading: Reading, number: int) -> list:
    """Number, crop, bars, and the map of the most probable expression."""
    if number >= len(reading.faces):  # of the photo before
        return [gr.skip()] * 6
    face = reading.faces[number]
    return [
        number,
        face.crop.resize((FACE_SIZE, FACE_SIZE)),
        verdict(face, reading.model),
        face.label,
        *show_map(reading, number, face.label),
    ]


def verdict(face: Face, model: str) -> str:
    """The bars; where the model is unsure, what that means and what to do about it."""
    if not face.unsure:
        return bars(face.probs, f"Expression: <b>{face.label}</b>")
    found = thresholds()[model]
    if found["threshold"] is None:
        why = "At no confidence is this model right often enough to be called sure."
    else:
        why = (
            f"This model is called sure from {found['threshold']:.0%} on, where "
            f"{found['precision']:.0f} % of its answers are right "
            f"({found['coverage']:.0f} % of the pictures it was tried on reach that)."
        )
    return bars(face.probs, f"Unsure, perhaps <b>{face.label}</b>") + (
        f'<p class="unsure">{why} Take the first two or three expressions together, ask the other models '
        "under Compare, where this photo comes along, or try a sharper, brighter, more frontal one.</p>"
    )


def show_map(reading: Reading | None, number: int, expression: str) -> list:
    reading = still_kept(reading)
    if number >= len(reading.faces):  # of the photo before
        return [gr.skip()] * 2
    face, explanation = reading.faces[number], reading.explanations[number]
    if expression in explanation.flat:
        words = f"No part of this face supports **{expression}**: the map is flat."
    else:
        strength = explanation.maps[expression].max()
        words = (
            f"Coloured parts support **{expression}** ({face.probs[expression]:.1%}). "
            f"The strongest of them reaches {strength:.0%} of the strongest in all seven maps."
        )
    return [overlay(face.crop, explanation.maps[expression], FACE_SIZE), words]


def choose_face(reading: Reading | None, event: gr.SelectData) -> list:
    return show_face(still_kept(reading), event.index)


def face_at(reading: Reading | None, event: gr.SelectData) -> list:
    """The face that was clicked on in the photo; the smallest one where boxes overlap."""
    hits = []
    for number, face in enumerate(reading.faces if reading else []):
        x1, y1, x2, y2 = (value * reading.scale for value in face.box)
        if x1 <= event.index[0] <= x2 and y1 <= event.index[1] <= y2:
            hits.append(((x2 - x1) * (y2 - y1), number))
    if not hits:
        return [gr.skip()] * 7
    number = min(hits)[1]
    return [gr.Gallery(selected_index=number), *show_face(reading, number)]


def save_picture(reading: Reading | None) -> str:
    """A PNG of the photo with its boxes."""
    reading = still_kept(reading)
    try:
        image = read_image(reading.path)
    except ImageError as error:
        raise gr.Error(str(error)) from None
    file = new_file("faces.png")
    draw_faces(image, reading.faces, DOWNLOAD_SIDE).save(file)
    return str(file)


def save_numbers(reading: Reading | None) -> str:
    """What `predict` returns, with the model that said so, as a JSON file."""
    reading = still_kept(reading)
    file = new_file("faces.json")
    numbers = [{"model": reading.model} | face.to_dict() for face in reading.faces]
    file.write_text(json.dumps(numbers, indent=2))
    return str(file)


def still_kept(reading: Reading | None) -> Reading:
    """The reading, unless Gradio has dropped it after `KEPT_SECONDS`; the screen shows it still."""
    if reading is None:
        raise gr.Error(DELETED.format("photo"))
    return reading


def download(label: str, save, reading: gr.State, elem_id: str) -> None:
    """A button that writes a file only when it is clicked, then hands it to the browser."""
    button = gr.Button(label, size="sm")
    file = gr.DownloadButton(visible="hidden", elem_id=elem_id)
    button.click(save, reading, file, api_visibility="private", show_progress="hidden").success(
        js=f"() => document.querySelector('#{elem_id}').click()"
    )


def photo_tab() -> tuple[gr.Image, gr.Checkbox, gr.State]:
    """Its photo, whether that is taken as one face, and what was read of it, for other tabs."""
    reading, number = gr.State(time_to_live=KEPT_SECONDS), gr.State()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photo = photo_input("photo")
            gr.Examples([[str(path)] for path in EXAMPLES], photo, label="Examples")
            model = model_input("model")
            whole = gr.Checkbox(label="This picture is already a face", elem_id="whole")
        with gr.Column(scale=3, min_width=300):
            status = gr.Markdown(START, elem_id="status", elem_classes="status")
            shown = gr.Image(
                label="Faces",
                show_label=False,  # it would hide boxes
                format="jpeg",
                visible=False,
                interactive=False,
                buttons=["fullscreen"],
                alt_text="The photo with a numbered box around every face",
                elem_id="shown",
            )
    with gr.Column(visible=False) as details:
        gallery = gr.Gallery(
            label="Faces",
            show_label=False,
            visible=False,
            allow_preview=False,
            columns=8,
            height="auto",
            buttons=[],
            elem_id="face",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                table = gr.HTML(elem_id="bars", apply_default_css=False)
                with gr.Row():
                    download("Picture with boxes (PNG)", save_picture, reading, "png")
                    download("Numbers (JSON)", save_numbers, reading, "json")
            with gr.Column(scale=3, min_width=300):
                expression = gr.Radio(
                    EXPRESSIONS, label="Why happy? Why not sad? Choose an expression", elem_id="expression"
                )
                words = gr.Markdown(elem_id="words", elem_classes="status")
                with gr.Row():
                    still = {
                        "format": "png",
                        "interactive": False,
                        "buttons": ["fullscreen"],
                        "min_width": 130,
                    }
                    crop = gr.Image(label="Face", alt_text="The face, cut out", elem_id="crop", **still)
                    heat = gr.Image(
                        label="Grad-CAM",
                        alt_text="The face; the evidence for the chosen expression is coloured",
                        elem_id="map",
                        **still,
                    )

    face = [number, crop, table, expression, heat, words]
    gr.on(
        [photo.change, model.input, whole.input],
        analyse,
        [photo, model, whole, reading, number],
        [status, shown, reading, details, gallery, *face],
        api_visibility="private",
        show_progress_on=[status, shown, gallery, table, crop, heat],
    ).success(js=scroll_to("status", "photo"))
    private = {"api_visibility": "private", "show_progress": "hidden"}
    # by default Gradio drops what is clicked while an earlier click is answered; put off, a selection would
    # come with the earlier one's data
    clicked = {"trigger_mode": "multiple", "concurrency_limit": 1} | private
    gallery.select(choose_face, reading, face, **clicked)
    shown.select(face_at, reading, [gallery, *face], **clicked)
    last = {"trigger_mode": "always_last"} | private
    expression.input(show_map, [reading, number, expression], [heat, words], **last)
    return photo, whole, reading
