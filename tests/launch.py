"""Training scripts as a user launches them, in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}


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


def interrupt(args: tuple, run_dir: Path, how: signal.Signals) -> subprocess.Popen:
    """Starts a training and sends it a signal when the first checkpoint of `run_dir` is there."""
    command = [sys.executable, *map(str, args)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell's background job ignores Ctrl-C, and hands that on to its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoint-0001").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.output, process.errors = process.communicate(timeout=120)
    assert not (run_dir / "result.json").exists()
    return process


def _run(args: list, cwd: Path, env: dict, timeout: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(arg) for arg in args], cwd=cwd, env=ENV | env, capture_output=True, text=True, timeout=timeout
    )
