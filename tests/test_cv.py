"""Cross-validation, in one process and in two, its data as a pack and its speed, on small drawn data."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drawn_fer2013 import draw, write_parquet
from joblib import cpu_count
from launch import ENV, REAL, ROOT, interrupt, run, run_here, run_two
from safetensors.torch import load_file
from tqdm import tqdm

import train.cli
from fer_zoo.data import DataError, load_fer2013, to_arrays
from fer_zoo.folds import FoldError, leak_free_folds
from fer_zoo.identity import pixel_hashes
from fer_zoo.labels import EXPRESSIONS
from train.compare import compare
from train.cv import PREDICTIONS, finish
from train.dataset import Fer2013
from train.pack import write_pack
from train.run_dir import WEIGHTS

# Nothing that differs between one process and two: dropout has a state of its own in each. Of an odd batch
# two processes hold unequal shares.
EXACT = """
precision = "fp32"
drop_rate = 0.0
epochs = 2
batch_size = 51
optimizer = "sgd"
lr = 0.05
label_smoothing = 0.1
mixup = 0.4
cutmix = 1.0
blur = 1.0
noise = 0.1
erasing = 0.3
sam = 0.05
ema = 0.9
"""


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> Path:
    recipe = tmp_path_factory.mktemp("recipe") / "exact.toml"
    recipe.write_text(EXACT)
    return recipe


@pytest.fixture(scope="module")
def crossed(source, exact, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cv")
    done = run("train/cv.py", "--model", "fer_cnn", "--data", source, "--recipe", exact, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def probs(out: Path, name: str = "fer_cnn") -> np.ndarray:
    table = pq.read_table(out / name / PREDICTIONS)
    return np.stack([table[label].to_numpy() for label in EXPRESSIONS], 1)


def with_repeats(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels and hashes of 7 n images, of which a fifth repeat another one, some under another label."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 10**9, 7 * n)
    hashes[: 7 * n // 5] = hashes[-(7 * n // 5) :]
    return rng.permutation(np.tile(np.arange(7), n)), hashes


def test_no_two_folds_share_an_image():
    labels, hashes = with_repeats()
    folds = leak_free_folds(labels, hashes, 3)
    parts = [set(hashes[folds == fold]) for fold in range(3)]
    assert sum(map(len, parts)) == len(set(hashes))
    for label in range(7):
        counts = np.bincount(folds[labels == label], minlength=3)
        assert counts.min() >= 0.6 * counts.max()
    assert np.array_equal(folds, leak_free_folds(labels, hashes, 3))
    assert not np.array_equal(folds, leak_free_folds(labels, hashes, 3, seed=1))


def test_folds_that_cannot_be_made():
    labels, hashes = with_repeats(n=2)
    with pytest.raises(FoldError, match="at least 2"):
        leak_free_folds(labels, hashes, 1)
    with pytest.raises(FoldError, match="too few for 3 folds"):
        leak_free_folds(labels, hashes, 3)


@pytest.mark.skipif(not REAL.exists(), reason=f"no FER2013 at {REAL}")
def test_no_two_folds_of_fer2013_share_an_image():
    images, labels = to_arrays(load_fer2013(REAL)["train"])
    hashes = pixel_hashes(images)
    folds = leak_free_folds(labels, hashes, 3)
    parts = [set(hashes[folds == fold]) for fold in range(3)]
    assert sum(map(len, parts)) == len(set(hashes)) == 28_709 - 1_236


def test_where_fer2013_is_looked_for(tmp_path, monkeypatch):
    """What --data names, else $FER2013, else data/fer2013."""

    def source(*args: str) -> str:
        parser = train.cli.create_parser("")
        train.cli.add_data_arguments(parser)
        return str(train.cli.source_of(parser.parse_args(args)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013", raising=False)
    with pytest.raises(DataError, match="where is FER2013"):
        source()
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    assert source() == "data/fer2013"
    monkeypatch.setenv("FER2013", "elsewhere")
    assert source() == "elsewhere" and source("--data", "here") == "here"


def test_the_bare_command(tmp_path):
    """fer_cbam, recipe paper, 3 folds: exactly what the README says."""
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "fer2013", draw(per_class=3))
    launcher = Path(sys.executable).with_name("accelerate")
    # relative to here are its default --out and data/fer2013
    (tmp_path / "train").symlink_to(ROOT / "train")
    env = {key: ENV[key] for key in ENV.keys() - {"FER2013", "OMP_NUM_THREADS"}}
    done = subprocess.run(
        [launcher, "launch", "train/cv.py"],
        cwd=tmp_path,
        # the launcher has a GPU used whatever Accelerate is told
        env=env | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "published counts" in done.stderr
    summary = json.loads((tmp_path / "runs" / "cv-paper-0" / "summary.json").read_text())
    assert list(summary["models"]) == ["fer_cbam"] and summary["folds"] == 3
    threads = cpu_count(only_physical_cores=True)
    assert f", {threads} thread" in summary["models"]["fer_cbam"]["folds"][0]["hardware"]
    assert len(probs(tmp_path / "runs" / "cv-paper-0", "fer_cbam")) == 21


def test_a_cross_validation_is_complete(source, crossed):
    table = pq.read_table(crossed / "fer_cnn" / PREDICTIONS).to_pydict()
    images, labels = to_arrays(load_fer2013(source, check_counts=False)["train"])
    assert table["image"] == list(range(280)) and table["label"] == labels.tolist()
    assert table["sha256"] == pixel_hashes(images).tolist()
    np.testing.assert_allclose(probs(crossed).sum(1), 1, atol=1e-5)

    summary = json.loads((crossed / "summary.json").read_text())
    model = summary["models"]["fer_cnn"]
    correct = [np.array(table["label"]) == probs(crossed).argmax(1)][0]
    by_fold = [100 * correct[np.array(table["fold"]) == fold].mean() for fold in (1, 2, 3)]
    assert [fold["accuracy"] for fold in model["folds"]] == pytest.approx(by_fold)
    assert model["mean"]["accuracy"] == pytest.approx(np.mean(by_fold))
    assert model["sd"]["accuracy"] == pytest.approx(np.std(by_fold, ddof=1))
    assert model["pooled"]["n"] == 280
    assert (crossed / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_killed_in_its_second_fold_and_resumed_is_the_same_to_the_bit(source, crossed, exact, tmp_path):
    args = ("train/cv.py", "--model", "fer_cnn", "--data", source, "--recipe", exact, "--out", tmp_path)
    interrupt(args, tmp_path / "fer_cnn" / "fold-2", signal.SIGKILL)
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert "fold-2 after epoch 1" in done.stdout
    for fold in ("fold-2", "fold-3"):
        ours, whole = (load_file(out / "fer_cnn" / fold / WEIGHTS) for out in (tmp_path, crossed))
        for key, value in whole.items():
            assert torch.equal(ours[key], value), f"{fold} {key}"


def test_models_share_their_folds_and_are_compared_fold_by_fold(source, crossed, exact):
    # what the folder holds besides is in the summary, too
    done = run(
        "train/cv.py", "--model", "fer_kernel_cnn", "--data", source, "--recipe", exact, "--out", crossed
    )
    assert done.returncode == 0, done.stderr
    assert "fer_kernel_cnn" in done.stdout and "±" in done.stdout
    one, other = (
        pq.read_table(crossed / name / PREDICTIONS)["fold"] for name in ("fer_cnn", "fer_kernel_cnn")
    )
    assert one.equals(other)
    summary = json.loads((crossed / "summary.json").read_text())
    (pair,) = compare([summary])["pairs"]
    ours, theirs = ([fold["accuracy"] for fold in summary["models"][n]["folds"]] for n in pair["models"])
    assert pair["models"] == ["fer_kernel_cnn", "fer_cnn"]
    assert pair["differences"] == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)])
    assert summary["models"]["fer_cnn"]["folds"][2]["precision"] == "fp32"


def test_one_fold_alone_is_that_fold_of_all(source, crossed, exact, tmp_path):
    args = ("train/cv.py", "--model", "fer_cnn", "--data", source, "--recipe", exact, "--out", tmp_path)
    done = run(*args, "--fold", 2)
    assert done.returncode == 0, done.stderr
    assert "waits for fer_cnn fold 1, fer_cnn fold 3" in done.stdout
    mine, theirs = (folder / "fer_cnn" / "fold-2" / PREDICTIONS for folder in (tmp_path, crossed))
    assert pq.read_table(mine).equals(pq.read_table(theirs))


def test_folds_of_different_runs_are_not_joined(source, exact, tmp_path):
    args = ("train/cv.py", "--model", "fer_cnn", "--folds", 2, "--data", source, "--out", tmp_path)
    args += ("--recipe", exact, "--epochs", 1)
    assert run_here(*args, "--fold", 1).returncode == 0
    done = run_here(*args, "--fold", 2, "--seed", 1)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "recipe.seed is 1 in place of 0" in done.stderr and not (tmp_path / "summary.json").exists()


def test_folds_of_two_divisions_are_not_joined(crossed, tmp_path):
    for name in ("fer_cnn", "another"):
        shutil.copytree(crossed / "fer_cnn", tmp_path / name)
    first, second = (tmp_path / "another" / f"fold-{fold}" / PREDICTIONS for fold in (1, 2))
    moved = pq.read_table(first)
    pq.write_table(moved[1:], first)
    config = {"recipe": "exact", "folds": 3, "train_images": 280}
    with pytest.raises(ValueError, match=r"of another, in .* are not of one division"):
        finish(tmp_path, ["another"], 3, config)
    swapped = moved[:1].set_column(moved.column_names.index("fold"), "fold", [[2]])  # whole again, but unlike
    pq.write_table(pa.concat_tables([pq.read_table(second), swapped], promote_options="permissive"), second)
    with pytest.raises(ValueError, match="are not of one division"):
        finish(tmp_path, ["fer_cnn", "another"], 3, config)
    assert not (tmp_path / "summary.json").exists()
    finish(tmp_path, ["fer_cnn"], 3, config)
    assert list(json.loads((tmp_path / "summary.json").read_text())["models"]) == ["fer_cnn"]


def test_folds_in_parallel_are_the_folds_in_turn(source, crossed, exact, tmp_path):
    args = ("train/cv.py", "--model", "fer_cnn", "--data", source, "--recipe", exact, "--out", tmp_path)
    done = run_two(*args, "--parallel", "folds")
    assert done.returncode == 0, done.stderr
    assert "written: " in done.stdout and (tmp_path / "summary.json").exists()  # by who ends last
    np.testing.assert_array_equal(probs(tmp_path), probs(crossed))


def test_two_processes_train_the_same_weights_as_one(source, crossed, exact, tmp_path):
    args = ("train/cv.py", "--model", "fer_cnn", "--data", source, "--recipe", exact, "--out", tmp_path)
    done = run_two(*args, "--fold", 1)
    assert done.returncode == 0, done.stderr
    fold = tmp_path / "fer_cnn" / "fold-1"
    assert json.loads((fold / "config.json").read_text())["hardware"].startswith("2 x ")
    one, two = (
        load_file(folder / "fer_cnn" / "fold-1" / "model.safetensors") for folder in (crossed, tmp_path)
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=0, msg=key)
    # the weights are those of the best epoch, and all epochs are to be the same
    ours, theirs = (
        pd.read_json(folder / "fer_cnn" / "fold-1" / "history.jsonl", lines=True).drop(columns="seconds")
        for folder in (crossed, tmp_path)
    )
    assert len(ours) == 2
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)
    rows = pq.read_table(crossed / "fer_cnn" / "fold-1" / PREDICTIONS)
    assert pq.read_table(fold / PREDICTIONS)["image"].equals(rows["image"])  # exactly the fold, once each


def test_each_fold_is_logged_by_itself_and_shows_its_progress(few, tmp_path, monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr("train.engine.sys", SimpleNamespace(stderr=terminal))
    shown = {}

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | {"file": io.StringIO()})

        def close(self):
            shown.setdefault(self.desc, (self.n, self.total, self.disable, self.postfix))
            super().close()

    monkeypatch.setattr("train.engine.tqdm", Bar)
    args = ("--model", "fer_cnn", "--data", few, "--epochs", 2, "--folds", 2, "--tracker", "tensorboard")
    done = run_here("train/cv.py", *args, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    logged = {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("events.out.tfevents.*")}
    assert {"fer_cnn-fold-1", "fer_cnn-fold-2"} <= logged
    assert list(shown) == ["fer_cnn, fold 1", "fer_cnn, fold 2"]
    for seen, total, disabled, postfix in shown.values():
        assert seen == total > 0 and not disabled and postfix.startswith("loss=") and "val=" in postfix


def test_answers_of_a_run_that_was_removed_are_given_anew(few, tmp_path):
    fold = tmp_path / "fer_cnn" / "fold-1"
    fold.mkdir(parents=True)
    (fold / PREDICTIONS).write_text("of the weights that were here")
    args = ("train/cv.py", "--model", "fer_cnn", "--data", few, "--epochs", 1, "--fold", 1, "--out", tmp_path)
    assert run_here(*args).returncode == 0
    assert pq.read_table(fold / PREDICTIONS).num_rows > 0


def test_two_processes_are_as_accurate_as_one(source, tmp_path):
    """BatchNorm sees half of each batch on a CPU, so weights differ; what comes out must not."""
    accuracy = {}
    recipe = tmp_path / "exact.toml"
    recipe.write_text('base = "paper"\nprecision = "fp32"\n')
    for name, launch in (("one", run_here), ("two", run_two)):
        args = ("--model", "fer_resnet", "--data", source, "--epochs", 8, "--batch-size", 56)
        done = launch("train/fit.py", *args, "--recipe", recipe, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        config, result = (
            json.loads((tmp_path / name / f).read_text()) for f in ("config.json", "result.json")
        )
        accuracy[config["hardware"][0]] = result["best"]["val_accuracy"]
        correct = result["best"]["val_accuracy"] * result["validation_images"] / 100
        assert correct == pytest.approx(round(correct), abs=1e-3)  # over exactly n images
    error = 100 * np.sqrt(0.25 / 279)
    assert accuracy.keys() == {"1", "2"} and accuracy["1"] > 50
    assert abs(accuracy["1"] - accuracy["2"]) <= error, accuracy


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--model", "fer_resnet", "--pretrained"), "--pretrained would leak"),
        (("--folds", "1"), "at least 2 folds"),
        (("--fold", "4"), "from 1 to 3"),
        (("--model", "fer_cnn", "resnet81"), "did you mean"),
        (("--recipe", "papier"), "no recipe"),
        (("--tracker", "nobody"), "tracker 'nobody'"),
        (("--epochs", "0"), "epochs must be at least 1"),
        ((), "where is FER2013?"),
    ],
)
def test_bad_arguments_are_one_sentence(args, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER2013", raising=False)
    done = run_here("train/cv.py", *args)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert says in sentence


def test_the_benchmark_measures_all_loops(source, tmp_path):
    out = tmp_path / "benchmark.json"
    args = ("--model", "fer_cnn", "--data", source, "--images", 256, "--rounds", 1, "--out", out)
    done = run("train/benchmark.py", *args)
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text())
    assert (measured["images"], measured["rounds"]) == (256, 1)
    row = measured["models"]["fer_cnn"]
    speed = row["images_per_second"]
    assert speed.keys() == {"ours", "plain", "alone"} and min(speed.values()) > 0
    assert row["ours_over_alone"] == pytest.approx(speed["ours"] / speed["alone"])
    assert row["workers"][str(row["best_workers"])] == max(row["workers"].values())
    moved = 1e6 * row["megabytes_per_image"] / (1e9 * row["peak_gigabytes_per_second"])
    assert row["share_of_peak_bytes"] == pytest.approx(speed["ours"] * moved)
    # three convolutions, 32 at 48x48, 64 at 24x24, 128 at 12x12, and 4608 to 256 to 7; backward is twice
    # forward, but for the first convolution, whose input needs no gradient
    first, others = 32 * 9 * 48**2, 64 * 32 * 9 * 24**2 + 128 * 64 * 9 * 12**2 + 4608 * 256 + 256 * 7
    assert row["gflop_per_image"] == pytest.approx((2 * 2 * first + 2 * 3 * others) / 1e9, rel=0.01)
    assert "fer_cnn" in done.stdout
    refused = run_here("train/benchmark.py", *args[:5], 50, *args[6:])
    assert refused.returncode == 2 and "at least a batch, 128" in refused.stderr
    refused = run_here("train/benchmark.py", *args[:-2])
    assert refused.returncode == 2 and "benchmark-cpu.json holds fer_cbam, too" in refused.stderr


def test_a_pack_is_the_same_data(source, tmp_path):
    data, file = Fer2013.of(load_fer2013(source, check_counts=False)), tmp_path / "drawn.pack"
    write_pack(data, file)
    packed = train.cli.load_data(SimpleNamespace(data=str(file)))
    assert packed.fingerprint == data.fingerprint and packed.lossy == data.lossy
    for name, split in data.splits.items():
        assert np.array_equal(packed[name].images, split.images)
        assert np.array_equal(packed[name].labels, split.labels)
        assert np.array_equal(packed.votes[name], data.votes[name])
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="no pack of FER2013"):
        train.cli.load_data(SimpleNamespace(data=str(file)))
