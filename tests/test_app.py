"""The Space from outside: `/predict` as a program calls it, and the pictures that it draws."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from drawn_clips import decode, moving, picture, rows, write_clip
from gradio.data_classes import FileData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from app import build
from fer_zoo.drawing import draw_faces, overlay
from fer_zoo.images import load_image
from fer_zoo.labels import COLORS, EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.recognizer import Face
from fer_zoo.thresholds import sure_from
from space.compare import OWN, compare, largest_face, show_again
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
from space.readers import FACE_SIZE, MODELS, read_photo, recognizer, uploaded
from space.video import plot
from space.zoo import card
from train.app_process import running_app
from train.files import sha256
from train.threshold import threshold


@pytest.fixture(scope="module")
def client(app) -> Client:
    return Client(app.url, verbose=False)


def predict(client: Client, photo, **settings):
    return client.predict(handle_file(photo), **settings, api_name="/predict")


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def face(box, label="happy") -> Face:
    probs = dict.fromkeys(EXPRESSIONS, 0.1) | {label: 0.4}
    return Face(box, 0.9, probs, label, 0.4, None, Image.new("RGB", (48, 48)))


def test_astronaut_looks_happy(client, examples):
    (found,) = predict(client, examples / "astronaut.jpg")
    assert found["label"] == "happy"
    assert list(found["probs"]) == list(EXPRESSIONS)
    assert math.isclose(sum(found["probs"].values()), 1, abs_tol=1e-5)
    assert found["confidence"] == max(found["probs"].values()) == found["probs"]["happy"]
    assert 0 < found["score"] <= 1
    x1, y1, x2, y2 = found["box"]
    assert x1 < 225 < x2 and y1 < 128 < y2, "the box holds her nose"


def test_whole_picture_as_a_face(client, tmp_path, examples):
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.crop((160, 50, 290, 180)).save(tmp_path / "face.png")
    (found,) = predict(client, tmp_path / "face.png", already_face=True)
    assert found["box"] == [0, 0, 130, 130]
    assert found["label"] == "happy"


def test_batch_answers_in_order_with_the_error_of_each(client, examples, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    photos = [examples / "astronaut.jpg", tmp_path / "notes.jpg", examples / "grace_hopper.jpg"]
    first, second, third = client.predict([*map(handle_file, photos)], api_name="/predict_batch")
    assert first == {"faces": predict(client, photos[0])}
    assert second["error"].startswith("'notes.jpg' is not an image")
    assert third == {"faces": predict(client, photos[2])}


def test_python_of_the_readme_runs(app, examples, tmp_path, monkeypatch):
    readme = (examples.parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from gradio_client .*?)```", readme, re.DOTALL)
    shutil.copy(examples / "astronaut.jpg", tmp_path / "photo.jpg")
    shutil.copy(examples / "astronaut.jpg", tmp_path / "other.jpg")
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    exec(code.replace("http://127.0.0.1:7860", app.url), names)
    assert names["faces"][0]["label"] == "happy"
    assert [len(answer["faces"]) for answer in names["answers"]] == [1, 1]


def test_no_choice_of_a_visitor_is_dropped_while_an_earlier_one_is_answered():
    """Gradio's default drops it: a radio button would then stand above the map of another."""
    chosen = [
        function
        for function in build().fns.values()
        if function.fn and any(event in ("input", "select") for _, event in function.targets)
    ] + [function for function in build().fns.values() if getattr(function.fn, "__name__", "") == "read_clip"]
    assert len(chosen) > 6
    assert {function.trigger_mode for function in chosen} == {"always_last", "multiple"}


def test_a_clip_comes_back_with_its_faces_drawn_a_table_and_a_summary(client, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(12))
    drawn, table, summary = client.predict(handle_file(clip), None, 0.6, api_name="/video")
    assert summary == {"frames": 12, "seconds": pytest.approx(11 / 25), "faces": 1}
    assert len(decode(Path(drawn))) == len(rows(Path(table))) == 12
    with pytest.raises(AppError, match=r"^No clip was given\.$"):
        client.predict(None, MODELS[0], 0.6, api_name="/video")


def test_no_model_is_the_first_one(client, examples):
    photo = examples / "grace_hopper.jpg"
    assert predict(client, photo, model=None) == predict(client, photo, model=MODELS[0])


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
        replace(face((0, 20, 50, 90), "sad"), confidence=p, sure_from=sure_from(model))
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
    monkeypatch.delattr("space.compare.read_photo")  # nothing is sought again
    reading = Reading(path, whole, MODELS[0], faces, [], 1.0)
    crop, count = largest_face(path, whole, reading)
    assert (crop.tobytes(), count) == (faces[0].crop.tobytes(), 1)
    with pytest.raises(NameError):
        largest_face(path, not whole, reading)


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


def test_files_below_a_linked_folder_are_uploads(tmp_path, monkeypatch):
    """As on a Mac, whose folder of temporary files is a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "link"))
    file = tmp_path / "link" / "a.png"
    Image.new("L", (9, 9)).save(file)
    assert uploaded(FileData(path=str(file))) == str(file)
    with pytest.raises(gr.Error, match="uploaded first"):
        uploaded(FileData(path=__file__))


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


@pytest.mark.parametrize("model", MODELS)
def test_card_links_to_nothing_that_the_page_lacks(model):
    text = card(model)
    assert "## Limits" in text and "![" not in text
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]*)\)", text))


def test_thresholds_belong_to_the_packaged_files(examples):
    results = json.loads((WEIGHTS_DIR / "thresholds.json").read_text())
    packaged = {path.stem: sha256(path) for path in WEIGHTS_DIR.glob("*.safetensors")}
    assert {name: model["sha256"] for name, model in results["models"].items()} == packaged


def test_threshold_is_the_smallest_that_is_right_often_enough():
    confidence = np.array([0.2, 0.4, 0.5, 0.6, 0.8, 0.9])
    right = np.array([False, True, False, True, True, True])
    found = threshold(confidence, right, precision=0.75)
    assert (found["threshold"], found["precision"], round(found["coverage"], 1)) == (0.4, 80.0, 83.3)
    assert threshold(confidence, right, precision=1.1)["threshold"] is None
    assert threshold(confidence, np.zeros_like(right))["threshold"] is None


def test_no_face_is_an_empty_list(client, tmp_path):
    Image.new("RGB", (300, 200), "gray").save(tmp_path / "gray.png")
    assert predict(client, tmp_path / "gray.png") == []


def test_photo_is_turned_upright(client, tmp_path, examples):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.jpg", quality=92, exif=exif)
    (found,) = predict(client, tmp_path / "lying.jpg")
    x1, y1, x2, y2 = found["box"]
    assert x1 < 225 < x2 and y1 < 128 < y2


def test_photo_of_a_phone_is_read(client, tmp_path, examples):
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif").register_heif_opener()
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.save(tmp_path / "phone.heic", format="HEIF")
    (found,) = predict(client, tmp_path / "phone.heic")
    assert found["label"] == "happy"


def test_every_model_of_the_picker_answers(app, client, examples):
    (model,) = (
        c for c in httpx.get(f"{app.url}/config").json()["components"] if c["props"].get("elem_id") == "model"
    )
    names = [value for _, value in model["props"]["choices"]]
    assert names
    for name in names:
        assert len(predict(client, examples / "astronaut.jpg", model=name)) == 1


def test_unknown_model_is_refused(client, examples):
    with pytest.raises(AppError, match="hf-hub:someone/model"):
        predict(client, examples / "astronaut.jpg", model="hf-hub:someone/model")


def test_bad_file_is_named_in_one_sentence(client, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(AppError, match=r"^'notes\.jpg' is not an image[^\n]*\.$"):
        predict(client, tmp_path / "notes.jpg")


def test_too_large_file_is_refused(client, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(27_000_000))
    with pytest.raises(Exception, match="maximum"):
        predict(client, tmp_path / "large.jpg")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_files_of_the_server_are_not_read(app, examples, meta):
    photo = {"path": str(examples / "astronaut.jpg"), **meta}
    call = httpx.post(f"{app.url}/gradio_api/call/predict", json={"data": [photo, MODELS[0], False]}).json()
    answer = httpx.get(f"{app.url}/gradio_api/call/predict/{call['event_id']}").text
    assert answer.startswith("event: error")


def test_visitors_at_the_same_time_get_their_own_answers(client, examples):
    photos = [examples / name for name in ("astronaut.jpg", "grace_hopper.jpg")]
    alone = [predict(client, photo) for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: predict(client, photos[i % 2]), range(16)))
    assert alone[0] != alone[1]
    assert together == alone * 8


def test_nothing_of_a_visitor_is_kept_after_the_end(tmp_path):
    Image.new("RGB", (200, 200), "olive").save(tmp_path / "visitor.png")
    files = tmp_path / "files"
    files.mkdir()
    with running_app(TMPDIR=str(files)) as app:
        predict(Client(app.url, verbose=False), tmp_path / "visitor.png")
        assert list(files.rglob("visitor.png"))
        app.process.terminate()
        app.process.wait(timeout=60)
    assert not list(files.rglob("visitor.png"))


def test_requirements_of_the_space_are_ours_at_tested_versions(examples):
    root = examples.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["video"] + extras["demo"]
    needed.remove("fer-zoo[video]")
    pinned = [line for line in (root / "requirements.txt").read_text().splitlines() if "==" in line]
    tested = (root / "constraints.txt").read_text().splitlines()
    assert sorted(map(name_of, pinned)) == sorted(map(name_of, needed))
    assert {line.partition(";")[0].strip() for line in pinned} <= set(tested)


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
