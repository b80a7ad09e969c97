"""What is learnt besides FER2013's labels: FER+'s votes and a teacher's probabilities; several seeds."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from launch import fit_args, interrupt, run, run_here
from safetensors.torch import load_file

from fer_zoo.data import DataError, load_fer2013
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from fer_zoo.models import WEIGHTS_DIR
from train.dataset import Arrays, Fer2013
from train.evaluate import EvaluationError, evaluate
from train.ferplus import clean_validation, learn_votes, majority, usable, votes_of
from train.files import sha256
from train.live_teacher import LiveTeacher
from train.package import package
from train.run_dir import RunError
from train.seeds import same_runs
from train.teacher import read_probabilities, taught, write_probabilities

#        neutral happy surprise sad anger disgust fear contempt unknown no-face
VOTES = {
    "happy": [1, 8, 0, 0, 1, 0, 0, 0, 0, 0],
    "angry": [0, 0, 0, 2, 3, 0, 0, 5, 0, 0],  # contempt does not count
    "a tie": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],
    "four votes": [4, 0, 0, 0, 0, 0, 0, 3, 3, 0],
    "no face": [0, 0, 5, 0, 0, 0, 0, 0, 0, 6],
    "no votes": [0] * 10,
}


@pytest.fixture(scope="module")
def data(few) -> Fer2013:
    return Fer2013.of(load_fer2013(few, check_counts=False))


@pytest.fixture(scope="module")
def runs(few, tmp_path_factory) -> list[Path]:
    """Three seeds of a small network; the last one learnt FER+."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, labels in ((0, "fer2013"), (1, "fer2013"), (2, "ferplus")):
        done = run_here(*tiny(few, folder / str(seed), "--seed", seed, "--labels", labels))
        assert done.returncode == 0, done.stderr
    return [folder / str(seed) for seed in range(3)]


def tiny(source: Path, out: Path, *more: object) -> tuple:
    """The arguments of a training."""
    return fit_args(source, out, "--model", "fer_net_tiny", *more, epochs=1)


def test_majority_of_ferplus():
    votes = np.array(list(VOTES.values()), np.uint8)
    happy, angry = EXPRESSIONS.index("happy"), EXPRESSIONS.index("angry")
    assert majority(votes).tolist() == [happy, angry, -1, -1, -1, -1]
    assert usable(votes).tolist() == [True, True, True, False, False, False]


def test_votes_are_learnt_in_shares(data):
    votes = votes_of(data, "train")
    votes = np.concatenate([votes[:-2], [VOTES["no face"], VOTES["a tie"]]])
    changed = Fer2013(data.splits, data.fingerprint, data.lossy, data.votes | {"train": votes})
    train, validation = learn_votes(changed)
    assert len(train) == len(votes) - 1  # without "no face"; a tie is learnt as one
    np.testing.assert_allclose(train.targets.sum(1), 1)
    label = data["train"].labels
    assert train.targets[0].tolist() == np.eye(7)[label[0]].tolist()  # no votes
    assert train.targets[1, label[1]] == pytest.approx(0.8)
    assert train.targets[-1].tolist() == [0, 0, 0, 0.5, 0, 0, 0.5]
    clean = data.clean("validation")
    clean[0] = False  # it has no votes
    assert np.array_equal(validation.labels, data["validation"].labels[clean])


def test_data_without_votes_says_so(few, data):
    with pytest.raises(DataError, match="no column ferplus"):
        votes_of(Fer2013(data.splits, data.fingerprint, data.lossy, {}), "train")


def test_teacher_is_the_mean_of_its_files(data, tmp_path):
    train = data["train"]
    rows, rng = np.arange(len(train)), np.random.default_rng(0)
    first, second = rng.dirichlet(np.ones(7), (2, len(train)))
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    order = rng.permutation(rows)  # as folds leave it
    write_probabilities(files[0], order, train[order], first[order])
    write_probabilities(files[1], rows, train, second)
    found = read_probabilities(files, train)
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-6)
    soft = taught(train, found, 0.25)
    hard = np.eye(7)[train.labels]
    np.testing.assert_allclose(soft.targets, 0.75 * hard + 0.25 * found, atol=1e-6)
    assert np.array_equal(soft[rows[:3]].targets, soft.targets[:3])
    other = Arrays(train.images[::-1], train.labels)
    with pytest.raises(DataError, match="not about these"):
        read_probabilities(files, other)
    files[1].write_bytes(b"no parquet")
    with pytest.raises(DataError, match="holds no probabilities"):
        read_probabilities(files, train)


def test_hard_targets_and_the_same_as_probabilities_train_alike(few, data, runs, tmp_path):
    train = data["train"]
    teacher, recipe = tmp_path / "teacher.parquet", tmp_path / "mine.toml"
    write_probabilities(teacher, np.arange(len(train)), train, np.eye(7)[train.labels])
    recipe.write_text('base = "paper"\nteacher_share = 1.0')
    done = run_here(*tiny(few, tmp_path / "run", "--seed", 0, "--teacher", teacher, "--recipe", recipe))
    assert done.returncode == 0, done.stderr
    config, loss = (tmp_path / "run" / "config.json").read_text(), "history.jsonl"
    assert len(json.loads(config)["teacher"]) == 1
    losses = [
        json.loads((folder / loss).read_text().splitlines()[0])["loss"]
        for folder in (tmp_path / "run", runs[0], runs[2])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[2] != pytest.approx(losses[1], rel=1e-3)


def test_a_live_teacher_is_the_mean_of_its_networks():
    names, x = ["fer_net_tiny.fer2013", "fer_cnn.fer2013"], torch.randn(40, 1, 48, 48)
    with torch.no_grad():
        probs = [load_model(name).eval()(x).softmax(1) for name in names]
    teacher = LiveTeacher(names)
    torch.testing.assert_close(teacher(x), sum(probs) / 2)
    files = [WEIGHTS_DIR / f"{name}.safetensors" for name in names]
    assert teacher.digests == [sha256(file) for file in files]
    assert teacher.digests[1:] == LiveTeacher([str(files[1])]).digests


def test_a_run_goes_on_with_its_live_teacher_and_no_other(few, runs, tmp_path):
    def args(out: Path, teacher: object) -> tuple:
        return fit_args(few, out, "--model", "fer_net_tiny", "--teacher", teacher, epochs=2)

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    teacher = package(runs[1], "mine", tmp_path)
    done = run(*args(straight, teacher))  # of as many threads as the killed one
    assert done.returncode == 0, done.stderr
    assert json.loads((straight / "config.json").read_text())["teacher"] == [sha256(teacher)]
    interrupt(args(killed, teacher), killed, signal.SIGKILL)
    refused = run_here(*args(killed, "fer_cnn.fer2013"))
    assert refused.returncode == 2 and "holds another run: teacher is" in refused.stderr
    done = run(*args(killed, teacher))
    assert done.returncode == 0 and "resuming" in done.stdout, done.stderr
    first, second = (load_file(folder / "model.safetensors") for folder in (straight, killed))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--teacher", "fer_nte_tiny"), "fer_net_tiny"),
        (("--teacher", "fer_net_tiny", "a.parquet"), "either parquet files or networks"),
        (("--teacher", "mine.onnx"), "mine.onnx cannot teach"),
        (("--teacher", "fer_net_tiny", "--input-size", 64), "its input_size is (1, 48, 48) and not"),
        (
            ("--recipe", "student-quick", "--epochs", 4, "--teacher", "fer_net_tiny"),
            "at one size of image",
        ),
        (("--teacher", "nowhere.parquet"), "nowhere.parquet: holds no probabilities"),
        (("--teacher", "nowhere.parquet", "--labels", "ferplus"), "labels of FER2013 only"),
        (("--images", "faces", "--labels", "ferplus"), "labels of its own"),
    ],
)
def test_wrong_targets_are_one_sentence(few, tmp_path, more, says):
    done = run_here(*tiny(few, tmp_path / "run", *more))
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_seeds_and_their_ensemble(few, data, runs, tmp_path):
    command = ("train/seeds.py", *runs[:2], "--tag", "mine", "--data", few, "--results", tmp_path)
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "seeds-fer_net_tiny.mine.json").read_text())
    test = results["splits"]["test_clean"]
    assert test["ensemble"]["n"] == data.clean("test").sum() and len(test["seeds"]) == 2
    both = [figures["accuracy"] for figures in test["seeds"]]
    assert test["mean"]["accuracy"] == pytest.approx(np.mean(both))
    assert test["sd"]["accuracy"] == pytest.approx(abs(both[0] - both[1]) / 2**0.5)
    chosen = [figures["accuracy"] for figures in results["splits"]["validation_clean"]["seeds"]]
    assert results["best_on_clean_validation"] == int(np.argmax(chosen))
    reads = (tmp_path / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line)["model"] for line in reads] == [
        "fer_net_tiny.mine, seed 0",
        "fer_net_tiny.mine, seed 1",
        "fer_net_tiny.mine, ensemble",
    ]


def test_a_teacher_is_the_mean_of_runs_that_may_differ(runs, few, data, tmp_path):
    files = [tmp_path / f"{name}.parquet" for name in ("both", "first", "second")]
    for file, part in zip(files, (runs[:2], runs[:1], runs[1:2]), strict=True):
        done = run_here("train/teacher.py", *part, "--out", file, "--data", few)
        assert done.returncode == 0, done.stderr
        assert "agrees with" in done.stdout
    both, first, second = (read_probabilities([file], data["train"]) for file in files)
    np.testing.assert_allclose(both.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    assert abs(first - second).max() > 1e-3


def test_what_learnt_votes_is_judged_by_their_majority(runs, few, data, tmp_path):
    file = package(runs[2], "mine", tmp_path, data)
    votes = votes_of(data, "test").copy()
    votes[-1] = VOTES["a tie"]
    tied = Fer2013(data.splits, data.fingerprint, data.lossy, data.votes | {"test": votes})
    decided = (majority(votes) >= 0) & data.clean("test")
    splits = evaluate(file, tied, "test")
    assert list(splits) == ["test", "test_clean", "test_ferplus", "test_clean_ferplus"]
    assert splits["test_clean_ferplus"]["n"] == decided.sum() < splits["test_clean"]["n"]
    assert splits["test_clean_ferplus"].keys() == splits["test_clean"].keys()
    of_labels = evaluate(package(runs[0], "other", tmp_path, data), data, "test")
    assert list(of_labels) == ["test", "test_clean"]

    done = run_here("train/threshold.py", "--weights", tmp_path, "--data", few)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "thresholds.json").read_text())["models"]
    images = {name.partition(".")[2]: row["n"] for name, row in found.items()}
    assert images == {
        "mine": len(clean_validation(data, "ferplus")),
        "other": len(clean_validation(data, "fer2013")),
    }


@pytest.mark.parametrize("row", [[1] * 8, [None] * 10, [300] + [0] * 9, ["one"] * 10])
def test_votes_that_are_none_are_one_sentence(few, row):
    dataset = load_fer2013(few, check_counts=False)
    rows = [row, *[None] * (len(dataset["test"]) - 1)]
    dataset["test"] = dataset["test"].remove_columns("ferplus").add_column("ferplus", rows)
    with pytest.raises(DataError, match="the column ferplus of test must hold the ten counts"):
        Fer2013.of(dataset)


def test_with_other_votes_a_run_is_another(few, runs, tmp_path):
    dataset = load_dataset(str(few))
    rows = [[0, 10] + [0] * 8] * len(dataset["train"])
    dataset["train"] = dataset["train"].remove_columns("ferplus").add_column("ferplus", rows)
    for split, part in dataset.items():
        part.to_parquet(tmp_path / f"{split}.parquet")
    run = shutil.copytree(runs[2], tmp_path / "run")
    args = tiny(tmp_path, run, "--seed", 2, "--labels", "ferplus")
    done = run_here(*args)
    assert done.returncode == 2 and "holds another run: votes is " in done.stderr
    config = json.loads((run / "config.json").read_text())
    del config["votes"]  # as of a run of before they were kept
    (run / "config.json").write_text(json.dumps(config))
    assert run_here(*args).returncode == 0


def test_without_votes_on_validation_no_epoch_can_be_chosen(few, tmp_path):
    dataset = load_dataset(str(few))
    rows = [[0] * 10] * len(dataset["validation"])
    dataset["validation"] = dataset["validation"].remove_columns("ferplus").add_column("ferplus", rows)
    for split, part in dataset.items():
        part.to_parquet(tmp_path / f"{split}.parquet")
    done = run_here(*tiny(tmp_path, tmp_path / "run", "--labels", "ferplus"))
    assert done.returncode == 2 and "nothing to choose the epoch on" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_learnt_other_classes_is_not_judged(runs, data, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["label_names"] = [f"class {n}" for n in range(7)]
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="did not learn FER2013's expressions"):
        package(other, "mine", tmp_path, data)
    with pytest.raises(EvaluationError, match="knows class 0, class 1"):
        evaluate(package(other, "mine", tmp_path), data, "validation")
    with pytest.raises(EvaluationError, match="lacks label_names: give a file that"):
        evaluate(runs[0] / "model.safetensors", data, "validation")


def test_seeds_that_learnt_votes_are_judged_by_their_majority(runs, few, tmp_path):
    again = shutil.copytree(runs[2], tmp_path / "again")
    config = json.loads((again / "config.json").read_text())
    config["recipe"]["seed"] += 1
    (again / "config.json").write_text(json.dumps(config))
    done = run_here("train/seeds.py", runs[2], again, "--tag", "mine", "--data", few, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    splits = json.loads((tmp_path / "seeds-fer_net_tiny.mine.json").read_text())["splits"]
    by_votes, by_labels = (splits[key]["mean"]["accuracy"] for key in ("test_ferplus", "test"))
    assert by_votes != by_labels and splits["validation_clean_ferplus"]["sd"]["accuracy"] == 0


def test_runs_that_differ_in_more_than_the_seed_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="more than the seed"):
        same_runs([runs[0], runs[2]])
    with pytest.raises(ValueError, match="each of another seed"):
        same_runs([runs[0], runs[0]])
    unfinished = shutil.copytree(runs[1], tmp_path / "run")
    (unfinished / "result.json").unlink()
    with pytest.raises(RunError, match="not a finished run"):
        same_runs([runs[0], unfinished])
