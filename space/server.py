"""Gradio's server, told to answer what it cannot make sense of with one sentence, and to leave no files."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import gradio as gr
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from gradio_client.utils import async_traverse, is_http_url_like, traverse
from starlette.requests import ClientDisconnect

from .fetch import fetch

NONSENSE = "This request could not be answered; /gradio_api/info says what its input should be."

MAX_FETCHED = 32

logger = logging.getLogger(__name__)


class Blocks(gr.Blocks):
    """Gradio's blocks, whose errors carry neither a traceback nor a path of this machine.

    Files that are named by their address may not be larger than those that are uploaded, nor more than
    `MAX_FETCHED` in a request. A component that was given a `preprocess` of its own keeps it: whatever
    changes a component, such as the choice of an example, has Gradio make the visitor another of its class.
    What a visitor sent and saw last is not kept for deep links: there are none.
    """

    async def preprocess_data(self, block_fn, inputs, state, *args, **kwargs):
        async def fetched(file: dict) -> dict:
            return file | {"path": await fetch(file["path"], self.max_file_size)}

        def elsewhere(value) -> bool:
            return isinstance(value, dict) and is_http_url_like(value.get("path"))

        addresses, misplaced = [], []
        for value, block in zip_longest(inputs, block_fn.inputs[: len(inputs)]):
            found = addresses if getattr(block, "data_model", None) else misplaced
            traverse(value, found.append, elsewhere)
        if misplaced:  # Gradio would fetch them itself
            raise gr.Error(NONSENSE, print_exception=False)
        if len(addresses) > MAX_FETCHED:
            raise gr.Error(f"Give at most {MAX_FETCHED} files by their address, not {len(addresses)}.")
        inputs = await async_traverse(inputs, fetched, elsewhere)
        for block in block_fn.inputs:
            if state and block._id in state and "preprocess" in vars(block):
                state[block._id].preprocess = block.preprocess
        return await super().preprocess_data(block_fn, inputs, state, *args, **kwargs)

    async def process_api(self, block_fn, inputs, state=None, *args, **kwargs):
        try:
            return await super().process_api(block_fn, inputs, state, *args, **kwargs)
        except gr.Error as error:
            error.print_exception = False  # of ours, and of Gradio's own, such as a slider's
            raise
        except Exception as error:  # pydantic's, Gradio's, the components', our own
            log(error)
            raise gr.Error(NONSENSE, print_exception=False) from None
        finally:
            if state is not None:
                state.config_values.clear()


def log(error: Exception) -> None:
    """What it is and where it was raised, without what a visitor sent."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    logger.warning("%s in %s:%s", type(error).__name__, Path(place.filename).name, place.lineno)


def no_proxy(request: Request) -> None:
    """Refuses an address where a file's path belongs: Gradio would hand on what is there, of any size."""
    if any(is_http_url_like(value) for value in request.path_params.values()):
        raise HTTPException(404)


async def refuse(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ClientDisconnect):
        log(error)
    return JSONResponse({"detail": NONSENSE}, status_code=400)


# What Gradio's routes raise on ids, indices and types that do not exist, and when a visitor leaves.
EXCEPTION_HANDLERS = dict.fromkeys(
    (LookupError, ValueError, TypeError, AttributeError, ClientDisconnect), refuse
)


def keep_clean(folder: Path, every: float, seconds: float) -> None:
    """Delete what Gradio loses track of, from now on and in a thread that ends with the program.

    Such are uploads that were cut short and the empty folders of deleted files. What is in the folder now
    stays.

    Args:
        folder: Where Gradio puts files.
        every: Seconds between two looks.
        seconds: Files and folders older than this are deleted.
    """
    kept = set(folder.rglob("*"))

    def look() -> None:
        while True:
            time.sleep(every)
            with suppress(OSError):  # a folder vanished while it was listed: next time
                sweep(folder, kept, time.time() - seconds)

    threading.Thread(target=look, daemon=True).start()


def sweep(folder: Path, kept: set[Path], before: float) -> None:
    """Delete the files and empty folders in a folder that are from before some time, but for those kept."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        with suppress(OSError):  # deleted in the meantime, or a folder that is not empty
            if path not in kept and path.lstat().st_ctime < before:
                path.rmdir() if path.is_dir() else path.unlink()
