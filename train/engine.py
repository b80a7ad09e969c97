"""The one training loop: uint8 images on the device, augmented there, through Accelerate, exactly resumable.

The order of images, the augmentation and the learning rate come from (seed, fold, epoch, step) alone, and
each step's gradient is the mean over the global batch, so that a run does not depend on how many processes
share it, but for dropout and stochastic depth, which each process draws, and BatchNorm on CPUs, where each
process has its own.
"""

import hashlib
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import accelerate
import timm
import torch
import torch._inductor.config
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.layers import convert_sync_batchnorm
from timm.layers.cbam import CbamModule
from torch import nn
from tqdm import tqdm

from fer_zoo.preprocess import normalize
from train.augment import augment, draw_augmentation, draw_mix
from train.dataset import Arrays
from train.graphs import Graphed, can_record
from train.hardware import describe, start_trackers
from train.live_teacher import LiveTeacher
from train.loss import Loss
from train.optim import create_average, create_optimizer, create_scheduler, uphill
from train.predict import predict, resize
from train.recipe import Recipe
from train.run_dir import RunDir, RunError, locked, read_weights

# Images that a run must see before the time that torch.compile takes is won back: half a minute on a CPU, two
# cores of which then train fer_cbam on 264 images a second in place of 169; 40 s on an H100 (21,200, 15,600).
COMPILE_PAYS = {"cpu": 15_000, "cuda": 2_500_000}
COMPILERS = {"cpu": ("g++",), "cuda": (os.environ.get("CC", ""), "gcc", "clang")}
# Pixels that all processes augment at once, at least a batch's: of a batch of 48x48 a GPU's kernels take
# longer to launch than to run, and a CPU's caches hold no more.
AHEAD = {"cuda": 8_000_000}


class Split:
    """Images and labels of one split, on the device for the whole run.

    Args:
        arrays: The split.
        device: Where training happens.

    Attributes:
        images: uint8 (N, 1, H, W).
        labels: int64 (N,).
        targets: float32 (N, classes), what is learnt where it is not the labels, or None.
    """

    def __init__(self, arrays: Arrays, device: torch.device) -> None:
        self.images = torch.from_numpy(arrays.images).unsqueeze(1).to(device)
        self.labels = torch.from_numpy(arrays.labels).to(device)
        soft = arrays.targets is not None
        self.targets = torch.from_numpy(arrays.targets).to(device) if soft else None

    def __len__(self) -> int:
        return len(self.labels)


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    recipe: Recipe,
    accelerator: Accelerator,
    out: Path,
    config: dict,
    fold: int = 0,
    teacher: LiveTeacher | None = None,
) -> dict:
    """Trains `model`, or goes on where an interrupted run of the same config stopped.

    The best epoch is the one with the highest validation accuracy; `model` holds its weights afterwards.

    Args:
        model: A timm model with a pretrained cfg.
        train: What to learn from.
        validation: What the epoch is chosen on.
        recipe: The recipe.
        accelerator: From `create_accelerator`.
        out: The run's directory, made if absent; see `train/run_dir.py`.
        config: Goes into config.json together with recipe, fold and versions.
        fold: Makes the random draws of each fold its own.
        teacher: Asked in every step.

    Returns:
        The run's result: best epoch, its validation figures, seconds of training.

    Raises:
        RunError: There is nothing to validate on, the directory holds a run of another config or a checkpoint
            that is not whole, another process trains in there, the disk is full, or the loss is no longer
            finite.
    """
    if not len(validation):
        raise RunError("there is no clean validation image with a label: nothing to choose the epoch on")
    compiled = compile_pays(model, accelerator.device, recipe.epochs * len(train))
    config = config | {
        "recipe": asdict(recipe),
        "fold": fold,
        "compile": compiled,
        "versions": {
            "torch": torch.__version__,
            "timm": timm.__version__,
            "accelerate": accelerate.__version__,
        },
        "hardware": describe(accelerator),
    }
    if recipe.forget_rate and accelerator.num_processes > 1:
        raise RunError("forget_rate compares the images of a whole batch: train in one process")
    if recipe.batch_size < accelerator.num_processes:
        raise RunError(f"batch_size is {recipe.batch_size}: {accelerator.num_processes} processes need more")
    with locked(out, accelerator):
        run = RunDir(out, config, accelerator)
        result = run.result()
        if not result:
            # else Accelerate saves an earlier fold's network too, and resumes with that one in place of ours
            accelerator.free_memory()
            trainer = Trainer(model, train, recipe, accelerator, fold, compiled, teacher)
            result = _train(trainer, validation, run, config)
        run.remove_checkpoints()
        model.load_state_dict(read_weights(out))
    return result


def _train(trainer: "Trainer", validation: Split, run: RunDir, config: dict) -> dict:
    """Trains the epochs that are missing; returns the run's result."""
    recipe, accelerator = trainer.recipe, trainer.accelerator
    name = f"{config['model']}, fold {trainer.fold}" if trainer.fold else run.path.name
    history, best = run.resume(trainer.ema)
    if accelerator.log_with:
        start_trackers(accelerator, name, asdict(recipe), str(config.get("model")))
    with tqdm(
        desc=name,
        total=recipe.epochs * trainer.images,
        initial=len(history) * trainer.images,
        unit="img",
        unit_scale=True,
        disable=not (accelerator.is_local_main_process and sys.stderr.isatty()),
    ) as bar:
        for epoch in range(len(history), recipe.epochs):
            started = time.perf_counter()
            loss = trainer.epoch(epoch, bar)
            seconds = time.perf_counter() - started
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss became {loss} in epoch {epoch + 1}: try a lower lr than {recipe.lr}"
                )
            logits = predict(trainer.scored, validation.images, accelerator)
            line = {
                "epoch": epoch + 1,
                "loss": loss,
                "val_loss": F.cross_entropy(logits, validation.labels).item(),
                "val_accuracy": 100 * (logits.argmax(1) == validation.labels).float().mean().item(),
                "lr": trainer.optimizer.param_groups[0]["lr"],
                "seconds": seconds,
            }
            history.append(line)
            if best is None or line["val_accuracy"] > history[best]["val_accuracy"]:
                best = epoch
            run.save(trainer.scored, trainer.ema, history, best)
            accelerator.log({key: value for key, value in line.items() if key != "epoch"}, step=epoch + 1)
            bar.set_postfix(loss=f"{loss:.3f}", val=f"{line['val_accuracy']:.2f}%")
            if accelerator.is_main_process:
                bar.write(f"{name}: {_line(line, recipe.epochs, trainer.images)}")
    trainer.optimizer.zero_grad()  # those of a graph would keep its memory
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers.clear()  # else the next fold is logged here, too

    seconds = sum(line["seconds"] for line in history)
    result = {
        "best": history[best],
        "epochs": recipe.epochs,
        "train_images": len(trainer.train),
        "validation_images": len(validation),
        "train_seconds": seconds,
    }
    run.finish(result)
    return result


class Trainer:
    """A model in its wrappings, its optimizer and schedule, and the images that it learns from.

    Args:
        model: A timm model with a pretrained cfg; it is moved to the accelerator's device.
        train: What to learn from.
        recipe: The recipe.
        accelerator: From `create_accelerator`.
        fold: Makes the random draws of each fold its own.
        compiled: Fuse CBAM's passes over memory by torch.compile.
        teacher: Asked in every step.

    Attributes:
        scored: The model to evaluate and keep: the moving average where the recipe asks for one.
        ema: That moving average, or None.
        optimizer: Of timm's, saved by Accelerate.
        images: Images that an epoch sees: the last batch is left out where it would not be full.
        backward: From normalized images (B, C, H, W) and targets (B, classes), both float32, this process's
            share of a batch, to the sum of their losses; leaves the gradients of the batch's mean loss.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        recipe: Recipe,
        accelerator: Accelerator,
        fold: int = 0,
        compiled: bool = False,
        teacher: LiveTeacher | None = None,
    ) -> None:
        model = model.to(accelerator.device, memory_format=torch.channels_last)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            model = convert_sync_batchnorm(model)
        self.steps, self.batch = max(1, len(train) // recipe.batch_size), min(recipe.batch_size, len(train))
        self.images = self.steps * self.batch
        self.ema = create_average(model, recipe, self.steps)
        if compiled:
            compile_attention(model)
        optimizer = create_optimizer(model, recipe)
        self.scheduler = create_scheduler(optimizer, recipe, self.steps)
        # Accelerate saves its wrapping of the optimizer; to step that one took 0.5 ms longer on a CPU's core
        self.wrapped, _ = accelerator.prepare(model, optimizer)
        self.optimizer = optimizer
        # Accelerate put its autocast into the model itself: `predict` would compute in it, too
        accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        self.model, self.scored = model, self.ema.module if self.ema else model
        self.train, self.recipe, self.accelerator, self.fold = train, recipe, accelerator, fold
        self.pixels, size = train.images, tuple(model.pretrained_cfg["input_size"][1:])
        if math.prod(size) < math.prod(self.pixels.shape[2:]):  # what is sampled is not smoothed
            self.pixels = resize(self.pixels, size).round().to(torch.uint8)
        soft = train.targets is not None
        self.targets = train.targets if soft else F.one_hot(train.labels, model.num_classes).float()
        self.teacher = teacher.to(accelerator.device) if teacher else None
        self.loss = Loss(train.labels, model.num_classes, recipe)
        self.backward = self._backward
        if can_record(model, accelerator):
            self.backward = Graphed(self._backward)

    def epoch(self, epoch: int, bar: tqdm) -> float:
        """One pass over the training images; returns the mean loss of an image.

        Args:
            epoch: Counted from 0.
            bar: Told of every batch.
        """
        recipe, rank = self.recipe, self.accelerator.process_index
        # one seed an epoch and process, for dropout; the rest is drawn the same in every process
        set_seed(_seed(recipe.seed, self.fold, epoch, rank))
        total = torch.zeros((), device=self.accelerator.device)
        self.loss.begin(epoch)
        self.wrapped.train()
        for step, (x, targets) in enumerate(self.batches(epoch), start=epoch * self.steps):
            self.scheduler.step_update(step)
            if self.teacher:
                with self.accelerator.autocast():
                    targets = torch.lerp(targets, self.teacher(x), recipe.teacher_share)
            total += self.backward(x, targets)
            if recipe.sam:
                with uphill(self.model, recipe.sam):
                    self.backward(x, targets)
            self.optimizer.step()
            if self.ema:
                self.ema.update(self.model, step=step)
            bar.update(self.batch)
        return self.accelerator.reduce(total, "sum").item() / self.images

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This process's share of each of an epoch's batches, augmented and mixed.

        Args:
            epoch: Counted from 0.

        Yields:
            Normalized images (B, C, H, W) and targets (B, classes), both float32.
        """
        recipe, device, cfg = self.recipe, self.accelerator.device, self.model.pretrained_cfg
        local = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        size = recipe.size_in(epoch, tuple(cfg["input_size"][1:]))
        generator = torch.Generator().manual_seed(_seed(recipe.seed, self.fold, epoch))
        order = torch.randperm(len(self.train), generator=generator)[: self.images].to(device)
        how = draw_augmentation(self.images, recipe, generator).to(device)

        def faces(places: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            """Of (batches, B) places in the epoch's order, this process's share of every batch."""
            places = places[:, local]
            rows = order[places]
            if noise is not None:  # elsewhere than on a GPU it is not safe not to wait
                noise = noise[:, local].flatten(0, 1).to(device, non_blocking=device.type == "cuda")
            x = augment(self.pixels[rows.flatten()], how[places.flatten()], size, noise)
            return x.unflatten(0, rows.shape), self.targets[rows]

        ahead = max(1, AHEAD.get(device.type, 0) // (self.batch * math.prod(size)))
        for places in torch.arange(self.images, device=device).view(self.steps, self.batch).split(ahead):
            noises, mixes = [], []
            for _ in places:
                if recipe.noise:
                    noises.append(torch.randn(self.batch, 1, *size, generator=generator))
                mixes.append(draw_mix(recipe, generator, size))
            noise = torch.stack(noises) if noises else None
            x, targets = faces(places, noise)
            if any(mixes):
                if self.accelerator.num_processes == 1:
                    others, theirs = x.flip(1), targets.flip(1)
                else:
                    others, theirs = faces(places.flip(1), noise if noise is None else noise.flip(1))
                for i, mix in enumerate(mixes):
                    x[i] = mix(x[i], others[i])
                    targets[i] = torch.lerp(theirs[i], targets[i], mix.share)
            x = normalize(x.flatten(0, 1), cfg).contiguous(memory_format=torch.channels_last)
            yield from zip(x.split(targets.shape[1]), targets, strict=True)

    def _backward(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad()
        with self.accelerator.autocast():
            logits = self.wrapped(x)
        loss = self.loss(logits, targets)
        # a sum over the global batch's size: processes may hold unequal shares of it; their gradients are
        # averaged
        self.accelerator.backward(loss * (self.accelerator.num_processes / self.batch))
        return loss.detach()


def compile_pays(model: nn.Module, device: torch.device, images: int) -> bool:
    """Whether to fuse CBAM by torch.compile: fer_cbam then trains 1.6 times as fast on 2 cores.

    Args:
        model: Nothing else in it would be compiled: that was slower.
        device: A CPU needs a C++ compiler, a GPU one for C, and both Python's headers.
        images: That the run will see.
    """
    if images < COMPILE_PAYS.get(device.type, math.inf) or not _attention(model):
        return False
    headers = Path(sysconfig.get_path("include"), "Python.h")  # what is compiled includes it
    return headers.exists() and any(map(shutil.which, COMPILERS[device.type]))


def compile_attention(model: nn.Module) -> None:
    """Has each CBAM of a model compiled at its first call."""
    # else a maximum that is recomputed in fp32 misses its bf16 self, and its gradient is 0/0
    torch._inductor.config.emulate_precision_casts = True
    for module in _attention(model):
        module.compile()


def _attention(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, CbamModule)]


def _seed(*parts: int) -> int:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little")


def _line(row: dict, epochs: int, images: int) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['loss']:.3f}  validation loss {row['val_loss']:.3f}  "
        f"accuracy {row['val_accuracy']:.2f} %  {images / row['seconds']:.0f} images/s"
    )
