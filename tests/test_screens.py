"""What the Space's screens show, and the pictures that it draws, function by function."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from browsing import two_faces
from drawn_clips import picture
from PIL import Image

from app import build
from fer_zoo.drawing import draw_faces, overlay
from fer_zoo.images import load_image
from fer_zoo.labels import COLORS, EXPRESSIONS
from fer_zoo.recognizer import Face
from fer_zoo.thresholds import sure_from
from space.compare import OWN, catch_up, compare, largest_face, show_again
from space.live import read_frame
from space.photo import (
    START,
    Reading,
    analyse,
    choose_face,
    save_numbers,
    save_picture,
    show_face,
    show_map,
    verdict,
)
from space.readers import FACE_SIZE, MODELS, read_photo, recognizer
from space.video import another, forget, note, plot, read_clip
from space.zoo import card


def face(box, label="happy", confidence=0.4) -> Face:
    probs = dict.fromkeys(EXPRESSIONS, (1 - confidence) / 6) | {label: confidence}
    return Face(box, 0.9, probs, None, Image.new("RGB", (48, 48)))


def test_no_choice_of_a_visitor_is_dropped_while_an_earlier_one_is_answered():
    """Gradio's default drops it: a radio button would then stand above the map of another."""
    functions = [function for function in build().fns.values() if function.fn]
    chosen = [
        function
        for function in functions
        if function.fn is read_clip or any(event in ("input", "select") for _, event in function.targets)
    ]
    assert len(chosen) > 6 and read_clip in [function.fn for function in chosen]
    assert {function.trigger_mode for function in chosen} == {"always_last", "multiple"}


def test_live_lays_the_evidence_over_the_faces_alone():
    frame = io.BytesIO()
    picture([(90, 50)]).save(frame, "PNG")
    shown = {}
    for heat in (False, True):
        html, _, session = read_frame(frame.getvalue(), MODELS[0], 0.6, heat, None)
        ((_, seen),) = session.strip
        assert list(seen) == [1]
        shown[heat] = np.asarray(load_image(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])), int)
    changed = np.abs(shown[True] - shown[False]).max(2)
    assert changed[80:150, 130:190].max() > 60
    assert changed[:, :60].max() < 10, "far from the face there is no evidence"


def test_doubt_is_said_with_what_to_do_then():
    model = MODELS[0]
    unsure, sure = (
        replace(face((0, 20, 50, 90), "sad", p), sure_from=sure_from(model))
        for p in (sure_from(model) - 0.01, sure_from(model))
    )
    assert "Unsure, perhaps <b>sad</b>" in verdict(unsure, model) and "Compare" in verdict(unsure, model)
    assert "Unsure" not in verdict(sure, model)
    marked, plain = (draw_faces(Image.new("RGB", (99, 99)), [f]) for f in (unsure, sure))
    assert marked.tobytes() != plain.tobytes()


def test_a_click_on_a_face_of_the_photo_before_changes_nothing(examples):
    _, faces = read_photo(str(examples / "astronaut.jpg"), MODELS[0], whole=True)
    reading = Reading("", True, MODELS[0], faces, [], 1.0)
    assert show_face(reading, 3) == [gr.skip()] * 6 and show_map(reading, 3, "sad") == [gr.skip()] * 2


@pytest.mark.parametrize("whole", [False, True])
def test_compare_cuts_out_what_photo_has_found(examples, monkeypatch, whole):
    path = str(examples / "astronaut.jpg")
    _, faces = read_photo(path, MODELS[0], whole)
    sought = []

    def seek(*photo):
        sought.append(photo)
        return read_photo(*photo)

    monkeypatch.setattr("space.compare.read_photo", seek)
    reading = Reading(path, whole, MODELS[0], faces, [], 1.0)
    crop, count = largest_face(path, whole, reading)
    assert (crop.tobytes(), count) == (faces[0].crop.tobytes(), 1)
    assert not sought, "nothing is sought again"
    largest_face(path, not whole, reading)
    assert len(sought) == 1


def test_compare_keeps_one_small_face_and_says_what_photo_says(examples, tmp_path):
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.crop((160, 50, 290, 180)).resize((1500, 1500)).save(tmp_path / "face.png")
    path = str(tmp_path / "face.png")
    found, comparison, _ = compare(path, True, OWN, None, None)
    assert re.match(rf"The picture as one face: \d+ of {len(MODELS)} models say \*\*", found)
    kept = comparison.answers[0].face.crop
    assert kept.size == (FACE_SIZE, FACE_SIZE)
    for answer in comparison.answers:
        assert answer.face.crop is kept
        (read,) = read_photo(path, answer.model, whole=True)[1]
        assert answer.face.probs == pytest.approx(read.probs, abs=1e-6)


def test_compare_names_all_answers_that_tie(examples, monkeypatch):
    labels = iter(["sad", "happy"])
    monkeypatch.setattr("space.compare.MODELS", MODELS[:2])
    monkeypatch.setattr(
        "space.compare.ask", lambda *_: SimpleNamespace(face=SimpleNamespace(label=next(labels)))
    )
    monkeypatch.setattr("space.compare.show", lambda *_: "")
    found, *_ = compare(str(examples / "astronaut.jpg"), False, OWN, None, None)
    assert found == "The face: 1 of 2 models say **sad**, as many **happy**."


@pytest.mark.parametrize(("threshold", "mark"), [(2.0, "?"), (0.0, "")])
def test_captions_mark_unsure_faces(examples, tmp_path, monkeypatch, threshold, mark):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(recognizer(MODELS[0], "reduced"), "sure_from", threshold)
    gallery = analyse(str(examples / "astronaut.jpg"), MODELS[0], whole=False)[4]
    ((_, caption),) = gallery.constructor_args["value"]
    assert re.fullmatch(rf"1: happy{re.escape(mark)} \d+%", caption)


CLICK = SimpleNamespace(index=0)


@pytest.mark.parametrize(
    ("ask", "given"),
    [(save_picture, ()), (save_numbers, ()), (choose_face, (CLICK,)), (show_map, (0, "sad")), (plot, (1,))],
)
def test_who_asks_after_the_reading_was_dropped_is_told_what_to_do(ask, given):
    with pytest.raises(gr.Error, match="deleted in the meantime; please add it again"):
        ask(None, *given)


def test_compare_reads_again_what_was_dropped(examples):
    path = str(examples / "astronaut.jpg")
    found, comparison, cards = compare(path, False, "sad", None, None)
    assert len(comparison.answers) == len(MODELS) and "say **happy**" in found
    assert show_again(path, False, "sad", None, comparison, found) == [gr.skip(), gr.skip(), cards]
    again, anew, _ = show_again(path, False, "sad", None, None, found)
    assert again == found and len(anew.answers) == len(MODELS)
    assert show_again(path, False, "sad", None, None, START) == [gr.skip()] * 3, "nothing is there yet"
    # what is chosen while the models still read finds nothing that it could change
    assert catch_up("sad", comparison) == catch_up("sad", None) == gr.skip()
    assert "Evidence for <b>happy</b>" not in cards
    assert "Evidence for <b>happy</b>" in catch_up("happy", comparison)


def test_a_clip_is_read_only_for_who_waits_for_it():
    left = SimpleNamespace(session_hash="left")
    asked = ("clip.mp4", MODELS[0], 0.6)
    assert read_clip(*asked, asked, left) == gr.skip(), "it was just read so"
    assert read_clip(*asked, None, left)[0].startswith("Every face of the clip is followed"), "nobody waits"


def test_a_clip_is_read_after_the_line_broke_off_or_it_was_added_again(monkeypatch):
    def analyse(*args):
        raise gr.Error("it was read")

    monkeypatch.setattr("space.video.analyse", analyse)
    visitor = SimpleNamespace(session_hash="visitor")
    asked = ("clip.mp4", MODELS[0], 0.6)
    *_, read = another("clip.mp4", visitor)
    forget(visitor)
    note("clip.mp4", visitor)
    said, *_, read = read_clip(*asked, read, visitor)
    assert said == "it was read" and read_clip(*asked, read, visitor) == gr.skip()
    another(None, visitor)
    *_, read = another("clip.mp4", visitor)
    assert read_clip(*asked, read, visitor)[0] == "it was read"


def test_another_model_reads_the_face_that_was_chosen(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    photo = two_faces(examples)
    for name in ("two.png", "other.png"):
        photo.save(tmp_path / name)
    path = str(tmp_path / "two.png")
    reading = analyse(path, MODELS[0], False)[2]
    for asked, number in (
        ((path, MODELS[1], False), 1),
        ((str(tmp_path / "other.png"), MODELS[0], False), 0),
        ((path, MODELS[0], True), 0),
    ):
        _, _, _, _, gallery, shown, *_ = analyse(*asked, reading, 1)
        assert shown == gallery.constructor_args["selected_index"] == number


def test_numbers_name_their_model(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    reading = analyse(str(examples / "astronaut.jpg"), MODELS[1], whole=True)[2]
    (face,) = json.loads(Path(save_numbers(reading)).read_text())
    assert face["model"] == MODELS[1] and face["label"] == reading.faces[0].label


@pytest.mark.parametrize("model", MODELS)
def test_card_links_to_nothing_that_the_page_lacks(model):
    text = card(model)
    assert "## Limits" in text and "![" not in text
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]*)\)", text))


def test_boxes_are_drawn_where_the_faces_are():
    photo = Image.new("RGB", (400, 300), "black")
    drawn = np.asarray(
        draw_faces(photo, [face((100, 100, 200, 220), "sad"), face((-20, 5, 60, 90), "happy")])
    )
    assert drawn.shape == (300, 400, 3)
    sad, happy = (tuple(bytes.fromhex(COLORS[name][1:])) for name in ("sad", "happy"))
    assert tuple(drawn[150, 100]) == sad and tuple(drawn[220, 150]) == sad
    assert tuple(drawn[50, 60]) == happy
    assert not drawn[150, 150].any() and not drawn[280, 380].any()
    assert not np.asarray(photo).any(), "the photo itself stays as it was"


def test_boxes_are_drawn_on_the_upright_photo(tmp_path):
    """As the recogniser reads it: turned by its EXIF, and 16-bit gray as 8-bit."""
    file = tmp_path / "turned.png"
    pixels = np.zeros((300, 400), np.uint16)
    pixels[:, 200:] = 40_000
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(pixels).save(file, exif=exif)
    drawn = draw_faces(file, [face((100, 150, 200, 250), "sad")])
    assert drawn.size == (300, 400)
    assert drawn.getpixel((100, 200)) == tuple(bytes.fromhex(COLORS["sad"][1:]))
    assert drawn.getpixel((10, 390)) == (156, 156, 156) and drawn.getpixel((10, 10)) == (0, 0, 0)


def test_large_photo_is_reduced_with_its_boxes():
    drawn = draw_faces(Image.new("RGB", (4000, 2000)), [face((1000, 1000, 2000, 1500))], max_size=1000)
    assert drawn.size == (1000, 500)
    assert drawn.getpixel((250, 300)) == tuple(bytes.fromhex(COLORS["happy"][1:]))


def test_overlay_colours_only_where_the_map_speaks():
    crop = Image.new("RGB", (60, 60), (100, 100, 100))
    heat = np.zeros((6, 6), np.float32)
    heat[:, :2] = 1
    picture = np.asarray(overlay(crop, heat, 120)).astype(int)
    assert picture.shape == (120, 120, 3)
    assert (picture[:, 80:] == 100).all()
    left = picture[60, 10]
    assert left[0] > 150 and left[0] - left[2] >= 0
    weak = np.asarray(overlay(crop, heat * 0.5, 120)).astype(int)
    assert np.abs(weak[60, 10] - 100).sum() > 0
