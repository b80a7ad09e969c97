"""Publishing by the real clients to a small Hub on this machine, and pulling from it again."""

import json
import re
import shutil
import threading

import pytest
import timm
import torch
from hub_server import TOKEN, HubServer, running_hub
from huggingface_hub import ModelCard, snapshot_download
from launch import ROOT, run, run_here
from safetensors import safe_open

from fer_zoo import EXPRESSIONS, Recognizer
from fer_zoo.models import WEIGHTS_DIR, ModelError
from train import hub_folder, publish
from train.files import RESULTS_DIR, with_metadata

NAME = min(WEIGHTS_DIR.glob("fer_cnn.*.safetensors")).stem
REPO = f"fer-zoo/{NAME}"

# the Hub's client hands httpx a file in the old way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that this process's clients talk to, with a token that may write and an empty cache."""
    with running_hub() as server:
        constants = "huggingface_hub.constants."
        monkeypatch.setattr(constants + "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants + "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants + "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its retries
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.fixture
def command():
    """Runs publish.py in this process: (exit code, what it printed)."""

    def call(*args: str) -> tuple[int, str]:
        done = run_here("train/publish.py", *args)
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.fixture
def published(hub, command) -> HubServer:
    code, shown = command("model", NAME)
    assert code == 0, shown
    hub.log.clear()
    return hub


def logits(model: torch.nn.Module) -> torch.Tensor:
    gray = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        return model.eval()(gray.expand(-1, model.pretrained_cfg["input_size"][0], -1, -1))


def pull(name: str = f"hf-hub:{REPO}", **kwargs) -> torch.nn.Module:
    return timm.create_model(name, pretrained=True, **kwargs)


def test_what_is_published(published):
    files = published.files(REPO)
    assert files.keys() == {
        *(".gitattributes", "README.md", "config.json", "model.safetensors"),
        *(f"figures/{NAME}.png", f"results/{NAME}.json", "results/test_reads.jsonl"),
    }
    results = json.loads(files[f"results/{NAME}.json"])
    config = json.loads(files["config.json"])
    assert tuple(config["label_names"]) == EXPRESSIONS
    assert config["temperature"] == results["temperature"]
    cfg = config["pretrained_cfg"]
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ([3, 48, 48], [0.5] * 3, [0.5] * 3)
    assert cfg["interpolation"] == "bilinear"

    card = ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.pipeline_tag) == ("timm", "image-classification")
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["fer2013"])
    figures = {(row.dataset_split, row.metric_name): row.metric_value for row in card.data.eval_results}
    for split in ("validation_clean", "test", "test_clean"):
        for metric, key in (("accuracy %", "accuracy"), ("macro-F1 %", "macro_f1"), ("NLL", "nll")):
            assert figures[split, metric] == round(results["splits"][split][key], 4)
    links = re.findall(r"\]\(([^)]+)\)", card.text)
    assert links and set(links) <= files.keys()
    assert hub_folder.sha256(publish.OUT_DIR / NAME / "model.safetensors") in card.text

    with safe_open(publish.OUT_DIR / NAME / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["results_sha256"] == hub_folder.sha256(RESULTS_DIR / f"{NAME}.json")
    assert json.loads(metadata["label_names"]) == list(EXPRESSIONS)


def test_pulled_models_have_the_same_logits(published, examples, tmp_path, monkeypatch):
    expected = logits(pull(NAME))
    torch.testing.assert_close(logits(pull()), expected, atol=1e-5, rtol=1e-5)
    gray = pull(in_chans=1)
    assert Recognizer(gray, faces="whole")(examples / "astronaut.jpg")[0].probs == pytest.approx(
        Recognizer(NAME, faces="whole")(examples / "astronaut.jpg")[0].probs, abs=1e-6
    )
    gray.pretrained_cfg["input_size"] = (1, 48, 48)
    assert torch.equal(logits(gray), expected)

    folder = snapshot_download(REPO, local_dir=tmp_path / "local")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    published.log.clear()
    torch.testing.assert_close(logits(pull()), expected, atol=1e-5, rtol=1e-5)  # from the cache
    torch.testing.assert_close(logits(pull(f"local-dir:{folder}")), expected, atol=1e-5, rtol=1e-5)
    assert not published.log


def test_again_changes_nothing(published, command):
    assert command("model", NAME) == (0, f"written: runs/publish/{NAME}\n{REPO} is up to date\n")
    assert all(line.startswith("GET") for line in published.log)


def test_dry_run_sends_nothing(hub, command):
    code, shown = command("model", NAME, "--dry-run")
    assert code == 0 and f"{REPO}: new model.safetensors\n" in shown and "nothing was sent" in shown
    assert (publish.OUT_DIR / NAME / "model.safetensors").exists()
    assert not hub.repos and all(line.startswith("GET") for line in hub.log)


def test_a_change_goes_to_a_branch(published, command, monkeypatch):
    before = logits(pull())
    monkeypatch.setattr(hub_folder, "ON_THE_HUB", "## Elsewhere\n\n")
    code, shown = command("model", NAME, "--dry-run")
    assert code == 0 and shown.endswith(f"\n{REPO}: changed README.md\n{REPO}: nothing was sent\n")
    assert command("model", NAME, "--revision", "next")[0] == 0
    assert b"## Elsewhere" in published.files(REPO, "next")["README.md"]
    assert b"## Elsewhere" not in published.files(REPO)["README.md"]
    assert torch.equal(logits(pull(f"hf-hub:{REPO}@next")), before)
    assert "up to date" in command("model", NAME, "--revision", "next")[1]


def test_all_to_another_owner_in_private(hub, command):
    assert command("model", "--all", "--repo", "me", "--private")[0] == 0
    assert {name for _, name in hub.repos} == {
        f"me/{path.stem}" for path in WEIGHTS_DIR.glob("*.safetensors")
    }
    assert all(repo.private for repo in hub.repos.values())
    assert command("model", "--all", "--repo", "me/one")[0] == 2


def test_a_space_is_exactly_its_folder(hub, command):
    assert command("space", "--repo", "me")[0] == 0
    repo = hub.repos["space", "me/fer-zoo"]
    files = hub.files("me/fer-zoo", kind="space")
    cards = {f"model_cards/{path.stem}.md" for path in WEIGHTS_DIR.glob("*.safetensors")}
    assert {"app.py", "fer_zoo/recognizer.py", "requirements.txt", *cards} <= files.keys()
    assert not any(name.startswith("model_cards/figures/") for name in files), "it is small"
    assert f"me/{NAME}" in ModelCard(files["README.md"].decode()).data.models
    repo.commit("main", hub.files("me/fer-zoo", kind="space") | {"old.py": b"pass"})
    assert "me/fer-zoo: deleted old.py\n" in command("space", "--repo", "me")[1]
    assert "old.py" not in hub.files("me/fer-zoo", kind="space")
    code, shown = command("space", "--repo", "me")
    assert code == 0 and shown.endswith("me/fer-zoo is up to date\n") and "deleted" not in shown


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (("POST", "/api/repos/create", 401), "set HF_TOKEN to one that may"),
        (("POST", "/commit/", 403), "set HF_TOKEN to one that may"),
        (("POST", "/preupload/", 404), "does not find it"),
        (("POST", "/info/lfs", 429), "too many requests"),
        (("POST", "/commit/", 500), "the Hub is at fault (500)"),
        (("PUT", "/lfs/", "cut"), "cannot be reached"),
    ],
)
def test_a_failed_push_publishes_nothing_and_can_be_repeated(hub, command, fault, sentence):
    hub.faults.append(fault)
    code, shown = command("model", NAME)
    error = shown.splitlines()[-1]
    assert code == 2 and error.startswith(f"error: {REPO}: ") and sentence in error
    assert "Traceback" not in shown
    assert not hub.repos or hub.files(REPO).keys() == {".gitattributes"}
    hub.faults.clear()
    assert command("model", NAME)[0] == 0
    assert "model.safetensors" in hub.files(REPO)


def test_wrong_token_and_no_hub(hub, command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    code, shown = command("model", NAME)
    assert code == 2 and "set HF_TOKEN" in shown and not hub.repos
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    code, shown = command("model", NAME)
    assert code == 2 and "cannot be reached" in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("method", "fault", "sentence"),
    [
        ("HEAD", 401, r"the Hub \(401\) has no such repository, .*: check the name and HF_TOKEN\.$"),
        ("HEAD", 404, r"the Hub \(404\) has no such repository, .*: check the name and HF_TOKEN\.$"),
        ("GET", 429, r"too many requests \(429\): wait some minutes\.$"),
        ("HEAD", 500, r"the Hub is at fault \(500\): try again later\.$"),
        ("GET", "cut", r"the connection to the Hub broke off .*: try again\.$"),
    ],
)
def test_a_failed_pull_is_one_sentence_and_can_be_repeated(published, method, fault, sentence):
    published.faults.append((method, "/resolve/main/", fault))
    with pytest.raises(ModelError, match=rf"^The model 'hf-hub:{REPO}' cannot be loaded: .*{sentence}"):
        Recognizer(f"hf-hub:{REPO}")
    published.faults.clear()
    assert Recognizer(f"hf-hub:{REPO}").labels == EXPRESSIONS


def test_half_a_file_is_completed(published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)

    def wait(_: float) -> None:
        if threading.current_thread() is threading.main_thread():  # the client, not a thread of other tests
            published.faults.clear()

    monkeypatch.setattr("time.sleep", wait)
    published.faults.append(("GET", "/model.safetensors", "cut"))
    torch.testing.assert_close(logits(pull()), logits(pull(NAME)), atol=1e-5, rtol=1e-5)
    whole, rest = (line for line in published.log if re.match("GET .*/model.safetensors", line))
    assert "bytes=" not in whole and re.search(r" bytes=[1-9]\d*-$", rest)


def test_what_is_cached_needs_no_hub(published, monkeypatch):
    expected = logits(pull())
    dead = "http://127.0.0.1:1"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", dead)
    template = dead + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert torch.equal(logits(pull()), expected)
    assert Recognizer(f"hf-hub:{REPO}").labels == EXPRESSIONS
    with pytest.raises(ModelError, match="not in the cache, and the Hub cannot be reached"):
        Recognizer(f"hf-hub:{REPO}@next")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("weights", "its model.safetensors is damaged"),
        ("config", "its config.json is damaged"),
        ("architecture", "Unknown model (fer_unknown)"),
        ("labels", "calls its classes neutral, surprise, sad, happy, fear, disgust, angry, but"),
    ],
)
def test_a_repository_with_a_fault_is_one_sentence(published, tmp_path, harm, sentence):
    folder = shutil.copytree(publish.OUT_DIR / NAME, tmp_path / harm)
    file = folder / ("model.safetensors" if harm == "weights" else "config.json")
    if harm in ("weights", "config"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        config = json.loads(file.read_text())
        config |= (
            {"architecture": "fer_unknown"}
            if harm == "architecture"
            else {"label_names": config["label_names"][::-1]}
        )
        file.write_text(json.dumps(config))
    content = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    published.repos["model", REPO].commit("main", content)
    for place in (f"local-dir:{folder}", f"hf-hub:{REPO}"):
        with pytest.raises(ModelError) as error:
            Recognizer(place)
        assert place in str(error.value) and sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("harm", ["missing", "other"])
def test_weights_without_their_results_are_refused(hub, command, monkeypatch, tmp_path, harm):
    results = tmp_path / "results"
    results.mkdir()
    if harm == "other":
        row = json.loads((RESULTS_DIR / f"{NAME}.json").read_text()) | {"sha256": "0" * 64}
        (results / f"{NAME}.json").write_text(json.dumps(row))
    monkeypatch.setattr(hub_folder, "RESULTS_DIR", results)
    for args in (("model", NAME), ("space",)):
        code, shown = command(*args)
        assert code == 2 and shown.startswith("error: fer_") and "python train/evaluate.py" in shown
    assert not hub.log


def test_labels_in_another_order_are_refused(hub, command, monkeypatch, tmp_path):
    weights, results = tmp_path / f"{NAME}.safetensors", tmp_path / f"{NAME}.json"
    turned = json.dumps(EXPRESSIONS[::-1])
    weights.write_bytes(with_metadata((WEIGHTS_DIR / weights.name).read_bytes(), label_names=turned))
    row = json.loads((RESULTS_DIR / results.name).read_text())
    results.write_text(json.dumps(row | {"sha256": hub_folder.sha256(weights)}))
    monkeypatch.setattr("train.evaluate.WEIGHTS_DIR", tmp_path)
    monkeypatch.setattr(hub_folder, "RESULTS_DIR", tmp_path)
    code, shown = command("model", NAME)
    assert code == 2 and "its labels are neutral, surprise, sad" in shown and not hub.log


@pytest.mark.parametrize("name", ["fer_cnn.nothing", "..", "{folder}", "mine.safetensors"])
def test_unknown_weights(hub, command, tmp_path, name):
    kept = tmp_path / "runs" / "kept"
    kept.mkdir(parents=True)
    code, shown = command("model", name.format(folder=kept))
    assert code == 2 and NAME in shown and not hub.log
    assert kept.exists()


def test_by_environment_in_processes_of_their_own(hub, tmp_path):
    """HF_ENDPOINT, HF_TOKEN and HF_HOME as users set them; transformers' pipeline on what was published."""
    env = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
    }
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    done = run(ROOT / "train/publish.py", "model", NAME, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    code = f"""
import json, fer_zoo
from fer_zoo import Recognizer
from PIL import Image
from transformers import pipeline
face = Image.open({str(ROOT / "examples/astronaut.jpg")!r}).convert("RGB").crop((160, 60, 290, 190))
classify = pipeline("image-classification", model={REPO!r})
theirs = {{row["label"]: row["score"] for row in classify(face, top_k=7)}}
print(json.dumps([theirs, Recognizer("hf-hub:{REPO}", faces="whole")(face)[0].probs]))
"""
    done = run("-c", code, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout.splitlines()[-1])
    assert theirs == pytest.approx(ours, abs=2e-3)
