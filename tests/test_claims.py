"""The course paper's claims: what side studies, folds, maps and pairs of networks decide about them."""

import json

import numpy as np
import pytest
from launch import fit_args, run_here

import train.mean_gradcam
import train.studies
from fer_zoo.labels import EXPRESSIONS
from train import claims, paper_page, report
from train.figures import FIGURES_DIR, is_current
from train.files import RESULTS_DIR


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
        "angry and sad 20 times, sad and neutral 40 times, of 510 answers"
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
