"""The wheel and the Space as others install them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from ast import literal_eval
from base64 import b64encode
from pathlib import Path

import pytest
import yaml
from gradio_client import Client, handle_file
from huggingface_hub import RepoCard
from launch import ROOT

import fer_zoo
from fer_zoo.models import WEIGHTS_DIR
from train.app_process import running_app
from train.files import RESULTS_DIR
from train.hub_folder import write_space

# Predicts while every connection fails; prints a label and which extras are there.
OFFLINE = """
import importlib.util, socket, sys
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from fer_zoo import Recognizer
extras = filter(importlib.util.find_spec, ("gradio", "datasets", "matplotlib", "onnxruntime"))
print(Recognizer()(sys.argv[1])[0].label, *extras)
"""

# Asks the Space at argv[1] for its tools and reads the photo at argv[2], by the protocol's own client.
MCP_CLIENT = """
import asyncio, json, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

async def main(url, photo):
    async with streamable_http_client(url) as (receive, send, *_), ClientSession(receive, send) as session:
        await session.initialize()
        tools = {tool.name: tool.description for tool in (await session.list_tools()).tools}
        arguments = {"photo": photo, "model": "fer_cnn.paper", "already_face": False}
        answer = await session.call_tool("predict", arguments)
        wrong = await session.call_tool("predict", arguments | {"model": "none"})
    texts = [block.text for block in answer.content]
    print(json.dumps([tools, answer.isError, texts, wrong.isError, [block.text for block in wrong.content]]))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "space"
    write_space(folder, "fer-zoo/fer-zoo")
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of the project to build in, which leaves files beside the code."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "runs", "data", "*.egg-info")
    return Path(shutil.copytree(ROOT, tmp_path / "source", ignore=ignored))


def reads_a_photo(folder: Path, python: str = sys.executable) -> None:
    with running_app(folder, python) as app:
        client = Client(app.url, verbose=False)
        photo = handle_file(folder / "examples" / "astronaut.jpg")
        (face,) = client.predict(photo, api_name="/predict")
        assert set(face["probs"]) == set(fer_zoo.EXPRESSIONS)


def clean_python(folder: Path, *requirements: object) -> str:
    """An interpreter that has these requirements and what they need, and nothing else."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *map(str, requirements)], check=True)
    return python


def test_front_matter_of_the_space_is_complete(space):
    data = RepoCard.load(space / "README.md").data.to_dict()
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert (data["sdk"], data["sdk_version"], data["app_file"]) == ("gradio", pinned, "app.py")
    assert data["models"] == sorted(f"fer-zoo/{path.stem}" for path in WEIGHTS_DIR.glob("*.safetensors"))
    assert data["license"] == "apache-2.0" and 0 < len(data["short_description"]) <= 60
    assert (space / data["thumbnail"].partition("/resolve/main/")[2]).is_file()
    assert {"title", "emoji", "colorFrom", "colorTo", "python_version"} <= data.keys()


def test_space_starts_from_its_folder_alone(space):
    assert {"app.py", "fer_zoo", "requirements.txt", "README.md"} <= {path.name for path in space.iterdir()}
    assert not [path for path in space.rglob("*") if path.name in ("__pycache__", "train", "tests")]
    reads_a_photo(space)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_space_starts_in_a_clean_environment(space, tmp_path):
    reads_a_photo(space, clean_python(tmp_path / "env", "-r", space / "requirements.txt"))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_wheel_predicts_offline_in_a_clean_environment(source, tmp_path, examples):
    subprocess.run(
        [sys.executable, "-m", "build", source, "--outdir", tmp_path], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"fer_zoo-{fer_zoo.__version__}-")
    python = clean_python(tmp_path / "env", "-c", ROOT / "constraints.txt", wheel)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    photo = str(examples / "astronaut.jpg")
    done = subprocess.run(
        [python, "-c", OFFLINE, photo], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in fer_zoo.EXPRESSIONS


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_an_mcp_client_reads_a_photo(source, tmp_path):
    python = clean_python(tmp_path / "env", f"{source}[demo,mcp]")
    with running_app(source, python, GRADIO_MCP_SERVER="true") as app:
        jpeg = b64encode((ROOT / "examples" / "astronaut.jpg").read_bytes()).decode()
        photo = f"data:image/jpeg;base64,{jpeg}"
        args = [python, "-c", MCP_CLIENT, f"{app.url}/gradio_api/mcp/", photo]
        done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tools, failed, texts, refused, why = json.loads(done.stdout)
    assert set(tools) == {"predict", "predict_batch", "video"} and "Find the faces" in tools["predict"]
    assert not failed and set(literal_eval(texts[0])[0]["probs"]) == set(fer_zoo.EXPRESSIONS)
    assert refused and "Traceback" not in why[0]


def test_one_version_and_who_to_cite():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fer_zoo.__version__"}
    assert f"## {fer_zoo.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == project["project"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and "version" not in citation


def test_dataset_card_has_the_audits_figures():
    audit = json.loads((RESULTS_DIR / "audit.json").read_text())
    card = RepoCard.load(ROOT / "model_cards" / "dataset.md")
    assert [file["split"] for file in card.data.to_dict()["configs"][0]["data_files"]] == list(
        audit["splits"]
    )
    for split, row in audit["splits"].items():
        figures = [row["images"], *row["classes"].values(), row["repeats"]]
        assert re.search(
            rf"^\| {split} \| \w+ \| {' . '.join(f'{n:,}' for n in figures)} \|$", card.text, re.M
        )
    for overlap in audit["overlaps"]:
        if "train" in overlap["splits"]:
            other = next(split for split in overlap["splits"] if split != "train")
            assert f"{overlap['images'][other]} {other} images" in card.text
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{audit['splits']['train']['repeats']:,} training images repeat" in readme
    assert f"score {audit['leaking']['stratified']:,} images" in readme
    assert (
        f"the {audit['overlaps'][1]['images']['test']} of its {audit['splits']['test']['images']:,}" in readme
    )
