"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What a file that is open may answer, and does not give its name.
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO}


@contextmanager
def atomic(path: str | Path, failure: type[Exception] = OSError) -> Iterator[Path]:
    """A temporary name beside `path` to write to, renamed to `path` if all goes well and deleted if not.

    Processes may write the same file at once: the last one wins. A link stays one, the file that it names is
    written; it keeps its mode. What exists and is no file, such as a folder or a device, is left alone.

    Args:
        path: The file.
        failure: What is raised where it cannot be written; it is given one sentence.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise failure(f"'{path}' cannot be written (it is no file, but a folder or a device).")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()  # what hinders it is said at once, and in the system's words
        if target.exists():
            shutil.copymode(target, temporary)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if str(error.filename) != str(temporary) and error.errno not in FULL:
            raise  # of something else that failed in between
        raise failure(f"'{path}' cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):  # there may not even be a folder
            temporary.unlink()
