"""The Space: faces, their expressions, and the evidence for each (`python app.py`).

Builds and starts it; the screens stand in `space/`, a module a tab, and every computation in `fer_zoo`.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

# Read by gradio on import: no usage statistics leave this machine.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from tempfile import TemporaryDirectory

import cv2
import gradio as gr
import torch
from fastapi import Depends

from fer_zoo.faces import DetectorError
from fer_zoo.loading import default_model
from fer_zoo.models import ModelError
from space.about import about_tab
from space.compare import compare_tab
from space.live import live_tab
from space.photo import photo_tab
from space.programs import endpoints
from space.readers import KEPT_SECONDS, MODELS, recognizer
from space.server import EXCEPTION_HANDLERS, Blocks, keep_clean, no_proxy
from space.theme import CSS, HEAD, THEME
from space.video import forget, video_tab
from space.zoo import zoo_tab

TITLE = "# fer-zoo\nFaces, the expression each one shows, and the evidence for it on the face."
MAX_FILE_SIZE = "25mb"
SWEEP_SECONDS = 600  # how often files that are too old are looked for
MAX_THREADS = 8  # that compute: each one that has read a large crowd keeps half a gigabyte
MAX_REMEMBERED = 500  # visitors whose last photo can still be asked about; the oldest go first
MAX_WAITING = 100  # visitors, over all that they wait for; who comes then is told to try later


def build() -> gr.Blocks:
    with Blocks(title="fer-zoo", fill_width=True, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)) as app:
        gr.Markdown(TITLE, elem_id="title")
        with gr.Tabs():
            with gr.Tab("Photo"):
                photo = photo_tab()
            with gr.Tab("Live"):
                live_tab()
            with gr.Tab("Video"):
                video_tab()
            with gr.Tab("Compare") as compare:
                compare_tab(compare, *photo)
            with gr.Tab("Zoo"):
                zoo_tab()
            with gr.Tab("About"):
                about_tab()
        endpoints()
        app.unload(forget)
    return app.queue(status_update_rate=2, default_concurrency_limit=2, max_size=MAX_WAITING)


def main() -> None:
    # visitors are served side by side: a photo that takes every core for itself makes the others wait longer
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        recognizer(MODELS[0] if MODELS else default_model())  # loaded before the first visitor waits for it
    except (ModelError, DetectorError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    warnings.filterwarnings("ignore", module="PIL")  # on damaged photos, with paths of this machine
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, so that files are deleted
    with TemporaryDirectory(prefix="fer-zoo-") as files:
        os.environ["GRADIO_TEMP_DIR"] = files
        app = build()
        # later than Gradio itself, which would otherwise remember for ever what it did not find
        keep_clean(Path(files), SWEEP_SECONDS, KEPT_SECONDS + 2 * SWEEP_SECONDS)
        app.launch(
            theme=THEME,
            css=CSS,
            head=HEAD,
            max_file_size=MAX_FILE_SIZE,
            ssr_mode=False,
            max_threads=MAX_THREADS,
            state_session_capacity=MAX_REMEMBERED,
            footer_links=["api"],
            app_kwargs={"exception_handlers": EXCEPTION_HANDLERS, "dependencies": [Depends(no_proxy)]},
        )


if __name__ == "__main__":
    main()
