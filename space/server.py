"""Gradio's server, told to answer what it cannot make sense of with one sentence, and to log one line."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse

NONSENSE = "This request could not be answered; /gradio_api/info says what its input should be."

logger = logging.getLogger(__name__)


class Blocks(gr.Blocks):
    """Gradio's blocks, whose errors carry neither a traceback nor a path of this machine."""

    async def process_api(self, *args, **kwargs):
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error as error:
            error.print_exception = False  # some are Gradio's own, such as a slider's
            raise
        except Exception as error:  # pydantic's, Gradio's, the components', our own
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.warning("%s in %s:%s", type(error).__name__, Path(place.filename).name, place.lineno)
            raise gr.Error(NONSENSE, print_exception=False) from None


async def refuse(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": NONSENSE}, status_code=400)


# What Gradio's routes raise on ids, indices and types that do not exist.
EXCEPTION_HANDLERS = dict.fromkeys((LookupError, ValueError, TypeError, AttributeError), refuse)
