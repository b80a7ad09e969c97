"""Files that are found, and files that are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

# What a file that is open may answer, and does not give its name.
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO}


def visible_files(folder: Path, suffixes: Container[str]) -> list[Path]:
    """The files in a folder and its subfolders that end in one of these, lower case with their dot, sorted.

    Hidden files and folders are passed over: macOS leaves a "._a.jpg" beside each "a.jpg".
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


@contextmanager
def atomic(path: str | Path, failure: type[Exception] = OSError) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` if all goes well and deleted if not.

    Processes of any machines may write the same file at once: the last one wins. A link stays one, the file
    that it names is written. A file keeps its mode, but that its owner may write. What exists and is no file,
    such as a folder or a device, is left alone.

    Args:
        path: The file.
        failure: What is raised where it cannot be written; it is given one sentence.
    """
    there = os.path.exists(path)
    if there and not os.path.isfile(path):
        raise failure(f"'{path}' cannot be written (it is no file, but a folder or a device).")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{target.name}.{token_hex(4)}.tmp")
    try:
        temporary.touch()  # what hinders it is said at once, and in the system's words
        if there:
            os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IWUSR)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if str(error.filename) != str(temporary) and error.errno not in FULL:
            raise  # of something else that failed in between
        raise failure(f"'{path}' cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):  # there may not even be a folder
            temporary.unlink()
