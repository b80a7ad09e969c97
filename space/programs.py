"""What programs call, by `gradio_client`, plain HTTP or MCP: named endpoints without a screen."""

from __future__ import annotations

import inspect

import gradio as gr

from fer_zoo.images import ImageError

from .readers import MODELS, model_input, photo_input, read_photo, uploaded
from .server import MAX_FETCHED
from .video import CLIPS, StoppedError, analyse, check, forget, note

MAX_BATCH = MAX_FETCHED  # photos


def predict(photo: str | None, model: str | None, already_face: bool) -> list[dict]:
    """Find the faces in a photo and read the expression that each shows.

    Args:
        photo: The picture: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF, at most 25 MB and 80 megapixels.
        model: One of the models that the Photo tab offers, the first of them if it is null.
        already_face: Take the whole picture as one face, without looking for any.

    Returns:
        One entry a face, largest first, at most 50: its `box` (x1, y1, x2, y2 in pixels), the `score` of the
        detection, the most probable `label` and its `confidence`, whether that is `unsure`, the `probs` of
        the seven expressions, and the `landmarks` where they are known.
    """
    if photo is None:
        raise gr.Error("No photo was given.")
    try:
        return faces_in(photo, model, already_face)
    except ImageError as error:
        raise gr.Error(str(error)) from None


def predict_batch(photos: list[str] | None, model: str | None, already_face: bool) -> list[dict]:
    """Read many photos at once.

    Args:
        photos: At most 32 pictures, each as in `predict`.
        model: One of the models that the Photo tab offers, the first of them if it is null.
        already_face: Take every picture as one face, without looking for any.

    Returns:
        One entry a photo, in order: `faces` as `predict` returns them, or the `error` where it cannot be
        read. None of them is read where one that is named by its address cannot be fetched.
    """
    if not photos or len(photos) > MAX_BATCH:
        raise gr.Error(f"Give 1 to {MAX_BATCH} photos at once, not {len(photos or [])}.")
    answers = []
    for photo in photos:
        try:
            answers.append({"faces": faces_in(photo, model, already_face)})
        except ImageError as error:
            answers.append({"error": str(error)})
    return answers


def faces_in(photo: str, model: str | None, already_face: bool) -> list[dict]:
    """What `predict` returns.

    Raises:
        ImageError: The photo cannot be read.
    """
    _, faces = read_photo(photo, model or MODELS[0], already_face)
    return [face.to_dict() for face in faces]


def video(
    clip: str | None, model: str | None, smoothing: float, request: gr.Request
) -> tuple[str, str, dict]:
    """Follow the faces of a clip and read their expressions over time.

    Args:
        clip: The clip: mp4, mov, webm, mkv or avi, at most 25 MB, 60 seconds, 3,600 frames, 1920x1080 pixels.
        model: One of the models that the Video tab offers, the first of them if it is null.
        smoothing: How much of the old probabilities is kept over a tenth of a second, 0 to 0.95.

    Returns:
        The clip with its faces drawn in (mp4), a table with a row per face and frame (CSV), and a summary:
        `frames`, `seconds`, and how many `faces` were told apart.
    """
    if clip is None:
        raise gr.Error("No clip was given.")
    note(clip, request)
    try:
        timeline, out, csv = analyse(clip, model or MODELS[0], smoothing, lambda share: check(clip, request))
    except StoppedError:
        raise gr.Error("The line broke off: send the clip again.") from None
    finally:
        forget(request)
    summary = {"frames": timeline.frames, "seconds": timeline.seconds, "faces": timeline.faces}
    return str(out), str(csv), summary


def endpoints() -> None:
    """Register every endpoint; its name is its function's."""
    with gr.Column(visible=False):
        photo, model, whole = (
            photo_input("api-photo"),
            model_input("api-model"),
            gr.Checkbox(label="Already a face"),
        )
        photos = gr.File(label="Photos", file_count="multiple")
        photos.preprocess = lambda files: [uploaded(file) for file in files.root] if files else None
        clip, smoothing = gr.Video(label="Clip"), gr.Slider(0, 0.95, value=0.6)
        clip.preprocess = uploaded
        call = gr.Button()
        faces, answers = gr.JSON(label="Faces"), gr.JSON(label="Answers")
        read = gr.Video(label="Annotated clip"), gr.File(label="Table"), gr.JSON(label="Summary")
        for function, inputs, outputs, limits in (
            (predict, [photo, model, whole], faces, {}),
            (predict_batch, [photos, model, whole], answers, {}),
            (video, [clip, model, smoothing], read, {"concurrency_limit": CLIPS, "concurrency_id": "video"}),
        ):
            # else only what stands before "Args:" would be told
            told = inspect.getdoc(function)
            call.click(function, inputs, outputs, api_name=function.__name__, api_description=told, **limits)
