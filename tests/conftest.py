"""What several test files share: no network, the example photos, and the running Space."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# Before a library is imported that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["ACCELERATE_USE_CPU"] = "true"

import pytest
from drawn_fer2013 import draw, write_parquet

import train.cli
from fer_zoo import Recognizer
from train.app_process import ROOT, AppProcess, running_app


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """A training in this process leaves its precision to no other."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder of example photos."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A folder of drawn data that a network can learn, in FER2013's form."""
    return write_parquet(tmp_path_factory.mktemp("fer2013"), draw(per_class=40, waves=True))


@pytest.fixture(scope="session")
def few(tmp_path_factory) -> Path:
    """As `source`, but only as much as makes a training run."""
    return write_parquet(tmp_path_factory.mktemp("few"), draw(per_class=6, waves=True))


@pytest.fixture
def called(source, monkeypatch) -> Callable[..., int | None]:
    """Runs a script's main with such arguments on `source`, in this process; returns its exit code."""

    def call(script: ModuleType, *args: object) -> int | None:
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, args), "--data", str(source)])
        with pytest.raises(SystemExit) as stopped:
            train.cli.run(script.main)
        return stopped.value.code

    return call


@pytest.fixture(scope="session")
def whole() -> Recognizer:
    """Takes each frame as a face, which is quick."""
    return Recognizer("fer_cnn", faces="whole")


@pytest.fixture(scope="session")
def app() -> Iterator[AppProcess]:
    """One running Space for all tests that only look at it."""
    with running_app() as app:
        yield app
