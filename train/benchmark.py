"""Measures the training loop: images a second beside a plain loop and beside the model alone.

    accelerate launch train/benchmark.py --model fer_cnn fer_cbam --data SOURCE

In one run, with the same model, batch size, threads and precision, in turn and several times over: ours,
`train/engine.py`; plain, PNG files by ImageFolder, torchvision's transforms and a DataLoader with its best
number of workers; alone, the model on random tensors that are on the device already. For a model with CBAM,
ours is measured with and without torch.compile; on a GPU the model alone also as a CUDA graph, as ours is.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.data import COUNTS
from fer_zoo.labels import EXPRESSIONS
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Arrays
from train.engine import Split, Trainer, compile_attention, compile_pays
from train.files import RESULTS_DIR, write_json
from train.graphs import Graphed, can_record
from train.hardware import choose_precision, create_accelerator, describe
from train.networks import create_network
from train.optim import create_optimizer
from train.recipe import Recipe, load_recipe
from train.run_dir import RunError

EPOCH = sum(COUNTS["train"])  # images
WORKERS = sorted({0, 1, 2, 4, 8, os.cpu_count() or 1})


class BytesMoved(TorchDispatchMode):
    """Counts the bytes that operators would read and write if none of it stayed in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = torch.utils._pytree.tree_leaves((args, kwargs, out))
            self.bytes += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))
        return out


def measure(
    name: str, faces: Arrays, recipe: Recipe, rounds: int, folder: Path, accelerator: Accelerator
) -> dict:
    """Every figure of one model.

    Args:
        name: Any of timm's names.
        faces: What an epoch sees.
        recipe: Batch size, precision, optimizer and augmentation.
        rounds: How often each loop is measured; the median counts.
        folder: Of `faces` as PNG files, a folder a class.
        accelerator: Of one process.
    """
    split = Split(faces, accelerator.device)

    def ours(compiled: bool) -> Callable[[], None]:
        trainer = Trainer(create_network(name), split, recipe, accelerator, compiled=compiled)
        silent = tqdm(disable=True)
        return lambda: trainer.epoch(0, silent)

    model = create_network(name)
    compiled = compile_pays(model, accelerator.device, 10**9)
    loops = {"ours": ours(compiled), "alone": _alone(name, compiled, len(faces), recipe, accelerator)}
    if compiled:
        loops["ours_eager"] = ours(False)
    if can_record(model, accelerator):
        loops["alone_graphed"] = _alone(name, compiled, len(faces), recipe, accelerator, graphed=True)
    for loop in loops.values():
        loop()  # warm-up
    workers = {}
    for n in WORKERS:
        loop = _plain(name, compiled, folder, n, recipe, accelerator)
        loop()  # its processes start, and what is compiled is compiled
        workers[n] = _speed(loop, len(faces))
    best = max(workers, key=workers.get)
    loops["plain"] = _plain(name, compiled, folder, best, recipe, accelerator)
    loops["plain"]()
    speeds = {key: [] for key in loops}
    for _ in tqdm(range(rounds), name, disable=None):
        for key, loop in loops.items():
            speeds[key].append(_speed(loop, len(faces)))
    speed = {key: statistics.median(values) for key, values in speeds.items()}
    flops, moved = _work(name, recipe, accelerator)
    peak_flops, peak_bytes = _peaks(recipe, accelerator.device)
    return {
        "images_per_second": speed,
        "rounds": speeds,
        "workers": workers,
        "best_workers": best,
        "ours_over_alone": speed["ours"] / speed["alone"],
        "ours_over_plain": speed["ours"] / speed["plain"],
        "gflop_per_image": flops / 1e9,
        "megabytes_per_image": moved / 1e6,
        "peak_gflops": peak_flops / 1e9,
        "peak_gigabytes_per_second": peak_bytes / 1e9,
        "share_of_peak_flops": speed["ours"] * flops / peak_flops,
        # over 1 where caches spare the memory
        "share_of_peak_bytes": speed["ours"] * moved / peak_bytes,
        "hardware": describe(accelerator),
    }


def _speed(loop: Callable[[], None], images: int) -> float:
    _synchronize()
    started = time.perf_counter()
    loop()
    _synchronize()
    return images / (time.perf_counter() - started)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _step(
    name: str, compiled: bool, recipe: Recipe, accelerator, graphed: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One optimizer step of a plain loop, in the precision and memory format of ours."""
    model = create_network(name).to(accelerator.device, memory_format=torch.channels_last)
    if compiled:
        compile_attention(model)
    optimizer = create_optimizer(model, replace(recipe, lr=1e-6))

    def backward(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with accelerator.autocast():
            logits = model(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        return loss.detach()

    learn = Graphed(backward) if graphed else backward

    def step(x: torch.Tensor, labels: torch.Tensor) -> None:
        learn(x, labels)
        optimizer.step()

    return step


def _alone(
    name: str, compiled: bool, images: int, recipe: Recipe, accelerator, graphed: bool = False
) -> Callable[[], None]:
    step, size = _step(name, compiled, recipe, accelerator, graphed), recipe.batch_size
    x = torch.randn(size, 1, 48, 48, device=accelerator.device)
    labels = torch.randint(len(EXPRESSIONS), (size,), device=accelerator.device)

    def loop() -> None:
        for _ in range(images // size):
            step(x, labels)

    return loop


def _plain(
    name: str, compiled: bool, folder: Path, workers: int, recipe: Recipe, accelerator
) -> Callable[[], None]:
    step = _step(name, compiled, recipe, accelerator)
    how = transforms.Compose(
        [
            transforms.Grayscale(),
            transforms.RandomHorizontalFlip(recipe.flip),
            transforms.RandomRotation(recipe.degrees),
            transforms.RandomResizedCrop(48, recipe.crop_scale, recipe.crop_ratio),
            transforms.ToTensor(),
            transforms.Normalize(0.5, 0.5),
        ]
    )
    loader = DataLoader(
        ImageFolder(folder, how),
        recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
        pin_memory=accelerator.device.type == "cuda",
    )

    def loop() -> None:
        for x, labels in loader:
            step(*(part.to(accelerator.device, non_blocking=True) for part in (x, labels)))

    return loop


def _work(name: str, recipe: Recipe, accelerator) -> tuple[float, float]:
    """Operations and bytes moved of one training image, the optimizer's left out."""
    model = create_network(name).to(accelerator.device, memory_format=torch.channels_last)
    x = torch.randn(recipe.batch_size, 1, 48, 48, device=accelerator.device)
    with FlopCounterMode(display=False) as flops, BytesMoved() as moved:
        with accelerator.autocast():
            logits = model(x)
        logits.float().sum().backward()
    return flops.get_total_flops() / len(x), moved.bytes / len(x)


def _peaks(recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """The device's operations and bytes a second: a large matrix product, and a copy."""
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    large = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    copy = torch.empty_like(large)
    flops = max(2 * n**3 * _speed(lambda: torch.mm(a, b), 1) for _ in range(5))
    moved = max(2 * len(large) * _speed(lambda: copy.copy_(large), 1) for _ in range(5))
    return flops, moved


def table(models: dict[str, dict]) -> str:
    """The measurements for a terminal."""
    lines = [
        f"{'model':<16}{'ours':>9}{'epoch':>9}{'eager':>9}{'plain':>9}{'alone':>9}{'graphed':>9}"
        f"{'/alone':>8}{'/plain':>8}{'workers':>9}{'GFLOP':>8}{'of peak':>9}{'MB':>8}{'of peak':>9}"
    ]
    for name, row in models.items():
        speed = row["images_per_second"]
        eager, graphed = (
            f"{speed[key]:,.0f}" if key in speed else "-" for key in ("ours_eager", "alone_graphed")
        )
        lines.append(
            f"{name:<16}{speed['ours']:>9,.0f}{EPOCH / speed['ours']:>7,.1f} s{eager:>9}"
            f"{speed['plain']:>9,.0f}{speed['alone']:>9,.0f}{graphed:>9}"
            f"{row['ours_over_alone']:>8.0%}{row['ours_over_plain']:>8.2f}{row['best_workers']:>9}"
            f"{row['gflop_per_image']:>8.3f}{row['share_of_peak_flops']:>9.0%}"
            f"{row['megabytes_per_image']:>8.1f}{row['share_of_peak_bytes']:>9.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--model", nargs="+", default=["fer_cnn", "fer_cbam"], help="names of timm's")
    add_data_arguments(parser)
    parser.add_argument("--recipe", default="paper", help="a name in train/recipes or a .toml file")
    parser.add_argument("--images", type=int, default=2048, help="that a measured epoch sees (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts (%(default)s)")
    parser.add_argument(
        "--out", type=Path, help="the JSON file (default: model_cards/results/benchmark-*.json)"
    )
    args = parser.parse_args()
    recipe = choose_precision(load_recipe(args.recipe))
    accelerator = create_accelerator(recipe)
    if accelerator.num_processes > 1:
        raise RunError("the loops are compared in one process: launch with --num_processes 1")
    device = "gpu" if accelerator.device.type == "cuda" else "cpu"
    out = args.out or RESULTS_DIR / f"benchmark-{device}.json"
    published = json.loads(out.read_text())["models"] if out.exists() and not args.out else {}
    if lost := published.keys() - {*args.model}:
        raise ValueError(f"{out} holds {', '.join(sorted(lost))}, too: name it, or give --out a file")
    train = load_data(args, strict=args.out is None)["train"]  # what is published is of the real data
    count = min(args.images, len(train)) // recipe.batch_size * recipe.batch_size
    if count < 1:
        raise ValueError(f"--images must be at least a batch, {recipe.batch_size}, of {len(train)} there are")
    faces = train[torch.arange(count).numpy()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
            file = folder / EXPRESSIONS[label] / f"{i}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(file)
        models = {
            model: measure(model, faces, recipe, args.rounds, folder, accelerator) for model in args.model
        }
    settings = {"recipe": args.recipe, "batch_size": recipe.batch_size, "precision": recipe.precision}
    settings |= {"images": count, "rounds": args.rounds}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    write_json(out, settings | versions | {"models": models})
    print("images a second, seconds an epoch of FER2013; GFLOP and MB are of one training image")
    print(table(models))


if __name__ == "__main__":
    run(main)
