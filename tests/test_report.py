"""What is published: controls, robustness, side studies, and that nothing of it is old."""

import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from drawn_fer2013 import draw
from launch import fit_args, run_here
from PIL import Image
from timm.layers.cbam import CbamModule

import train.mean_gradcam
import train.studies
from fer_zoo.faces import Detection
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR
from fer_zoo.recognizer import default_model
from train import cards, claims, controls, figures, paper_page, report, robustness
from train.figures import FIGURES_DIR, draw_model, is_current
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


def side_studies(losses: tuple[float, float], later: float, disgust: float) -> dict:
    """What 20 and 30 epochs, L2 and class weights are told to have brought one network."""

    def one(
        name: str, epochs: int = 20, loss: float = losses[0], accuracy: float = 61.0, recall: float = 20.0
    ) -> dict:
        history = [
            {"epoch": epoch, "loss": 1.0, "val_loss": loss, "val_accuracy": accuracy}
            for epoch in range(1, epochs + 1)
        ]
        figures = {"n": 2400, "accuracy": accuracy, "recall": {"fear": recall + 5, "disgust": recall}}
        config = {
            "recipe_name": name,
            "model": "fer_cnn",
            "fold": 0,
            "labels": "fer2013",
            "recipe": {"epochs": epochs, "seed": 0, "precision": "bf16", "weight_decay": 1e-4},
        }
        return {"config": config, "history": history, "validation_clean": figures}

    return {
        "paper": one("paper"),
        "paper-30": one("paper-30", epochs=30, accuracy=later),
        "paper-l2": one("paper-l2", loss=losses[1]),
        "paper-weights": one("paper-weights", recall=disgust),
    }


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


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (side_studies((1.8, 1.4), later=59.0, disgust=45.0), ["Holds"] * 3),
        (side_studies((1.8, 1.7), later=65.0, disgust=10.0), ["Does not hold"] * 3),
        (side_studies((1.2, 1.1), later=61.5, disgust=30.0), ["Undecided"] * 3),
    ],
)
def test_side_studies_decide_the_papers_claims(found, verdicts):
    judged = claims.judge_studies({"fer_cnn": found})
    assert all(
        f" (fer_cnn).** {verdict}: " in line for line, verdict in zip(judged[::2], verdicts, strict=True)
    )
    assert all(f" ({claims.BEST}).** Not measured yet" in line for line in judged[1::2])
    assert "weight decay of 0.0001" in judged[0] and "the last five of 20 epochs have 61.00 %" in judged[2]
    both = claims.judge_studies({"fer_cnn": found, claims.BEST: found})
    assert len(both) == 6 and not any("Not measured yet" in line for line in both)


def fold(confused: tuple[str, str] = ("sad", "neutral"), **recall: float) -> dict:
    """Scores of a fold in which these two expressions are confused most."""
    confusion = np.full((7, 7), 5)
    one, two = map(EXPRESSIONS.index, confused)
    confusion[one, two] += 10
    return {"recall": dict.fromkeys(EXPRESSIONS, 60.0) | recall, "confusion": confusion.tolist()}


def test_claims_about_expressions_hold_fold_by_fold():
    folds = [fold(disgust=20.0, happy=80.0), fold(disgust=59.0, happy=71.0)]
    mixed = [*folds, fold(disgust=61.0, happy=69.0, confused=("sad", "fear"))]
    for judge, names, other in (
        (claims._lowest, ["disgust"], ["fear"]),
        (claims._only_over, ["happy"], ["happy", "neutral"]),
        (claims._most_confused, ["neutral", "sad"], ["angry", "sad"]),
    ):
        assert judge(folds, *names)[0] is True
        assert judge(folds, *other)[0] is False
        assert judge(mixed, *names)[0] is None
    assert claims._most_confused(folds, "angry", "sad")[1] == (
        "angry and sad 20 times, sad and neutral 40 times, of 510 faces"
    )
    assert claims._lowest(folds, "disgust")[1].startswith("disgust (39.5 ± 27.6)")
    counts = {"fear": 90, "disgust": 10, "happy": 200}
    assert claims._underrepresented(counts, "disgust", "fear")[0] is True
    assert claims._underrepresented(counts | {"fear": 95}, "disgust", "fear")[0] is False


def seen(eyes: tuple[float, ...], mouth: tuple[float, ...]) -> dict:
    """Shares of bands that are 25 % of the picture, each ± 1."""
    bands = [{"eyes": e, "mouth": m} for e, m in zip(eyes, mouth, strict=True)]
    even = {"area_eyes": 25.0, "area_mouth": 25.0}
    return {"faces": 100, "bands": [band | even | {"eyes_ci95": 1.0, "mouth_ci95": 1.0} for band in bands]}


def test_a_map_favours_a_band_whatever_its_width():
    shares = {"sad": seen((30.0, 31.0), (20.0, 24.0)), "fear": seen((30.0, 25.0), (28.0, 28.0))}
    assert claims._seen_at(shares, "sad", "eyes")[0] is True
    assert claims._seen_at(shares, "sad", "mouth")[0] is False
    assert claims._seen_at(shares, "fear", "eyes")[0] is None  # one band says yes, one no
    assert claims._seen_at(shares, "fear", "mouth")[0] is None  # 1.12 ± 0.04
    assert "the eyes 1.20 ± 0.04, 1.24 ± 0.04, the mouth" in claims._seen_at(shares, "sad", "eyes")[1]


def test_the_share_of_a_map_in_a_band():
    maps = np.zeros((2, 4, 3))
    maps[0, 0, 1] = maps[1, 1, :2] = maps[1, 3, :2] = 1.0
    maps /= maps.sum((1, 2), keepdims=True)
    inside = np.array([[[True, False, False, False], [False, False, True, True]]] * 2)
    found = train.mean_gradcam.shares_of(maps, inside)
    assert (found["eyes"], found["area_eyes"]) == (50.0, 25.0)
    assert (found["mouth"], found["area_mouth"]) == (25.0, 50.0)
    assert found["eyes_ci95"] == pytest.approx(1.96 * 50 / np.sqrt(2))


@pytest.mark.parametrize("shifted", [True, False])
def test_the_papers_class_names_are_read_both_ways(shifted):
    """Its surprise may be sad, its neutral surprise and its sad neutral."""
    surprise, neutral, sad = ("sad", "surprise", "neutral") if shifted else ("surprise", "neutral", "sad")
    best = [fold((sad, neutral), **{surprise: 36.0, "happy": 85.0, neutral: 75.0})] * 3
    shares = {name: seen((25.0,), (25.0,)) for name in EXPRESSIONS} | {surprise: seen((40.0,), (20.0,))}
    said = claims.judge_shift(best, shares)
    holding = [line.split(" | ")[2 if shifted else 1] for line in said.splitlines()[2:6]]
    assert all(cell.startswith("Holds: ") for cell in holding)
    assert ("The shifted reading fits better" in said) == shifted
    assert ("0 hold as written and 4 shifted" in said) == shifted


def test_words_about_the_others_name_who_is_surely_ahead(monkeypatch):
    def ours(model: str, accuracy: float, f1: float) -> dict:
        return {"model": model, "splits": {"test": {"accuracy": accuracy, "macro_f1": f1, "n": 3589}}}

    rows = [ours("fer_a.fer2013", 75.0, 70.0), ours("fer_b.fer2013", 66.0, 60.0), ours("fer_c.paper", 50, 40)]
    peers = [
        {"package": name, "weights": "default", "accuracy": a, "macro_f1": f}
        for name, a, f in (("one", 65.0, 66.0), ("two", 60.0, 67.0))
    ]
    monkeypatch.setattr(report, "_of_labels", lambda labels: rows)
    monkeypatch.setattr(report, "_peers", lambda: peers)
    said = report._against_peers()
    assert "The best of them have 65.0 % accuracy and 67.0 % macro-F1" in said
    assert "More accurate are `fer_a.fer2013`, `fer_b.fer2013`; beyond chance" in said
    assert "interval of the difference, `fer_a.fer2013`. Less accurate are `fer_c.paper`" in said
    assert "Of higher macro-F1: `fer_a.fer2013`." in said
    monkeypatch.setattr(report, "_of_labels", lambda labels: rows[2:])
    assert "More accurate are none of ours" in report._against_peers()


def test_differences_and_what_they_decide():
    low, high = claims.difference((60.0, 98), (50.0, 98))
    p, q = (0.6 * 98 + 1) / 100, 0.5
    half = 1.96 * np.sqrt(p * (1 - p) / 100 + q * q / 100)
    assert (low, high) == pytest.approx((100 * (p - q - half), 100 * (p - q + half)))
    assert claims.is_more((low, high)) is None
    assert claims.is_more(claims.difference((75.0, 1000), (70.0, 1000))) is True
    assert claims.is_more(claims.difference((0.0, 50), (50.0, 50))) is False
    assert [claims.in_all(folds) for folds in ([True] * 3, [False] * 3, [True, False])] == [True, False, None]
    assert claims.every([True, None]) is None
    assert claims.every([True, None, False]) is False
    assert claims.every([True, True]) is True


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe_name": "paper-30"}, "one run of each of paper, paper-30"),
        ({"labels": "ferplus"}, "did not learn the labels of FER2013"),
        ({"recipe": {"epochs": 3, "seed": 0, "precision": "bf16"}}, "not of its 20 epochs"),
        ({"recipe": {"epochs": 20, "seed": 0, "precision": "fp32"}}, "different precisions"),
    ],
)
def test_only_whole_side_studies_are_published(change, says):
    found = list(side_studies((1.8, 1.4), 60.5, 45.0).values())
    train.studies.check("fer_cnn", found)
    with pytest.raises(ValueError, match="of fer_cnn and fer_cbam, not of fer_resnet"):
        train.studies.check("fer_resnet", found)
    found[0]["config"] |= change
    with pytest.raises(ValueError, match=says):
        train.studies.check("fer_cnn", found)


def compared(*others: str, gain: float) -> dict:
    """What `train/compare.py` would write were fer_cbam so much better than these, in each recall too."""
    row = {"mean": -gain, "ci95": 0.4}
    row |= {"seeds": [0, 1], "recall": {name: dict(row) for name in EXPRESSIONS}}
    pairs = [row | {"models": [other, claims.BEST]} for other in others]
    return {"recipe": "paper", "folds": 3, "seeds": [0, 1], "pairs": pairs}


def test_page_on_the_paper_shows_studies_and_comparison(tmp_path, monkeypatch):
    for file in RESULTS_DIR.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "studies.json").unlink()
    monkeypatch.setattr("train.files.RESULTS_DIR", tmp_path)
    found = compared("fer_cnn", "fer_kernel_cnn", gain=10.0)
    found["pairs"] += compared("fer_resnet", gain=0.2)["pairs"]
    found["pairs"] += [pair | {"models": ["fer_resnet", "fer_cnn"]} for pair in found["pairs"][:1]]
    found["pairs"] += [pair | {"models": ["fer_resnet", "fer_kernel_cnn"]} for pair in found["pairs"][:1]]
    (tmp_path / "compare-paper.json").write_text(json.dumps(found))
    page = paper_page.page()
    assert "side studies" not in page and FIGURES_DIR / "studies.png" not in report.figures()
    # three side studies, what pairs would tell that differ in one thing only, and where CBAM helps
    assert page.count("Not measured yet") == 3 + len(paper_page.OPEN) + 1
    assert "best of the four.** Undecided" in page and "-0.2 to +0.6 points against fer_resnet" in page
    assert "| `fer_cnn` less `fer_cbam` | 2 | -10.00 | ± 0.40 | `fer_cbam` is better |" in page

    (tmp_path / "studies.json").write_text(
        json.dumps({name: side_studies((1.8, 1.4), 60.5, 45.0) for name in train.studies.MODELS})
    )
    found["pairs"] += compared(claims.NO_ATTENTION, gain=1.0)["pairs"]
    (tmp_path / "compare-paper.json").write_text(json.dumps(found))
    page = paper_page.page()
    assert "figures/studies.png" in page and page.count("Not measured yet") == len(paper_page.OPEN) - 1
    assert f"**CBAM helps.** Holds: `fer_cbam` against `{claims.NO_ATTENTION}` is +0.6 to +1.4 points" in page
    assert "disgust.** Holds: fear +0.6 to +1.4 points" in page

    draw, *shown = report.figures()[FIGURES_DIR / "studies.png"]
    draw(*shown, tmp_path / "studies.png")
    assert is_current(tmp_path / "studies.png", *shown)


def test_studies_are_gathered_from_runs(source, tmp_path):
    run_dir = tmp_path / "run"
    gather = ("train/studies.py", run_dir, "--out", tmp_path / "studies.json", "--data", source)
    refused = run_here(*gather)
    assert refused.returncode == 2 and "not a finished run" in refused.stderr
    fitted = run_here(*fit_args(source, run_dir, "--recipe", "paper-l2", epochs=2))
    assert fitted.returncode == 0 and run_here(*gather).returncode == 0
    found = json.loads((tmp_path / "studies.json").read_text())["fer_cnn"]["paper-l2"]
    assert [line["epoch"] for line in found["history"]] == [1, 2]
    best = max(line["val_accuracy"] for line in found["history"])
    assert found["validation_clean"]["accuracy"] == pytest.approx(best, abs=0.01)
    # networks that are there already stay
    (tmp_path / "studies.json").write_text(json.dumps({"fer_cnn": {"old": 1}, "fer_cbam": {"paper": 2}}))
    assert run_here(*gather).returncode == 0
    assert json.loads((tmp_path / "studies.json").read_text()) == {
        "fer_cnn": {"paper-l2": found},
        "fer_cbam": {"paper": 2},
    }
    config = json.loads((run_dir / "config.json").read_text())
    for change in ({"data": "other"}, {"fold": 1}):
        (run_dir / "config.json").write_text(json.dumps(config | change))
        refused = run_here(*gather)
        assert refused.returncode == 2
        assert "did not learn the training split that --data names" in refused.stderr
