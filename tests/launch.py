"""Training scripts as a user launches them, in processes of their own."""

import os
import socket
import subprocess
import sys
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


def _run(args: list, cwd: Path, env: dict, timeout: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(arg) for arg in args], cwd=cwd, env=ENV | env, capture_output=True, text=True, timeout=timeout
    )
