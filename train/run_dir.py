"""A run is a directory, and the only thing that a training leaves behind:

config.json        everything that determines the result, but for the order of the images in their source, and
                   records of where it ran; another config is refused
history.jsonl      a line an epoch
checkpoint-NNNN/   the state after epoch NNNN, complete or absent; only the newest is kept
model.safetensors  the weights of the best epoch
result.json        what `fit` returns, and the weights' sha256; written last: then the run is finished
lock               held by the process that writes, and free once that ends in whatever way
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fer_zoo.files import atomic
from train.files import sha256, write_atomic, write_json
from train.recipe import settings_of

# Where and how it ran, from which commit, and what its recipe is called are records, not settings.
RECORDS = ("compile", "git", "hardware", "recipe_name")
# Digests of FER+'s votes and of pretrained weights; runs of before they were kept have none.
LATER = {"votes", "weights"}

CONFIG, HISTORY, RESULT, WEIGHTS = "config.json", "history.jsonl", "result.json", "model.safetensors"


class RunError(ValueError):
    """A run that cannot start or go on; the message is one sentence for the user."""


def finished(path: Path) -> tuple[dict, dict]:
    """The config and the result of a finished run.

    Raises:
        RunError: It is not finished, or no run at all.
    """
    if not (path / RESULT).exists():
        raise RunError(f"{path} is not a finished run: it has no {RESULT}")
    config, result = (_read(path / name) for name in (CONFIG, RESULT))
    if not ({"model", "recipe"} <= config.keys() and "best" in result):
        raise RunError(f"{path} is not a run: its {CONFIG} or {RESULT} is damaged, or no training wrote it")
    return config, result


def _read(file: Path) -> dict:
    """What is in a JSON file; empty where it is missing or holds no object."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_history(path: Path) -> list[dict]:
    """The figures of a run's epochs, in their order."""
    return [json.loads(line) for line in (path / HISTORY).read_text().splitlines()]


def check_learnt(path: Path, config: dict, fingerprint: str) -> None:
    """Refuses a run that did not learn the whole training split of just these data.

    Args:
        path: The run's directory.
        config: Its config.
        fingerprint: Of the data.

    Raises:
        RunError: It learnt others, or all folds but one.
    """
    if (config["data"], config["fold"]) != (fingerprint, 0):
        raise RunError(f"{path} did not learn the training split that --data names")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a finished run's best epoch.

    Raises:
        RunError: The file is missing or damaged, or not the one that the run wrote.
    """
    _, result = finished(path)
    try:
        digest = sha256(path / WEIGHTS)
        if result.get("sha256", digest) != digest:  # runs of before it was kept have none
            raise RunError(f"{path / WEIGHTS} is not the file that the run wrote: train that run again")
        return load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path / WEIGHTS} cannot be read ({error}): train that run again") from error


def keep_config(path: Path, config: dict, accelerator: Accelerator, anew: bool = False) -> dict:
    """Writes config.json into a directory, which is made if absent, or refuses one of another config.

    Args:
        path: The directory.
        config: JSON-able.
        accelerator: Its main process writes.
        anew: Write it also where there is one.

    Returns:
        What is stored, which may differ in records.

    Raises:
        RunError: It holds another config, or cannot be written or read.
    """
    file = path / CONFIG
    config = json.loads(json.dumps(config))
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if accelerator.is_main_process and (anew or not file.exists()):
            write_json(file, config)
    accelerator.wait_for_everyone()
    try:
        stored = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}): choose another --out") from error
    if "recipe" in stored:
        stored["recipe"] = settings_of(stored["recipe"])
    if found := list(changed(stored, config)):
        changes = "; ".join(f"{key} is {there} there and {now} now" for key, there, now in found)
        again = ", or go on with --precision" if [key for key, *_ in found] == ["recipe.precision"] else ""
        raise RunError(f"{path} holds another run: {changes}. Choose another --out, or remove it{again}")
    return stored


@contextmanager
def locked(path: Path, accelerator: Accelerator) -> Iterator[None]:
    """Keeps other processes out of a directory, which is made if absent.

    Raises:
        RunError: One is in there, or it cannot be written.
    """
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "lock")
        try:
            if accelerator.is_main_process:
                lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(f"another process writes to {path}: choose another --out") from error
    try:
        yield
    finally:
        lock.release()


class RunDir:
    """The directory of one run, shared by all processes of an accelerator, and locked by it.

    Args:
        path: There, and `locked`.
        config: JSON-able; everything that determines the result.
        accelerator: Its main process writes.

    Raises:
        RunError: The directory holds a run of another config or what no run wrote, or cannot be written.
    """

    def __init__(self, path: Path, config: dict, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator
        self.config = config
        # one that did not come as far as a checkpoint may be tried again with other settings
        begun = self._checkpoints() or (path / RESULT).exists()
        # looked for before it is read: another process may just be writing it
        there = [name for name in (CONFIG, WEIGHTS) if (path / name).exists()]
        if there and not begun and "recipe" not in _read(path / CONFIG):
            raise RunError(f"{path} holds a {there[0]} that is of no run: choose another --out")
        self.begun_with = keep_config(path, config, accelerator, anew=not begun)
        self.digest = sha256(path / CONFIG)

    def result(self) -> dict | None:
        """What a finished run returned; None while it is not finished."""
        file = self.path / RESULT
        return json.loads(file.read_text()) if file.exists() else None

    def remove_checkpoints(self) -> None:
        """To be called once the run is finished; a kill may have left some then, too."""
        if self.accelerator.is_main_process:
            for path in (*self._checkpoints(), *self.path.glob("checkpoint-*.tmp")):
                shutil.rmtree(path, ignore_errors=True)

    def save(self, scored: nn.Module, averaged: nn.Module | None, history: list[dict], best: int) -> None:
        """Writes the state after an epoch into a new directory and renames it when whole.

        Args:
            scored: The model whose figures stand in the history's last line.
            averaged: The moving average of the weights, which Accelerate does not know of, or None.
            history: A dict an epoch.
            best: Index of the best epoch.
        """
        older = self._checkpoints()
        final = self.path / f"checkpoint-{len(history):04d}"
        partial = final.with_suffix(".tmp")
        with _writing(self.path):
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(partial))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                if best == len(history) - 1:
                    _save(scored, partial / "best.safetensors")
                else:
                    shutil.copy(older[-1] / "best.safetensors", partial)
                if averaged is not None:
                    _save(averaged, partial / "ema.safetensors")
                progress = {"history": history, "best": best, "config": self.digest}
                (partial / "progress.json").write_text(json.dumps(progress))
                manifest = {file.name: sha256(file) for file in sorted(partial.iterdir())}
                (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))
                for file in partial.iterdir():
                    with file.open("rb+") as written:
                        os.fsync(written)  # else a power cut could keep the name and lose what it stands for
                # first, so that the last epoch's line is never missing: an epoch done again writes it again
                lines = "".join(json.dumps(line) + "\n" for line in history)
                write_atomic(self.path / HISTORY, lines)
                os.replace(partial, final)
                for path in older:
                    shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def resume(self, averaged: nn.Module | None) -> tuple[list[dict], int | None]:
        """Loads the newest checkpoint, if there is one, and returns its history and best epoch's index.

        Raises:
            RunError: The checkpoint is torn, changed, of another run, or holds files that none of ours wrote.
        """
        checkpoints = self._checkpoints()
        if not checkpoints:
            return [], None
        newest = checkpoints[-1]
        try:
            manifest = json.loads((newest / "manifest.json").read_text())
            whole = all(sha256(newest / name) == digest for name, digest in manifest.items())
            foreign = {file.name for file in newest.iterdir()} - manifest.keys() - {"manifest.json"}
        except (OSError, ValueError, AttributeError):
            whole, foreign = False, set()
        if not whole or foreign:
            raise RunError(f"{newest} is damaged or not ours: remove it to start the run anew")
        progress = json.loads((newest / "progress.json").read_text())
        if progress.get("config", self.digest) != self.digest:
            raise RunError(f"{newest} is of another run: remove it to start this one anew")
        # to the CPU: an optimizer that is not fused counts its steps there, a fused one has torch move them
        self.accelerator.load_state(str(newest), map_location="cpu")
        if averaged is not None:
            averaged.load_state_dict(load_file(newest / "ema.safetensors"))
        self.accelerator.print(f"resuming {self.path} after epoch {len(progress['history'])}", flush=True)
        for key in ("hardware", "compile", "git"):
            there, here = self.begun_with.get(key), self.config.get(key)
            if there != here:
                note = f"note: {key} was {there} and is {here} now: the last bits may differ"
                self.accelerator.print(note, flush=True)
        return progress["history"], progress["best"]

    def finish(self, result: dict) -> None:
        """Puts the best weights and the result in place."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            newest = self._checkpoints()[-1]
            with _writing(self.path):
                with atomic(self.path / WEIGHTS) as partial:
                    shutil.copyfile(newest / "best.safetensors", partial)
                write_json(self.path / RESULT, result | {"sha256": sha256(self.path / WEIGHTS)})
        self.accelerator.wait_for_everyone()

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-" + 4 * "[0-9]"))


def _save(model: nn.Module, path: Path) -> None:
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, path)


def changed(first: dict, second: dict, prefix: str = "") -> Iterator[tuple[str, object, object]]:
    """Key and both values of everything but records in which two configs differ, nested keys with a dot."""
    for key in sorted((first | second).keys() - set(RECORDS) - (LATER - (first.keys() & second.keys()))):
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from changed(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            yield f"{prefix}{key}", ours, theirs


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Every way in which a disk says no, as one sentence.

    torch and safetensors report a failed write as a RuntimeError or an error of their own.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write the run to {path}: {error}") from error
    except RuntimeError as error:
        # writev is what a lost process of several says
        if not re.search(r"write(?!v)|iostream|inline_container", str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"cannot write the run to {path} ({reason}): is the disk full?") from error
