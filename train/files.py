"""Files that are whole or absent, their hashes, and where the results lie."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from fer_zoo.files import atomic

RESULTS_DIR = Path(__file__).resolve().parent.parent / "model_cards" / "results"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file that no reader ever sees half, into a folder that is made if absent.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: object) -> None:
    """`write_atomic` of JSON, a line a value."""
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def read_results(name: str, absent: dict | None = None) -> dict:
    """A results file's content; `absent`, where given, if its script was not run."""
    file = RESULTS_DIR / f"{name}.json"
    return absent if absent is not None and not file.exists() else json.loads(file.read_text())


def weights_sha256(model: nn.Module, name: str) -> str:
    """Of a network's weights, by the file that it was loaded from, where there is one.

    Args:
        model: The network.
        name: How it was asked for: a file, a name of the zoo's, or one on the Hub, which may mean others
            tomorrow.
    """
    file = Path(name) if os.path.isfile(name) else model.pretrained_cfg.get("file")
    if file:
        return sha256(Path(file))
    return tensors_sha256(model.state_dict().values())


def tensors_sha256(tensors: Iterable[torch.Tensor]) -> str:
    """Of their values, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def with_metadata(content: bytes, **more: str) -> bytes:
    """A safetensors file with more metadata, if any, and the same tensors, byte for byte.

    The format's own writer orders metadata anew each time; here the same input gives the same bytes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted((header["__metadata__"] | more).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[end:]


def sha256(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
