"""What several test files share: the running Space, and no network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before any test imports a library that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 120  # seconds; generous, since other work may hold the machine


@dataclass(frozen=True)
class RunningApp:
    """The Space in its own process."""

    url: str
    files: Path  # where it keeps what visitors upload
    process: subprocess.Popen

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of example photos."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def start_app(tmp_path_factory):
    """A function that starts `app.py` on a free port and returns once it answers."""
    import httpx

    apps = []

    def start() -> RunningApp:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        files, log = tmp_path_factory.mktemp("uploads"), tmp_path_factory.mktemp("app") / "log"
        env = os.environ | {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(files)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=env, stdout=output, stderr=output
            )
        app = RunningApp(f"http://127.0.0.1:{port}", files, process)
        apps.append(app)
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(app.url, timeout=30).raise_for_status()
                return app
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"app.py did not start:\n{log.read_text()}")

    yield start
    for app in apps:
        app.process.kill()
        app.process.wait()


@pytest.fixture(scope="session")
def app(start_app) -> Iterator[RunningApp]:
    """One running Space for all tests that only look at it."""
    yield start_app()
