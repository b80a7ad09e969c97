"""The script that makes everything again, and the steps that it consists of."""

import argparse
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from drawn_fer2013 import draw, write_csv
from launch import run, run_here

from train import lineage, reproduce
from train.files import sha256
from train.steps import Step, add_step_arguments, out_of_steps, run_all, step_options


def runs_of(*tags: str, seeds: int = 1) -> list[tuple[str, str, int]]:
    """Network, recipe and seed of what weights of such tags come from."""
    return [
        (model, recipe, seed)
        for tag in tags
        for model, recipe in lineage.RECIPES[tag].items()
        for seed in range(seeds)
    ]


def packaged(step: Step) -> Path:
    """Where `train/package.py` puts the weights of such a run."""
    network, _, _ = step.runs[0].name.partition("-")
    return step.options["folder"] / f"{network}.{step.options['tag']}.safetensors"


def test_every_step_has_a_name_and_a_folder_of_its_own(tmp_path):
    rounds = reproduce.fit_rounds(tmp_path, runs_of("paper", "fer2013", "ferplus", seeds=2), {})
    steps = [step for fits in rounds for step in fits + reproduce.teacher_steps(tmp_path, fits, {})]
    assert len({step.name for step in steps}) == len(steps)
    fits = {step.options["out"]: step.options for step in steps if step.script == "fit.py"}
    for model, recipe in lineage.RECIPES["fer2013"].items():
        assert fits[tmp_path / f"{model}-{recipe}-1"]["recipe"] == recipe
    for model, recipe in lineage.RECIPES["ferplus"].items():
        assert fits[tmp_path / f"{model}-{recipe}-0"]["labels"] == "ferplus"
    without = reproduce.fit_rounds(tmp_path, runs_of("paper", "fer2013"), {})
    assert {step.options["labels"] for fits in without for step in fits} == {"fer2013"}
    steps = reproduce.cv_steps(tmp_path, 2, {"epochs": 1})
    assert len({step.name for step in steps}) == len(steps) == 2 * 6 * 3
    words = steps[-1].command()
    assert words[words.index("--epochs") + 1] == "1"
    assert words[words.index("--model") + 1] == "control_no_attention"


def test_what_a_training_needs_is_made_before_it(tmp_path):
    made = set()
    for fits in reproduce.fit_rounds(tmp_path, runs_of(*lineage.RECIPES, seeds=2), {}):
        for step in reproduce.teacher_steps(tmp_path, fits, {}):
            assert step.runs and set(step.runs) <= made
            made.add(step.options.get("out") or packaged(step))
        for step in fits:
            assert {step.options[key] for key in ("teacher", "start") if key in step.options} <= made
        made |= {step.options["out"] for step in fits}
    assert {
        tmp_path / "teacher-taught.parquet",
        tmp_path / "teachers" / "fer_net.student-full.safetensors",
    } <= made


def test_one_file_is_made_again_with_what_it_comes_from(few, tmp_path):
    command = ("train/reproduce.py", "--only", "fer_kernel_cnn.fer2013", "--seeds", 1, "--data", few)
    command += ("--epochs", 1, "--jobs", 2, "--out", tmp_path)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    runs = {file.parent.name for file in tmp_path.glob("*/result.json")}
    taught_by = {"fer_resnet-strong-mix-0", "fer_cbam-strong-mix-0", "fer_resnet-taught-0"}
    assert runs == taught_by | {"fer_kernel_cnn-student-0"}
    scored = json.loads((tmp_path / "results" / "fer_kernel_cnn.fer2013.json").read_text())
    assert scored["sha256"] == sha256(tmp_path / "weights" / "fer_kernel_cnn.fer2013.safetensors")
    row = next(line for line in done.stdout.splitlines() if line.startswith("fer_kernel_cnn.fer2013"))
    assert row.split()[2] == f"{scored['splits']['test']['accuracy']:.2f}"
    reads = tmp_path / "results" / "test_reads.jsonl"
    assert len(reads.read_text().splitlines()) == 1
    again = run_here(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout and len(reads.read_text().splitlines()) == 1


@pytest.mark.long
def test_a_file_is_made_again_with_its_live_teacher(few, tmp_path):
    command = ("train/reproduce.py", "--only", "fer_resnet.fer2013", "--seeds", 1, "--data", few)
    done = run(*command, "--epochs", 1, "--jobs", 2, "--out", tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    (teacher,) = (tmp_path / "teachers").iterdir()
    for recipe in ("student-live-short", "student-live-again"):
        config = json.loads((tmp_path / f"fer_resnet-{recipe}-0" / "config.json").read_text())
        assert config["teacher"] == [sha256(teacher)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fer_cn.fer2013", "invalid choice: 'fer_cn.fer2013'"),
        ("fer_net.ferplus", "error: this source of FER2013 has no column ferplus"),
    ],
)
def test_what_cannot_be_made_is_said_before_a_training(tmp_path, name, says):
    without_votes = write_csv(tmp_path / "fer2013.csv", draw())
    done = run_here("train/reproduce.py", "--only", name, "--data", without_votes, "--out", tmp_path / "out")
    assert done.returncode == 2 and says in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_has_a_folder_of_its_own():
    parser = argparse.ArgumentParser()
    add_step_arguments(parser)
    args = {words: parser.parse_args(words.split()) for words in ("", "--epochs 1", "--out x --epochs 1")}
    folders = [out_of_steps(given, "reproduce") for given in args.values()]
    assert list(map(str, folders)) == ["runs/reproduce", "runs/reproduce-rehearsal", "x"]
    with pytest.raises(ValueError, match="--epochs must be at least 1, not 0"):
        step_options(parser.parse_args(["--epochs", "0"]))


def test_after_ctrl_c_steps_end_and_no_other_is_started(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text("import time; print('started', flush=True); time.sleep(30); print('done')")
    steps = [Step(name, str(slow), {}) for name in ("first", "second", "third")]
    # a shell's background job, such as this one may be, ignores Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            run_all(steps, 1, tmp_path / "logs")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "logs" / "first.log").read_text() == "started\n"
    assert not (tmp_path / "logs" / "second.log").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_a_failure_those_that_run_are_waited_for_and_no_other_is_started(tmp_path, jobs):
    quick, slow = tmp_path / "quick.py", tmp_path / "slow.py"
    quick.write_text("raise SystemExit('it failed')")
    slow.write_text("import time; print('started', flush=True); time.sleep(1); print('done')")
    names = {"first": quick, "second": slow, "third": slow, "fourth": quick}
    with pytest.raises(ValueError, match="first failed: it failed"):
        run_all([Step(name, str(script), {}) for name, script in names.items()], jobs, tmp_path)
    logs = {file.stem: file.read_text() for file in tmp_path.glob("*.log")}
    assert logs.pop("first") == "it failed\n"
    assert logs == ({} if jobs == 1 else {"second": "started\ndone\n"})


def test_only_steps_side_by_side_are_told_how_many_cores_to_take(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = tmp_path / "cores.py"
    script.write_text("import os; print(os.environ.get('OMP_NUM_THREADS'))")
    for jobs, told in ((1, False), (2, True)):  # of one alone the steps of its own would have all of them
        run_all([Step(f"cores-{jobs}", str(script), {})], jobs, tmp_path)
        assert (tmp_path / f"cores-{jobs}.log").read_text().strip().isdigit() == told


def test_a_folder_of_more_seeds_keeps_them(tmp_path):
    folders = [
        tmp_path / f"fer_cbam-student-live-{name}" for name in ("0", "1", "30-0", "short-0", "again-0")
    ]
    for folder in folders:
        folder.mkdir()
        (folder / "result.json").write_text("{}")
    (tmp_path / "fer_cbam-student-live-2").mkdir()  # is not finished
    assert reproduce.finished_runs(tmp_path, "fer_cbam", "student-live") == folders[:2]


def test_seeds_are_scored_anew_where_one_was_trained_anew(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce, "run_all", lambda steps, *_: asked.append(steps[0].options.get("reason")))
    (tmp_path / "results").mkdir()
    runs = [tmp_path / f"run-{seed}" for seed in range(2)]
    for seed, folder in enumerate(runs):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([seed]))
    kept = {str(seed): reproduce.sha256(folder / "model.safetensors") for seed, folder in enumerate(runs)}
    for scored, reasons in (
        (kept, []),
        ({"0": kept["0"]}, ["2 seeds in place of 1"]),
        (kept | {"1": "another"}, ["other runs of the seeds"]),
    ):
        asked.clear()
        (tmp_path / "results" / "seeds-fer_cnn.mine.json").write_text(json.dumps({"sha256": scored}))
        reproduce.score_seeds(tmp_path, "fer_cnn", "mine", {}, runs, tmp_path)
        assert asked == reasons


def test_a_failing_step_is_named(tmp_path):
    good = Step("good", "compare.py", {}, ("--help",))
    bad = Step("bad", "compare.py", {}, (tmp_path,))
    run_all([good], 1, tmp_path / "logs")
    assert "usage" in (tmp_path / "logs" / "good.log").read_text()
    with pytest.raises(ValueError, match=r"bad failed: error: .*no summary\.json"):
        run_all([good, bad], 2, tmp_path / "logs")
