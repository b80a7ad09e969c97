"""Files that are whole or absent, and their hashes."""

import hashlib
from pathlib import Path

from fer_zoo.files import atomic


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file that no reader ever sees half.

    Raises:
        OSError: It cannot be written.
    """
    with atomic(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
