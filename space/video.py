"""Video: a clip, its annotated copy, and what every face in it shows over time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr
import pandas as pd

from fer_zoo.labels import COLORS
from fer_zoo.video import Limits, Timeline, VideoError, analyze_video

from .html import legend
from .readers import DELETED, KEPT_SECONDS, ROOT, model_input, new_file, open_uploaded, recognizer, uploaded

LIMITS = Limits(pixels=1920 * 1080, seconds=60, frames=3600)
EXAMPLE = ROOT / "examples" / "two_faces.mp4"
CLIPS = 1  # at the same time; others wait their turn
LIMITS_IN_WORDS = (
    f"mp4, mov, webm, mkv or avi; at most 25 MB, {LIMITS.seconds:.0f} seconds, {LIMITS.frames:,} frames and "
    "1920x1080 pixels."
)
START = (
    "Every face of the clip is followed and read. Back come the clip with the faces drawn in, what each "
    "shows over time, and a table of it all. A question mark after an expression: the model is unsure. "
    "Take the clip away to stop."
)

# By session, the clip that is there; one that was taken away is read no further.
CLIP: dict[str, str | None] = {}


class StoppedError(Exception):
    """Nobody waits for this reading any more."""


def analyse(
    path: str, model: str, smoothing: float, progress: Callable[[float], None]
) -> tuple[Timeline, Path, Path]:
    """The timeline of a visitor's clip, its annotated copy and its table.

    Raises:
        gr.Error: It cannot be read, or is over a limit.
    """
    out, csv = new_file("faces.mp4"), new_file("faces.csv")
    try:
        timeline = analyze_video(
            open_uploaded(path),
            recognizer(model, "auto"),  # `analyze_video` reduces the frames itself
            out=out,
            csv=csv,
            limits=LIMITS,
            smoothing=smoothing,
            progress=progress,
        )
    except FileNotFoundError:
        raise gr.Error(DELETED.format("clip")) from None
    except VideoError as error:
        raise gr.Error(str(error)) from None
    return timeline, out, csv


def read_clip(
    path: str | None,
    model: str,
    smoothing: float,
    read: tuple | None,
    request: gr.Request,
    progress=gr.Progress(),  # noqa: B008
) -> list | dict:
    """The whole screen for a clip, and what was read how."""
    asked = (path, model, smoothing)
    if path is None:
        return [*nothing("Add a clip first."), None]
    if asked == read:  # it was clicked again while it was read
        return gr.skip()

    def go_on(share: float) -> None:
        check(path, request)
        progress(share, "Reading the clip")

    try:
        go_on(0)
        timeline, out, csv = analyse(path, model, smoothing, go_on)
    except StoppedError:
        return [*nothing(START), None]
    except gr.Error as error:
        return [*nothing(error.message), asked]
    faces = sorted({point.face for point in timeline.points})
    found = f"{timeline.frames:,} frame{'s' * (timeline.frames != 1)}, {timeline.seconds:.1f} seconds, "
    found += f"{timeline.faces} face{'s' * (timeline.faces != 1)}." if timeline.faces else "no face found."
    return [
        found,
        gr.Video(str(out), visible=True),
        timeline,
        gr.Column(visible=bool(faces)),
        gr.Column(visible=timeline.frames > 1),
        gr.Radio(faces, value=faces[0] if faces else None, visible=len(faces) > 1),
        plot(timeline, faces[0]) if faces else None,
        gr.DownloadButton(value=str(csv), visible=bool(timeline.faces)),
        asked,
    ]


def forget(request: gr.Request) -> None:
    """To be called when a visitor leaves: others wait for their turn."""
    CLIP.pop(request.session_hash, None)


def note(path: str | None, request: gr.Request) -> None:
    """To be called before a clip is read, too: where the line broke off in between, it was forgotten."""
    CLIP[request.session_hash] = path


def check(path: str, request: gr.Request) -> None:
    """Raises `StoppedError` where that clip is not there any more."""
    if CLIP.get(request.session_hash) != path:
        raise StoppedError


def another(path: str | None, request: gr.Request) -> list:
    """The screen for another clip or none, of which nothing is read yet."""
    note(path, request)
    return [*nothing(START), None]


def unless_other(path: str | None, read: tuple | None) -> list | dict:
    """Takes a clip's results away where another one has taken its place meanwhile."""
    return gr.skip() if path == (read[0] if read else None) else nothing(START)


def nothing(message: str) -> list:
    return [
        message,
        gr.Video(None, visible=False),
        None,
        gr.Column(visible=False),
        gr.Column(visible=False),
        gr.Radio([], value=None),
        None,
        gr.DownloadButton(value=None),
    ]


def plot(timeline: Timeline | None, face: int) -> pd.DataFrame:
    """The probabilities of one face, a row a time and expression; Gradio drops timelines after a while."""
    if timeline is None:
        raise gr.Error(DELETED.format("clip"))
    rows = [
        (round(point.seconds, 3), name, round(100 * p, 2))
        for point in timeline.points
        if point.face == face
        for name, p in point.probs.items()
    ]
    return pd.DataFrame(rows, columns=["seconds", "expression", "probability (%)"])


def seek(event: gr.SelectData) -> gr.Video:
    """Show the annotated clip from where a part of the timeline was chosen."""
    return gr.Video(playback_position=event.index[0])


def video_tab() -> None:
    timeline, read = gr.State(time_to_live=KEPT_SECONDS), gr.State(time_to_live=KEPT_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            clip = gr.Video(label="Clip", sources=["upload"], height=320, elem_id="clip")
            clip.preprocess = uploaded  # the file itself: nothing is converted
            model = model_input("video-model")
            smoothing = gr.Slider(0, 0.95, value=0.6, step=0.05, label="Smoothing over time")
            gr.Markdown(LIMITS_IN_WORDS)
            start = gr.Button("Read the clip", variant="primary", elem_id="read-clip")
        with gr.Column(scale=3, min_width=300):
            status = gr.Markdown(START, min_height=80, elem_id="video-status", elem_classes="status")
            shown = gr.Video(label="Faces", visible=False, interactive=False, elem_id="annotated")
            gr.Examples([[str(EXAMPLE)]], clip, label="Example")
    with gr.Column(visible=False) as details:
        face = gr.Radio(label="Face", elem_id="video-face")
        with gr.Column() as over_time:
            lines = gr.LinePlot(
                x="seconds",
                y="probability (%)",
                color="expression",
                color_map=COLORS,
                colors_in_legend=[],
                y_lim=[0, 100],
                height=300,
                elem_id="timeline",
            )
            gr.HTML(
                legend(COLORS) + "<p>Drag over a part of the timeline to see the clip from there.</p>",
                apply_default_css=False,
            )
        table = gr.DownloadButton("Table of every face in every frame (CSV)", size="sm", elem_id="csv")
    screen = [status, shown, timeline, details, over_time, face, lines, table]
    private = {"api_visibility": "private", "show_progress": "hidden"}
    start.click(note, clip, None, queue=False, **private).then(
        read_clip,
        [clip, model, smoothing, read],
        [*screen, read],
        trigger_mode="always_last",
        concurrency_limit=CLIPS,
        concurrency_id="video",
        api_visibility="private",
        show_progress_on=[status],
    ).then(unless_other, [clip, read], screen, **private)
    clip.change(another, clip, [*screen, read], queue=False, **private)  # also while others wait
    face.input(plot, [timeline, face], lines, trigger_mode="always_last", **private)
    lines.select(seek, None, shown, trigger_mode="multiple", concurrency_limit=1, **private)
