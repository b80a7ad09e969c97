"""The Space in a process of its own, for benchmarks, screenshots and tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT, STOP_LIMIT = 120, 20  # seconds; generous, since other work may hold the machine


@dataclass(frozen=True)
class AppProcess:
    """A running Space.

    Attributes:
        url: Its address on this machine.
        seconds: From the start of the process to the first page.
        process: The process itself.
        log: What it prints, output and errors.
    """

    url: str
    seconds: float
    process: subprocess.Popen
    log: Path


@contextmanager
def running_app(folder: Path = ROOT, python: str = sys.executable, **env: str) -> Iterator[AppProcess]:
    """Start `app.py` on a free port, wait until it serves its page, and end it afterwards.

    Args:
        folder: Where `app.py` is.
        python: The interpreter.
        **env: Environment variables of the app, beside those of this process; the Hub is offline.

    Raises:
        ChildProcessError: It ended or did not answer in time; the message holds what it printed.
    """
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port)} | env
    with tempfile.NamedTemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen([python, "app.py"], cwd=folder, env=env, stdout=log, stderr=log)
        try:
            while True:
                try:
                    httpx.get(url, timeout=START_LIMIT).raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
                if process.poll() is not None or time.perf_counter() - started > START_LIMIT:
                    log.seek(0)
                    raise ChildProcessError(f"app.py did not start:\n{log.read()}")
            yield AppProcess(url, time.perf_counter() - started, process, Path(log.name))
        finally:
            process.terminate()  # it deletes what visitors left
            try:
                process.wait(timeout=STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
