"""Training scripts as a user launches them, in processes of their own."""

import importlib
import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

import train.cli

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "fer2013"
ENV = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}

# A shell's background job ignores Ctrl-C, and hands that on to its children.
STOP = """
import os, signal
import train.engine, train.run_dir

def stopping(*args, called={within}):
    done = called(*args)
    if os.path.exists({checkpoint!r}):
        os.kill(os.getpid(), {how})
    return done

{within} = stopping
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def run(*args: object, cwd: Path = ROOT, timeout: float = 280, **env: str) -> subprocess.CompletedProcess:
    """Runs a script in one process."""
    return _run([sys.executable, *args], cwd, env, timeout)


def run_two(*args: object) -> subprocess.CompletedProcess:
    """Runs a script in two processes that talk by gloo.

    `accelerate launch --cpu --num_processes 2` starts one only, whatever it says.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_addr", "127.0.0.1")
    return _run([sys.executable, *launcher, "--master_port", port, *args], ROOT, {}, 280)


def run_here(*args: object) -> subprocess.CompletedProcess:
    """Runs a script of train/ as `run` does, but in this process, which spares the seconds of its imports."""
    script = importlib.import_module(f"train.{Path(args[0]).stem}")
    reset_accelerate()
    with (
        mock.patch.object(sys, "argv", [str(arg) for arg in args]),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
        pytest.raises(SystemExit) as stopped,
    ):
        train.cli.run(script.main)
    return subprocess.CompletedProcess(args, stopped.value.code or 0, out.getvalue(), err.getvalue())


def reset_accelerate() -> None:
    """A training in this process leaves its precision to no other."""
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def fit_args(source: Path, out: Path, *more: object, epochs: int = 3) -> tuple:
    """A training of fer_cnn."""
    return ("train/fit.py", "--model", "fer_cnn", "--data", source, "--epochs", epochs, "--out", out, *more)


def after(code: str, args: tuple) -> tuple:
    """The arguments of a script, or of what this returned, such that its process runs `code` first."""
    if args[0] == "-c":
        return ("-c", f"{code}\n{args[1]}", *args[2:])
    script = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return ("-c", f"{code}\n{script}", *args)


def interrupt(
    args: tuple, run_dir: Path, how: signal.Signals, within: str = "train.run_dir.RunDir.save", **env: str
) -> subprocess.CompletedProcess:
    """Runs a training that sends itself a signal once the first checkpoint of `run_dir` is there.

    It does so at the end of the function `within`: that of its save, of its next batch, ...
    """
    done = run(*after(stopping(run_dir, how, within), args), **env)
    assert (run_dir / "checkpoint-0001").exists(), done.stderr
    return done


def stopping(run_dir: Path, how: signal.Signals, within: str = "train.run_dir.RunDir.save") -> str:
    """What `interrupt` has the process run first."""
    return STOP.format(checkpoint=str(run_dir / "checkpoint-0001"), how=int(how), within=within)


def _run(args: list, cwd: Path, env: dict, timeout: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(arg) for arg in args], cwd=cwd, env=ENV | env, capture_output=True, text=True, timeout=timeout
    )
