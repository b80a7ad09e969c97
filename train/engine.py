"""The one training loop: uint8 images on the device, augmented there, through Accelerate, exactly resumable.

A run is a directory:
    config.json        everything that determines the result; another config is refused
    history.jsonl      a line an epoch
    checkpoint-NNN/    the state after epoch NNN, complete or absent; only the newest is kept
    model.safetensors  the weights of the best epoch
    result.json        what `fit` returns; written last, so its presence means that the run is finished
"""

import ctypes
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import accelerate
import numpy as np
import timm
import torch
import torch._inductor.config
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from timm.layers.cbam import CbamModule
from timm.optim import create_optimizer_v2
from torch import nn
from tqdm import tqdm

from fer_zoo.preprocess import normalize
from train.augment import augment, random_affine
from train.files import sha256, write_atomic
from train.recipe import Recipe

EVAL_BATCH = 512


class RunError(ValueError):
    """A run that cannot start or go on; the message is one sentence for the user."""


class Split:
    """Images and labels of one split, on the device for the whole run.

    Args:
        images: uint8 (N, 48, 48).
        labels: int64 (N,).
        device: Where training happens.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        self.images = torch.from_numpy(images).unsqueeze(1).to(device)
        self.labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        return len(self.labels)


def create_accelerator(recipe: Recipe) -> Accelerator:
    """An Accelerator in the recipe's precision."""
    _keep_freed_memory()
    return Accelerator(mixed_precision="bf16" if recipe.precision == "bf16" else "no")


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    recipe: Recipe,
    accelerator: Accelerator,
    run_dir: Path,
    config: dict,
    fold: int = 0,
    compile_attention: bool = False,
) -> dict:
    """Trains `model`, or goes on where an interrupted run of the same config stopped.

    The order of images, the augmentation and the dropout come from (seed, fold, epoch, step) alone. The best
    epoch is the one with the highest validation accuracy; `model` holds its weights afterwards.

    Args:
        model: A timm model with a pretrained cfg.
        train: What to learn from.
        validation: What the epoch is chosen on.
        recipe: The recipe.
        accelerator: From `create_accelerator`.
        run_dir: The run's directory, made if absent.
        config: Goes into config.json together with recipe, fold and versions.
        fold: Makes the random draws of each fold its own.
        compile_attention: Let torch.compile fuse CBAM's many memory passes; needs a C++ compiler on a CPU.

    Returns:
        The run's result: best epoch, its validation figures, seconds of training, images a second.

    Raises:
        RunError: The directory holds a run of another config, or a checkpoint that is not whole.
    """
    main = accelerator.is_main_process
    config = config | {
        "recipe": vars(recipe)
        | {"crop_scale": list(recipe.crop_scale), "crop_ratio": list(recipe.crop_ratio)},
        "fold": fold,
        "compile_attention": compile_attention,
        "versions": {
            "torch": torch.__version__,
            "timm": timm.__version__,
            "accelerate": accelerate.__version__,
        },
        "hardware": _hardware(accelerator),
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    _check_config(run_dir, config, main)
    if (run_dir / "result.json").exists():
        model.load_state_dict(load_file(run_dir / "model.safetensors"))
        return json.loads((run_dir / "result.json").read_text())

    cfg = model.pretrained_cfg
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if compile_attention:
        # else a maximum that is recomputed in fp32 misses its bf16 self, and its gradient is 0/0
        torch._inductor.config.emulate_precision_casts = True
        for module in model.modules():
            if isinstance(module, CbamModule):
                module.compile()
    optimizer = create_optimizer_v2(
        model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)

    history, best = _resume(accelerator, run_dir)
    local = slice(accelerator.process_index, None, accelerator.num_processes)
    steps = len(train) // recipe.batch_size or 1
    for epoch in range(len(history), recipe.epochs):
        started = time.perf_counter()
        # one seed an epoch and process, for dropout; the rest is drawn below, the same in every process
        set_seed(_seed(recipe.seed, fold, epoch, accelerator.process_index))
        generator = torch.Generator().manual_seed(_seed(recipe.seed, fold, epoch))
        order = torch.randperm(len(train), generator=generator)[: steps * recipe.batch_size]
        total_loss = torch.zeros((), device=accelerator.device)
        wrapped.train()
        bar = tqdm(
            order.split(recipe.batch_size),
            desc=f"epoch {epoch + 1}/{recipe.epochs}",
            disable=not (main and sys.stderr.isatty()),
            leave=False,
        )
        for batch in bar:
            theta = random_affine(len(batch), recipe, generator)[local].to(accelerator.device)
            rows = batch[local].to(accelerator.device)
            x = normalize(augment(train.images[rows], theta), cfg)
            with accelerator.autocast():
                logits = wrapped(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), train.labels[rows])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            total_loss += loss.detach()
        seconds = time.perf_counter() - started
        logits = predict(model, validation.images, accelerator)
        loss = (accelerator.reduce(total_loss, "mean") / steps).item()
        if not math.isfinite(loss):
            raise RunError(f"the loss became {loss} in epoch {epoch + 1}: try a lower lr than {recipe.lr}")
        history.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "val_loss": F.cross_entropy(logits, validation.labels).item(),
                "val_accuracy": 100 * (logits.argmax(1) == validation.labels).float().mean().item(),
                "seconds": seconds,
            }
        )
        if best is None or history[-1]["val_accuracy"] > history[best]["val_accuracy"]:
            best = epoch
        _save_checkpoint(accelerator, model, run_dir, history, best)
        accelerator.print(_line(history[-1], recipe.epochs, len(order)), flush=True)

    seconds = sum(line["seconds"] for line in history)
    result = {
        "best": history[best],
        "epochs": recipe.epochs,
        "train_images": len(train),
        "validation_images": len(validation),
        "train_seconds": seconds,
        "images_per_second": recipe.epochs * steps * recipe.batch_size / seconds,
    }
    accelerator.wait_for_everyone()
    newest = _checkpoints(run_dir)[-1]
    model.load_state_dict(load_file(newest / "best.safetensors"))
    if main:
        write_atomic(run_dir / "model.safetensors", (newest / "best.safetensors").read_bytes())
        write_atomic(run_dir / "result.json", json.dumps(result, indent=2) + "\n")
        shutil.rmtree(newest)
    accelerator.wait_for_everyone()
    return result


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor, accelerator: Accelerator | None = None) -> torch.Tensor:
    """Logits of a split, single forward, in fp32, shared out over the processes.

    Args:
        model: The bare model; its mode is kept.
        images: uint8 (N, 1, 48, 48), on the model's device.
        accelerator: None for one process.

    Returns:
        float32 (N, 7), in every process, exactly N rows.
    """
    was_training = model.training
    model.eval()
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    share = math.ceil(len(images) / world)
    # the last processes may have fewer images: they repeat the last one, and the surplus is cut off below
    rows = torch.arange(rank * share, (rank + 1) * share).clamp(max=len(images) - 1)
    with torch.compiler.set_stance("force_eager"):
        logits = torch.cat(
            [model(normalize(images[part], model.pretrained_cfg)).float() for part in rows.split(EVAL_BATCH)]
        )
    model.train(was_training)
    return (accelerator.gather(logits) if accelerator else logits)[: len(images)]


def _seed(*parts: int) -> int:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _line(row: dict, epochs: int, images: int) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['loss']:.3f}  validation loss {row['val_loss']:.3f}  "
        f"accuracy {row['val_accuracy']:.2f} %  {images / row['seconds']:.0f} images/s"
    )


def _hardware(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name()}"
    return f"{accelerator.num_processes} x {platform.machine()} CPU, {torch.get_num_threads()} threads"


def _check_config(run_dir: Path, config: dict, main: bool) -> None:
    file = run_dir / "config.json"
    config = json.loads(json.dumps(config))
    if not file.exists():
        if main:
            write_atomic(file, json.dumps(config, indent=2) + "\n")
        return
    stored = json.loads(file.read_text())
    # where it ran and what commit it was are records, not settings
    differing = [
        k for k in sorted(stored | config) if stored.get(k) != config.get(k) and k not in ("git", "hardware")
    ]
    if differing:
        changes = "; ".join(f"{k} is {stored.get(k)} there and {config.get(k)} now" for k in differing)
        raise RunError(f"{run_dir} holds another run: {changes}. Choose another --out, or remove it")


def _checkpoints(run_dir: Path) -> Sequence[Path]:
    return sorted(path for path in run_dir.glob("checkpoint-*") if path.suffix != ".tmp")


def _save_checkpoint(
    accelerator: Accelerator, model: nn.Module, run_dir: Path, history: list[dict], best: int
) -> None:
    """Writes the state into a new directory and renames it when whole, then removes the one before."""
    older = _checkpoints(run_dir)
    final = run_dir / f"checkpoint-{len(history):04d}"
    partial = final.with_suffix(".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if best == len(history) - 1:
            state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
            save_file(state, partial / "best.safetensors")
        else:
            shutil.copy(older[-1] / "best.safetensors", partial)
        (partial / "progress.json").write_text(json.dumps({"history": history, "best": best}))
        manifest = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))
        os.replace(partial, final)
        write_atomic(run_dir / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history))
        for path in older:
            shutil.rmtree(path)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, run_dir: Path) -> tuple[list[dict], int | None]:
    """History and best epoch of the newest checkpoint, whose state is loaded; nothing where there is none."""
    checkpoints = _checkpoints(run_dir)
    if not checkpoints:
        return [], None
    newest = checkpoints[-1]
    try:
        manifest = json.loads((newest / "manifest.json").read_text())
        whole = all(sha256(newest / name) == digest for name, digest in manifest.items())
        foreign = {file.name for file in newest.iterdir()} - manifest.keys() - {"manifest.json"}
    except (OSError, ValueError):
        whole, foreign = False, set()
    if not whole or foreign:
        raise RunError(f"{newest} is damaged or not ours: remove it to start the run anew")
    accelerator.load_state(str(newest))
    progress = json.loads((newest / "progress.json").read_text())
    accelerator.print(f"resuming {run_dir} after epoch {len(progress['history'])}", flush=True)
    return progress["history"], progress["best"]


def _keep_freed_memory() -> None:
    """Tells glibc to reuse freed memory: by default a tensor over 32 MB is mapped, zeroed and unmapped anew.

    Measured on 2 cores: a 38 MB copy falls from 14 to 8 ms and fer_resnet trains several times as fast.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 1 << 28)
