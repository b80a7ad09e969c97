"""Files that are whole or absent, and their hashes."""

import hashlib
import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name and renames, so that no reader ever sees half a file.

    Processes may write the same file at once: the last one wins.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def sha256(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
