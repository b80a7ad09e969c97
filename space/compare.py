"""Compare: one face through every model, side by side."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np
from PIL import Image

from fer_zoo.drawing import overlay
from fer_zoo.faces import Detection, crop_face
from fer_zoo.images import ImageError
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.recognizer import Explanation, Face

from .html import bars, picture
from .photo import NO_FACE, START, Reading
from .readers import (
    EXAMPLES,
    FACE_SIZE,
    KEPT_SECONDS,
    MODELS,
    photo_input,
    read_image,
    read_photo,
    recognizer,
    scroll_to,
)

MAP_SIZE = 256  # pixels
REPEATS = 3  # the fastest counts: others may use the machine at the same time
OWN = "each model's answer"
FOUND = "models say"  # where there is something to compare


@dataclass(frozen=True)
class Answer:
    """What one model says of the face."""

    model: str
    face: Face
    explanation: Explanation
    milliseconds: float  # to read a face that is found, cut out and small


@dataclass(frozen=True)
class Comparison:
    """What is kept of a photo between two events: numbers and small crops, never the photo."""

    path: str
    whole: bool  # the picture was taken as one face
    answers: list[Answer]
    expression: str  # whose evidence was asked for then


def compare(
    path: str | None, whole: bool, expression: str, reading: Reading | None, shown: Comparison | None
) -> list:
    """The whole screen for a photo that is not there yet."""
    if path is None:
        return [START, None, None]
    if shown and (shown.path, shown.whole) == (path, whole):
        return [gr.skip()] * 3
    try:
        crop, count = largest_face(path, whole, reading)  # cut out once, for all models
    except ImageError as error:
        return [str(error), None, None]
    if crop is None:
        return [NO_FACE, None, None]
    small = crop.resize((FACE_SIZE, FACE_SIZE))
    answers = [ask(model, crop, small) for model in MODELS]
    votes = Counter(answer.face.label for answer in answers)
    most = max(votes.values())
    labels = ", as many ".join(f"**{label}**" for label in votes if votes[label] == most)
    which = "The picture as one face" if whole else "The largest face" if count > 1 else "The face"
    found = f"{which}: {most} of {len(answers)} {FOUND} {labels}."
    comparison = Comparison(path, whole, answers, expression)
    return [found, comparison, show(comparison, expression)]


def largest_face(path: str, whole: bool, reading: Reading | None) -> tuple[Image.Image | None, int]:
    """The largest face, cut out, and how many there are; those that Photo has found are not sought again."""
    if reading and (reading.path, reading.whole) == (path, whole):
        face = reading.faces[0]
        place = Detection(face.box, face.score, face.landmarks, framed=whole)
        return crop_face(np.asarray(read_image(path)), place), len(reading.faces)
    _, faces = read_photo(path, MODELS[0], whole)
    return faces[0].crop if faces else None, len(faces)


def ask(model: str, crop: Image.Image, small: Image.Image) -> Answer:
    """What a model says of a face.

    Args:
        model: One of the models that visitors can choose.
        crop: The face as Photo reads it, so that both say the same.
        small: What is kept of it, and timed: to shrink a large crop can take longer than to read it.
    """
    reader = recognizer(model)
    place = Detection((0.0, 0.0, *map(float, crop.size)), 1.0, framed=True)
    (face,) = reader.read([place], [crop])
    explanation = reader.explain(face)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        reader.read([place], [small])
        seconds.append(time.perf_counter() - started)
    return Answer(model, replace(face, crop=small), explanation, 1000 * min(seconds))


def show(comparison: Comparison, expression: str) -> str:
    """A card for each model: bars, time, and the map of one expression."""
    cards = []
    for answer in comparison.answers:
        face = answer.face
        wanted = face.label if expression == OWN else expression
        sure = "Unsure, perhaps" if face.unsure else "Expression:"
        flat = " (there is none)" if wanted in answer.explanation.flat else ""
        heat = overlay(face.crop, answer.explanation.maps[wanted], MAP_SIZE)
        cards.append(
            f"<article><h2>{answer.model}</h2>{bars(face.probs, f'{sure} <b>{face.label}</b>')}"
            f"{picture(heat, f'Evidence for {wanted}, by {answer.model}')}"
            f"<p>Evidence for <b>{wanted}</b>{flat} · {answer.milliseconds:.0f} ms</p></article>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def show_again(
    path: str | None,
    whole: bool,
    expression: str,
    reading: Reading | None,
    shown: Comparison | None,
    status: str,
) -> list:
    """The same cards with the maps of another expression; all of them anew if Gradio has dropped them."""
    if shown:
        return [gr.skip(), gr.skip(), show(shown, expression)]
    if FOUND not in status:  # there are none yet
        return [gr.skip()] * 3
    return compare(path, whole, expression, reading, shown)


def catch_up(expression: str, shown: Comparison | None) -> str | dict:
    """The cards with the maps of an expression that was chosen while the models still read."""
    return show(shown, expression) if shown and shown.expression != expression else gr.skip()


def compare_tab(
    tab: gr.Tab, photo_of_visitor: gr.Image, photo_is_face: gr.Checkbox, reading: gr.State
) -> None:
    """The tab itself, and what `photo_tab` gives: its photo comes along, unless one was added here since."""
    comparison = gr.State(time_to_live=KEPT_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            photo = photo_input("compare-photo")
        with gr.Column(scale=3, min_width=300):
            gr.Examples([[str(path)] for path in EXAMPLES], photo, label="Examples")
            whole = gr.Checkbox(label="This picture is already a face", elem_id="compare-whole")
            expression = gr.Radio([OWN, *EXPRESSIONS], value=OWN, label="Show the evidence for")
            status = gr.Markdown(START, elem_id="compare-status", elem_classes="status")
            gr.Markdown(
                "The face is found and cut out once; every model reads the same picture. Milliseconds are "
                f"for that reading alone, of a face of {FACE_SIZE}x{FACE_SIZE} pixels, on this machine, the "
                f"fastest of {REPEATS}."
            )
    cards = gr.HTML(elem_id="compare-cards", apply_default_css=False)
    given, screen = [photo, whole, expression, reading, comparison], [status, comparison, cards]
    private = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on(
        [photo.change, whole.input],
        compare,
        given,
        screen,
        api_visibility="private",
        show_progress_on=[status, cards],
    ).success(catch_up, [expression, comparison], cards, **private).success(
        js=scroll_to("compare-status", "compare-photo")
    )
    expression.input(show_again, [*given, status], screen, trigger_mode="always_last", **private)
    photo_of_visitor.change(None, None, photo, js="() => null", api_visibility="private")
    photo_is_face.input(
        None,
        [photo, photo_of_visitor],
        photo,
        js="(photo, other) => (other ? null : photo)",
        api_visibility="private",
    )
    tab.select(
        None,
        [photo, whole, photo_of_visitor, photo_is_face],
        [photo, whole],
        js="(photo, whole, other, otherWhole) => (photo ? [photo, whole] : [other, otherWhole])",
        api_visibility="private",
    )
