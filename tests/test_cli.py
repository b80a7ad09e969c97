"""The command line, as a user meets it: what stands on stdout, on stderr, and the exit code."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import fer_zoo
from fer_zoo import EXPRESSIONS, Recognizer
from fer_zoo.cli import main

PHOTOS = Path(__file__).resolve().parent.parent / "examples"
ASTRONAUT = PHOTOS / "astronaut.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    metadata = {"architecture": "fer_cnn", "label_names": json.dumps(fer_zoo.EXPRESSIONS)}
    save_file(fer_zoo.create_model("fer_cnn").state_dict(), path, metadata=metadata)
    return str(path)


@pytest.fixture
def predict(capsys, model):
    """Run `fer-zoo predict`; gives the exit code, stdout and stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        code = main(["predict", "--model", model, "--faces", "mtcnn", *map(str, args)])
        return code, *capsys.readouterr()

    return run


def test_a_photo(predict):
    code, out, err = predict(ASTRONAUT)
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert line.startswith(f"{ASTRONAUT}: ")
    assert any(label in line for label in EXPRESSIONS)
    assert "%, face at (1" in line


def test_a_folder_at_any_depth(predict, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/photo.JPG").write_bytes(ASTRONAUT.read_bytes())
    Image.new("RGB", (60, 60)).save(tmp_path / "empty.png")
    (tmp_path / "notes.txt").write_text("no image, and not meant to be one")
    (tmp_path / "deep/._photo.JPG").write_bytes(b"what macOS leaves beside a photo")
    code, out, err = predict(tmp_path)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert "photo.JPG" in first
    assert second == f"{tmp_path / 'empty.png'}: no face"


def test_json_lines(predict):
    code, out, _ = predict("--json", ASTRONAUT, ASTRONAUT)
    assert code == 0
    photos = [json.loads(line) for line in out.splitlines()]
    assert [photo["photo"] for photo in photos] == [str(ASTRONAUT)] * 2
    assert Path(photos[0]["model"]).name == "model.safetensors" and photos[0]["detector"] == "mtcnn"
    (face,) = photos[0]["faces"]
    assert tuple(face["probs"]) == EXPRESSIONS
    assert face["confidence"] == max(face["probs"].values())


def test_csv_rows(predict, tmp_path):
    awkward = tmp_path / 'a "photo", no. 1.jpg'
    awkward.write_bytes(ASTRONAUT.read_bytes())
    Image.new("RGB", (60, 60)).save(tmp_path / "empty.png")
    code, out, _ = predict("--csv", awkward, ASTRONAUT, tmp_path / "empty.png")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["photo"] for row in rows] == [str(awkward), str(ASTRONAUT), str(tmp_path / "empty.png")]
    assert set(rows[2].values()) == {rows[2]["photo"], ""}, "no face, but not lost"
    assert sum(float(rows[0][label]) for label in EXPRESSIONS) == pytest.approx(1, abs=1e-4)
    assert rows[0]["label"] in EXPRESSIONS


def test_answers_of_too_little_confidence_are_unsure(capsys, tmp_path):
    Image.new("L", (60, 60), 128).save(tmp_path / "gray.png")
    confidence = {}
    for photo, faces, unsure in ((ASTRONAUT, "mtcnn", False), (tmp_path / "gray.png", "whole", True)):
        args = ["predict", "--model", "fer_cnn", "--faces", faces, str(photo)]
        assert main([*args, "--json"]) == 0
        (face,) = json.loads(capsys.readouterr().out)["faces"]
        assert face["unsure"] is unsure
        confidence[unsure] = face["confidence"]
        assert main(args) == 0
        assert (f"{face['label']}? " in capsys.readouterr().out) is unsure
    assert confidence[True] < Recognizer("fer_cnn", faces="whole").sure_from <= confidence[False]


def test_photos_with_their_faces_drawn_in(predict, tmp_path):
    for name in ("here/photo.JPG", "there/photo.JPG"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(ASTRONAUT.read_bytes())
    for _ in range(2):
        code, out, err = predict(tmp_path / "here", tmp_path / "there", "--draw", tmp_path / "deep" / "drawn")
        assert (code, err, len(out.splitlines())) == (0, "", 2)
        drawn = sorted((tmp_path / "deep" / "drawn").iterdir())
        assert [file.name for file in drawn] == ["photo-faces-2.png", "photo-faces.png"]
    with Image.open(ASTRONAUT) as photo, Image.open(drawn[0]) as first:
        assert first.size == photo.size and first.tobytes() != photo.convert("RGB").tobytes()
    for photos, folder in ((tmp_path, tmp_path / "deep" / "drawn"), (tmp_path / "here", tmp_path / "here")):
        for _ in range(2):
            code, out, _ = predict(photos, "--draw", folder)
            assert code == 0 and out.count("photo.JPG: ") == len(out.splitlines()), (
                "what was drawn is no photo"
            )
    code, _, err = predict(ASTRONAUT, "--draw", ASTRONAUT)
    assert code == 2 and len(err.splitlines()) == 1


def test_drawing_replaces_nothing_of_anybody_elses(predict, tmp_path):
    for name in ("photo.jpg", "photo-faces.png"):  # both are photos, whatever the second one's name
        (tmp_path / name).write_bytes(ASTRONAUT.read_bytes())
    for _ in range(2):
        code, out, _ = predict(tmp_path, "--draw", tmp_path)
        assert code == 0 and len(out.splitlines()) == 2
        assert (tmp_path / "photo-faces.png").read_bytes() == ASTRONAUT.read_bytes()
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "photo-faces-2.png",
            "photo-faces-faces.png",
            "photo-faces.png",
            "photo.jpg",
        ]
    drawn = tmp_path / "photo-faces-2.png"
    code, out, _ = predict(drawn, "--draw", tmp_path / "again")
    assert (code, out.startswith(f"{drawn}: ")) == (0, True), "what is named is read"


def test_names_as_long_as_a_disk_takes_are_drawn(predict, tmp_path):
    photos = [tmp_path / f"{'я' * 125}{i}.jpg" for i in range(2)]  # 255 bytes
    try:
        for photo in photos:
            photo.write_bytes(ASTRONAUT.read_bytes())
    except OSError as error:
        pytest.skip(f"this disk takes no such name: {error}")
    code, out, err = predict(*photos, "--draw", tmp_path / "drawn")
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    drawn = sorted(file.name for file in (tmp_path / "drawn").iterdir())
    assert drawn == [f"{'я' * 100}-faces-2.png", f"{'я' * 100}-faces.png"]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_closed_streams_hinder_nothing(capsys, monkeypatch, model, tmp_path, closed):
    monkeypatch.setattr(sys, closed, None)
    photos = [str(tmp_path / "none.jpg"), str(ASTRONAUT)]
    assert main(["predict", "--model", model, "--faces", "whole", "--csv", *photos]) == 2
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert (str(ASTRONAUT) in out, "none.jpg" in err) == (closed == "stderr", closed == "stdout")


def test_a_model_whose_values_are_not_finite_is_said_once(capsys, tmp_path):
    broken = fer_zoo.create_model("fer_cnn")
    with torch.no_grad():
        broken.get_classifier().weight[0] = torch.inf
    path = tmp_path / "broken.safetensors"
    metadata = {"architecture": "fer_cnn", "label_names": json.dumps(EXPRESSIONS)}
    save_file(broken.state_dict(), path, metadata=metadata)
    assert main(["predict", *map(str, (ASTRONAUT, ASTRONAUT)), "--model", str(path), "--faces", "whole"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "values are not finite" in sentence


def test_bad_files_cost_a_line_each_and_the_exit_code(predict, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(bomb)
    empty = tmp_path / "empty"
    empty.mkdir()
    code, out, err = predict(text, tmp_path / "gone.jpg", "a" * 300, ASTRONAUT, bomb, empty)
    assert code == 2
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(ASTRONAUT)]
    assert len(err.splitlines()) == 5
    for words in ("no image in the folder", "text.jpg' is not an image", "no file", "too large"):
        assert words in err
    assert all(line.startswith("fer-zoo: ") for line in err.splitlines())


@pytest.mark.parametrize(
    "args, words",
    [
        (["--model", "fer_cban"], "did you mean fer_cbam"),
        (["--model", "gone.safetensors"], "no model file 'gone.safetensors'"),
        (["--model", "a" * 300 + ".safetensors"], "no model file 'aaa"),
        (["--device", "nowhere"], "device 'nowhere' cannot be used"),
        (["--device", "privateuseone"], "device 'privateuseone' cannot be used"),
        (["--backend", "onnx", "--device", "meta"], "An ONNX model runs on the CPU"),
    ],
)
def test_bad_models(capsys, args, words):
    assert main(["predict", str(ASTRONAUT), *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["predict"],
        ["predict", ""],  # an unset variable of a shell's, not the folder here
        ["predict", "x", "--json", "--csv"],
        ["predict", "x", "--faces", "z"],
        ["predict", "x", "--backend", "tpu"],
        ["video", "x", "--csv", "-"],
    ],
)
def test_wrong_use(capsys, args):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    assert "usage: fer-zoo" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_output_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "fer_zoo.cli", "models"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "fer-zoo: [Errno 28] No space left on device\n"


def test_models_table(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split(".")[0] for line in lines}
    assert {"fer_cnn", "fer_kernel_cnn", "fer_resnet", "fer_cbam"} <= names
    (cnn,) = [line for line in lines if line.startswith("fer_cnn.paper")]
    assert "1,274,375" in cnn


def test_as_a_program_in_a_pipe(model):
    """The console script: version, file names that are no text, and a reader that stops early."""
    python = [sys.executable, "-m", "fer_zoo.cli"]
    version = subprocess.run([*python, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"fer-zoo {fer_zoo.__version__}\n"
    many = [*python, "predict", "--model", model, "--faces", "whole", *[str(ASTRONAUT)] * 3, b"gone\xff.jpg"]
    with subprocess.Popen(many, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
