"""The command line: `fer-zoo predict PHOTO...`, `video CLIP`, `export MODEL` and `models`."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from . import __version__
from .drawing import draw_faces
from .faces import DETECTORS, square_face
from .files import atomic
from .images import ImageError, image_files, load_image
from .loading import default_model, load_model
from .models import ModelError
from .onnx_model import OnnxModel, export_onnx, quantize_onnx
from .recognizer import BACKENDS, Face, Recognizer

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
DRAWN_SIDE = 4096  # pixels, of a picture with its faces
DRAWN_BY = "fer-zoo predict --draw"  # as PNG's Software, by which it is known again
CLIP_PIXELS = 7680 * 4320  # of a frame: who gives a clip here has the memory for it
ENOUGH_FACES, MOST_FACES = 100, 512  # to measure the ranges of int8 on
LONGEST_STEM = 200  # bytes of a photo's name in its drawing's: most disks take 255 in all


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit code: 0 done, 2 something asked for could not be done (a line on stderr says what).
    """
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, so that files are deleted
    warnings.filterwarnings("ignore", module="PIL")  # what a picture has wrong is said in our own words
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # file names may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # of the output: what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # `fer-zoo ... | head` has read enough
        return OK if isinstance(error, BrokenPipeError) else _complain(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fer-zoo", description="Read facial expressions in pictures.")
    parser.add_argument("--version", action="version", version=f"fer-zoo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="find the faces in photos and name their expressions")
    predict.add_argument(
        "photos",
        nargs="+",
        type=_path,
        metavar="PHOTO",
        help="image files, or folders that hold some at any depth",
    )
    predict.add_argument(
        "--draw",
        type=_path,
        metavar="FOLDER",
        help=f"write every photo there with its faces drawn in, as PNG of at most {DRAWN_SIDE} pixels a side",
    )
    _add_model_options(predict)
    output = predict.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="a line of JSON for every photo")
    output.add_argument(
        "--csv", action="store_true", help="a row of CSV for every face, or for a photo without one"
    )
    predict.set_defaults(run=_predict)

    video = commands.add_parser("video", help="follow the faces of a clip and name their expressions")
    video.add_argument("clip", type=_path, metavar="CLIP", help="mp4, mov, webm, mkv, avi or MPEG-TS")
    video.add_argument("--out", type=_path, metavar="MP4", help="write the clip with its faces drawn in")
    video.add_argument("--csv", type=_path, metavar="CSV", help="write a row for every face of every frame")
    _add_model_options(video)
    video.add_argument(
        "--smoothing", type=float, default=0.6, help="of the probabilities, 0 (none) to below 1 (%(default)s)"
    )
    video.set_defaults(run=_video)

    export = commands.add_parser("export", help="write a model as ONNX, for programs without PyTorch")
    export.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    export.add_argument("--out", type=_path, required=True, metavar="ONNX", help="the file to write")
    export.add_argument(
        "--int8",
        type=_path,
        metavar="FOLDER",
        help="in 8 bits; the folder holds a hundred or more cut-out faces, of which at most 512 calibrate it",
    )
    export.set_defaults(run=_export)

    models = commands.add_parser("models", help="list the models")
    models.set_defaults(run=_models)
    return parser


def _path(text: str) -> Path:
    if text in ("", "-"):  # the folder here, and no stream: `./-` is a file
        raise argparse.ArgumentTypeError(f"'{text}' is no file or folder")
    return Path(text)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="name, .safetensors or .onnx file (default: the best installed)")
    parser.add_argument("--device", help="where it runs: cpu, cuda, mps, ... (default: cpu)")
    parser.add_argument(
        "--backend",
        default="torch",
        choices=BACKENDS,
        help="what runs the network; onnx is faster on a CPU, but exports it first, which takes seconds",
    )
    parser.add_argument(
        "--faces", default="auto", choices=DETECTORS, help="face detector; 'whole': every picture is one face"
    )


def _predict(args: argparse.Namespace) -> int:
    try:
        recognizer = _recognizer(args)
        draw = _picture_writer(args.draw) if args.draw else None
    except ValueError as error:  # of the model, the detector, the device, the backend or the folder
        return _complain(error)
    write = (
        _json_writer(args, recognizer)
        if args.json
        else _csv_writer(recognizer.labels)
        if args.csv
        else _write_text
    )
    code = OK
    photos, empty = _photos(args.photos)
    for folder in empty:
        code = _complain(f"There is no image in the folder '{folder}'.")
    # disable=None: a bar only where somebody looks at it
    for photo in tqdm(photos, unit="photo", disable=None if len(photos) > 1 else True):
        try:
            image = load_image(photo) if draw else photo  # read once; if not drawn, not copied either
            faces = recognizer(image)
            if draw:
                draw(photo, image, faces)
        except ImageError as error:
            with tqdm.external_write_mode(sys.stderr):
                code = _complain(error)
            continue
        except ValueError as error:  # of the model's values or a full disk, which would not get better
            with tqdm.external_write_mode(sys.stderr):
                return _complain(error)
        with tqdm.external_write_mode(sys.stdout):
            write(photo, faces)
            sys.stdout.flush()
    return code


def _video(args: argparse.Namespace) -> int:
    if args.out is None and args.csv is None:
        return _complain("Say what to write: --out MP4, --csv CSV or both.")
    from .video import Limits, analyze_video  # loads PyAV, of an extra

    # a few small faces at a time are read sooner by one thread; decoder and encoder use the other cores
    torch.set_num_threads(1)
    try:
        recognizer = _recognizer(args)
        with tqdm(total=100, unit="%", disable=None) as bar:
            timeline = analyze_video(
                args.clip,
                recognizer,
                out=args.out,
                csv=args.csv,
                limits=Limits(CLIP_PIXELS),
                smoothing=args.smoothing,
                progress=lambda done: bar.update(round(100 * done) - bar.n),
            )
    except ValueError as error:  # of the model, the detector, the clip, a file or an option
        return _complain(error)
    counts = {"frame": timeline.frames, "face": timeline.faces}
    print(
        f"{args.clip}: {', '.join(f'{count} {name}' + 's' * (count != 1) for name, count in counts.items())}"
    )
    return OK


def _export(args: argparse.Namespace) -> int:
    if args.out.suffix != ".onnx":  # by which it is known when it is read
        return _complain(f"'{args.out}' must end in .onnx.")
    code, faces = OK, []
    try:
        model = load_model(args.model)
        if args.int8 is None:
            export_onnx(model, args.out)
        else:
            photos, _ = _photos([args.int8])
            if not photos:
                return _complain(f"There is no image in the folder '{args.int8}'.")
            # at the network's own size at once: photos may be large, and many
            _, height, width = model.pretrained_cfg["input_size"]
            mode = "L" if model.in_chans == 1 else "RGB"
            count = min(len(photos), MOST_FACES)
            for photo in (photos[i * len(photos) // count] for i in range(count)):  # over all folders
                try:
                    face = square_face(load_image(photo)).convert(mode)
                except ImageError as error:
                    code = _complain(error)
                    continue
                faces.append(face.resize((width, height), Image.Resampling.BILINEAR))
            if not faces:
                return code
            if len(faces) < ENOUGH_FACES:
                print(f"fer-zoo: {len(faces)} faces are few: give {ENOUGH_FACES} or more", file=sys.stderr)
            with TemporaryDirectory() as folder:
                source = args.model
                if not isinstance(model, OnnxModel):
                    export_onnx(model, source := Path(folder) / "model.onnx")
                quantize_onnx(source, args.out, faces)
    except (ImageError, ModelError) as error:
        return _complain(error)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    return code


def _recognizer(args: argparse.Namespace) -> Recognizer:
    return Recognizer(args.model, faces=args.faces, device=args.device, backend=args.backend)


def _photos(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The files that are meant, and the folders that hold none; in a folder, not what `--draw` wrote."""
    photos, empty = [], []
    for path in paths:
        if not os.path.isdir(path):  # Path.is_dir raises where a name is too long
            photos.append(path)
            continue
        inside = [file for file in image_files(path) if not _is_drawn(file)]
        photos += inside
        if not inside:
            empty.append(path)
    return photos, empty


def _complain(error: Exception | str) -> int:
    print(f"fer-zoo: {error}", file=sys.stderr)
    return BAD_INPUT


def _picture_writer(folder: Path) -> Callable[[Path, Image.Image, list[Face]], None]:
    """Writes photos with their faces into a folder, which is made if absent; equal names get a number.

    Names are cut where they would be too long for a disk. What it wrote earlier is replaced, any other file
    is not.

    Raises:
        ValueError: It cannot be made, or a file in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"The folder '{folder}' cannot be made ({error.strerror}).") from error
    names: Counter[str] = Counter()
    made_by = PngInfo()
    made_by.add_text("Software", DRAWN_BY)

    def write(photo: Path, image: Image.Image, faces: list[Face]) -> None:
        stem = photo.stem
        if len(whole := os.fsencode(stem)) > LONGEST_STEM:
            stem = whole[:LONGEST_STEM].decode(errors="ignore")
        name = stem.casefold()  # some disks know no case
        path = None
        while path is None or (path.exists() and not _is_drawn(path)):
            names[name] += 1
            path = folder / f"{stem}-faces{f'-{names[name]}' * (names[name] > 1)}.png"
        with atomic(path, ValueError) as partial:
            draw_faces(image, faces, DRAWN_SIDE).save(partial, "PNG", pnginfo=made_by)

    return write


def _is_drawn(file: Path) -> bool:
    """Whether `_picture_writer` wrote it."""
    if "-faces" not in file.name:  # most need not be opened
        return False
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return image.info.get("Software") == DRAWN_BY
    except Exception:  # a damaged header can make a decoder raise anything
        return False


def _write_text(photo: Path, faces) -> None:
    if not faces:
        print(f"{photo}: no face")
    for face in faces:
        x1, y1, x2, y2 = (round(value) for value in face.box)
        print(f"{photo}: {face.marked} {face.confidence:.0%}, face at ({x1}, {y1}) to ({x2}, {y2})")


def _json_writer(args: argparse.Namespace, recognizer: Recognizer):
    found_by = type(recognizer.detector).__name__.lower() if args.faces == "auto" else args.faces
    read_by = {"model": args.model or default_model(), "detector": found_by}

    def write(photo: Path, faces) -> None:
        print(json.dumps({"photo": str(photo), "faces": [face.to_dict() for face in faces]} | read_by))

    return write


def _csv_writer(labels: Sequence[str]):
    columns = ["photo", "face", "x1", "y1", "x2", "y2", "score", "label", "confidence", "unsure"]
    columns += labels
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(columns)

    def write(photo: Path, faces) -> None:
        if not faces:  # so that no photo is lost from a table of them
            rows.writerow([photo, *[""] * (len(columns) - 1)])
        for number, face in enumerate(faces, start=1):
            box = [round(value, 1) for value in face.box]
            verdict = [face.score, face.label, face.confidence, face.unsure]
            rows.writerow([photo, number, *box, *verdict, *face.probs.values()])

    return write


def _models(args: argparse.Namespace) -> int:
    print(f"{'model':24}{'parameters':>12}  {'input':10}weights")
    default = None
    with suppress(ModelError):  # none is installed
        default = default_model()
    for name in timm.list_models("fer_*", pretrained=True):
        cfg = timm.get_pretrained_cfg(name)
        count = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
        size = "x".join(map(str, cfg.input_size))
        where = "installed" if cfg.file else "on the Hub"
        print(f"{name:24}{count:12,}  {size:10}{where}{', the default' * (name == default)}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
