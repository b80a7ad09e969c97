"""The directory of a run: what disturbs a training, and what is left of it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from launch import ROOT, after, fit_args, interrupt, run, run_here, run_two, stopping
from safetensors.torch import load_file, save_file

from train.run_dir import WEIGHTS, RunError, finished

# Between the size of the weights, 5 MB, and that of Adam's state, 10 MB: each is written by another library.
LIMITS = [1_000_000, 7_000_000]


def refusal(done: object) -> str:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_training_stopped_at_any_rename_goes_on(few, tmp_path, monkeypatch):
    """One more rename is allowed each time: of config, history and checkpoint, weights and result."""

    def fit(out: Path, renames: int) -> int:
        left = iter(range(renames))

        def limited(*args: object) -> None:
            if next(left, None) is None:
                raise OSError("the machine is taken away")
            rename(*args)

        monkeypatch.setattr(os, "replace", limited)
        return run_here(*fit_args(few, out, epochs=2)).returncode

    rename = os.replace
    needed = 7
    assert not fit(tmp_path / "whole", needed)
    whole = load_file(tmp_path / "whole" / WEIGHTS)
    for renames in range(needed):
        out = tmp_path / f"stopped-{renames}"
        assert fit(out, renames) == 2
        assert not fit(out, needed), renames
        assert all(torch.equal(load_file(out / WEIGHTS)[key], value) for key, value in whole.items())
        assert not list(out.glob("checkpoint-*"))
    (tmp_path / "whole" / "checkpoint-0002").mkdir()  # killed between the result and its removal
    assert not fit(tmp_path / "whole", 0)
    assert not list((tmp_path / "whole").glob("checkpoint-*"))


@pytest.fixture(scope="module")
def killed(few, tmp_path_factory) -> Path:
    """A run that has a checkpoint."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    interrupt(fit_args(few, out), out, signal.SIGKILL)
    return out


@pytest.mark.parametrize("first", ["one", "two"])
def test_one_process_goes_on_where_two_were_stopped_and_two_where_one_was(few, killed, tmp_path, first):
    out = tmp_path / "run"
    args = fit_args(few, out)
    if first == "one":
        shutil.copytree(killed, out)
        done = run_two(*args)
    else:
        script = tmp_path / "stopped.py"  # torchrun takes no -c
        _, code, *rest = after(stopping(out, signal.SIGKILL), args)
        script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}")
        run_two(script, *rest)
        done = run(*args)
    assert done.returncode == 0, done.stderr
    assert "after epoch 1" in done.stdout and "hardware was" in done.stdout
    assert len((out / "history.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("harm", ["torn", "foreign", "no manifest", "of another run"])
def test_a_damaged_checkpoint_is_refused(few, killed, tmp_path, harm):
    out = shutil.copytree(killed, tmp_path / "run")
    checkpoint = max(out.glob("checkpoint-????"))
    says = "damaged or not ours"
    if harm == "torn":
        (checkpoint / "optimizer.bin").write_bytes((checkpoint / "optimizer.bin").read_bytes()[:-1])
    elif harm == "foreign":
        (checkpoint / "more.pkl").write_bytes(b"not what was written")
    elif harm == "no manifest":
        (checkpoint / "manifest.json").unlink()
    else:
        other, says = tmp_path / "other", "is of another run"
        interrupt(fit_args(few, other, "--seed", 1), other, signal.SIGKILL)
        shutil.rmtree(checkpoint)
        shutil.copytree(max(other.glob("checkpoint-????")), checkpoint)
    assert says in refusal(run_here(*fit_args(few, out)))


def test_folders_of_ones_own_stay(few, tmp_path):
    kept = [tmp_path / name for name in ("checkpoint-old", "checkpoint-0001-keep")]
    for folder in kept:
        folder.mkdir()
    assert run_here(*fit_args(few, tmp_path, epochs=2)).returncode == 0
    assert all(folder.exists() for folder in kept) and not list(tmp_path.glob("checkpoint-????"))


def test_weights_that_the_run_did_not_write_are_refused(few, tmp_path):
    args = fit_args(few, tmp_path, epochs=1)
    assert run_here(*args).returncode == 0
    state = load_file(tmp_path / WEIGHTS)
    save_file({key: value + 1 for key, value in state.items()}, tmp_path / WEIGHTS)
    assert "is not the file that the run wrote" in refusal(run_here(*args))


def test_a_run_that_never_came_to_a_checkpoint_may_be_tried_otherwise(source, tmp_path):
    recipe = tmp_path / "hot.toml"
    recipe.write_text('base = "paper"\nlr = 1e30\n')
    out = tmp_path / "run"
    assert "try a lower lr" in refusal(run_here(*fit_args(source, out, "--recipe", recipe, epochs=1)))
    done = run_here(*fit_args(source, out, epochs=1))
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "config.json").read_text())["recipe"]["lr"] == 0.001
    says = refusal(run_here(*fit_args(source, out, epochs=4)))
    assert "recipe.epochs is 1 there and 4 now" in says


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_no_training_wrote_stays(few, tmp_path, name):
    (tmp_path / name).write_text('{"architecture": "fer_cnn"}')
    says = refusal(run_here(*fit_args(few, tmp_path, epochs=1)))
    assert f"holds a {name} that is of no run" in says
    assert (tmp_path / name).read_text() == '{"architecture": "fer_cnn"}'


def test_a_folder_of_something_else_is_no_finished_run(tmp_path):
    for name in ("config.json", "result.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(RunError, match="no training wrote it"):
        finished(tmp_path)


def test_one_training_at_a_time(few, tmp_path):
    with FileLock(tmp_path / "lock"):
        assert "another process writes to" in refusal(run_here(*fit_args(few, tmp_path, epochs=1)))
    assert run_here(*fit_args(few, tmp_path, epochs=1)).returncode == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_a_disk_that_is_full_is_one_sentence(few, tmp_path, limit):
    """A limit on the size of files stands in for the disk: the system answers a write in the same way."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    done = run(*after(code, fit_args(few, tmp_path / "run")))
    assert "cannot write the run to" in refusal(done)


def test_a_folder_that_cannot_be_written_is_one_sentence(few, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write the run to" in refusal(run_here(*fit_args(few, tmp_path / "file" / "run")))


def test_a_machine_without_git(few, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run_here(*fit_args(few, tmp_path / "run", epochs=1))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["git"] is None


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("g++"), reason="without a compiler attention is not compiled")
def test_compiled_attention_goes_on_to_the_bit(few, tmp_path):
    """What fer_cbam does on the real data: drawn ones are too few to be worth compiling for."""
    code = "import train.engine; train.engine.COMPILE_PAYS['cpu'] = 1"

    def args(out: Path) -> tuple:
        return after(code, fit_args(few, out, "--model", "fer_cbam"))

    assert run(*args(tmp_path / "whole")).returncode == 0
    interrupt(args(tmp_path / "killed"), tmp_path / "killed", signal.SIGKILL)
    assert run(*args(tmp_path / "killed")).returncode == 0
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["compile"]
    whole, killed = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "killed"))
    assert all(torch.equal(killed[key], value) for key, value in whole.items())
