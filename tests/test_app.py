"""The Space from outside: its endpoints as a program calls them, and what it leaves behind."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from drawn_clips import decode, moving, rows, write_clip
from gradio.data_classes import FileData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from space.readers import MODELS, uploaded
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


def test_endpoints_say_what_they_take_and_give(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    for name, words in {
        "/predict": "80 megapixels",
        "/predict_batch": "At most 32 pictures",
        "/video": "3,600 frames",
    }.items():
        assert words in endpoints[name]["description"]
    assert [given["label"] for given in endpoints["/video"]["returns"]] == [
        "Annotated clip",
        "Table",
        "Summary",
    ]


LEAVER = """
import sys, time
from gradio_client import Client, handle_file

client = Client(sys.argv[1], verbose=False)
job = client.submit(handle_file(sys.argv[2]), None, 0.6, api_name="/video")
while job.status().code.name != "PROCESSING":
    time.sleep(0.1)
print("it is read", flush=True)
job.result()
"""


def test_who_leaves_lets_others_read_their_clips(app, client, long, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(5))
    leaver = subprocess.Popen(
        [sys.executable, "-c", LEAVER, app.url, long], stdout=subprocess.PIPE, text=True
    )
    with leaver:
        assert leaver.stdout.readline() == "it is read\n"
        leaver.kill()
    job = client.submit(handle_file(clip), None, 0.6, api_name="/video")
    assert job.result(timeout=60)[2]["frames"] == 5


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
