"""What several test files share: no network, the example photos, and the running Space."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before a library is imported that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["ACCELERATE_USE_CPU"] = "true"

import pytest
from drawn_fer2013 import draw, write_parquet
from launch import reset_accelerate

from fer_zoo import Recognizer
from train.app_process import ROOT, AppProcess, running_app


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """A training in this process leaves its precision to no other."""
    yield
    reset_accelerate()


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


@pytest.fixture(scope="session")
def whole() -> Recognizer:
    """Takes each frame as a face, which is quick."""
    return Recognizer("fer_cnn", faces="whole")


@pytest.fixture(scope="session")
def app() -> Iterator[AppProcess]:
    """One running Space for all tests that only look at it."""
    with running_app() as app:
        yield app
