"""Files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic(path: str | Path, failure: type[Exception] = OSError) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` if all goes well and deleted if not.

    Processes may write the same file at once: the last one wins.

    Args:
        path: The file.
        failure: What is raised where it cannot be written; it is given one sentence.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise failure(f"'{path}' cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):  # there may not even be a folder
            temporary.unlink()
