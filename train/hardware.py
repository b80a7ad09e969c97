"""The machine under a training: Accelerate's set-up, memory, and what it is called."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    extract_model_from_parallel,
    parse_flag_from_env,
)
from joblib import cpu_count
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from fer_zoo.errors import reason
from train.recipe import Recipe
from train.run_dir import RunError

# One process may read a large folder while the others wait; NCCL gives up after ten minutes.
PATIENCE = timedelta(hours=3)
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def create_accelerator(
    recipe: Recipe, tracker: str | None = None, folder: Path | None = None, alone: bool = True
) -> Accelerator:
    """An Accelerator in the recipe's precision.

    Args:
        recipe: The recipe, of a precision that is chosen.
        tracker: A name that Accelerate knows: "tensorboard", "wandb", "trackio", ...
        folder: Where that tracker writes.
        alone: Whether a lone process may take all cores; no other one works beside it.

    Raises:
        RunError: The tracker is unknown or not installed, or Accelerate is configured for another kind of
            training, such as FSDP.
    """
    precision = "bf16" if recipe.precision == "bf16" else "no"
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            log_with=tracker,
            project_dir=folder,
            dynamo_backend="no",  # what is compiled is the engine's to say
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
            # the environment could change the plain number, and with it every gradient
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    except (ValueError, ImportError) as error:
        if not tracker:
            raise
        raise RunError(f"the tracker {tracker!r} cannot be used: {error}") from error
    if tracker and not accelerator.log_with:
        raise RunError(f"the tracker {tracker!r} is not installed: pip install {tracker}")
    if accelerator.distributed_type not in SUPPORTED:
        raise RunError(
            f"accelerate is configured for {accelerator.distributed_type.value}: these networks are trained "
            "by data parallelism alone (accelerate config)"
        )
    if alone:
        take_all_cores(accelerator)
    if accelerator.device.type == "cuda" and accelerator.device.index:
        torch.cuda.set_device(accelerator.device)  # graphs are recorded on the device that is the current one
    accelerator.register_save_state_pre_hook(_name_plainly)
    accelerator.register_load_state_pre_hook(_unwrap)
    return accelerator


def _name_plainly(models: list[nn.Module], weights: list[dict], folder: str) -> None:
    """In several processes DDP has names begin with "module.": one process could not go on with them."""
    for state in weights:
        consume_prefix_in_state_dict_if_present(state, "module.")


def _unwrap(models: list[nn.Module], folder: str) -> None:
    models[:] = map(extract_model_from_parallel, models)


def take_all_cores(accelerator: Accelerator) -> None:
    """Undoes what `accelerate launch` does to a lone process on a CPU: it gives it one thread."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if launched and accelerator.num_processes == 1 and accelerator.device.type == "cpu":
        torch.set_num_threads(cpu_count(only_physical_cores=True))


def start_trackers(accelerator: Accelerator, name: str, recipe: dict, model: str) -> None:
    """Starts what `--tracker` names for one run.

    Raises:
        RunError: It cannot be started.
    """
    label = name.replace(", ", "-").replace(" ", "-")
    # to these two Accelerate's name is that of a project
    projects = {"wandb": {"name": label}, "trackio": {"name": label}}
    known = projects.keys() & set(map(str, accelerator.log_with))
    settings = {f"recipe/{key}": str(value) for key, value in recipe.items()} | {"model": model}
    try:
        accelerator.init_trackers("fer-zoo" if known else label, settings, projects)
    except Exception as error:  # of many kinds: no account, no network, ...
        raise RunError(f"the tracker cannot be started: {reason(error)}") from error


def choose_precision(recipe: Recipe) -> Recipe:
    """The recipe with "auto" replaced by the precision that is faster on this machine.

    On CPUs that compute in bf16 it is two to three times as fast as fp32; where it has to be emulated,
    fer_cnn was measured to train 14 times as slowly (53 in place of 715 images/s on 2 cores with AVX2).
    """
    if recipe.precision != "auto":
        return recipe
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # older torch does not tell: fp32 is never wrong
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
    return replace(recipe, precision="bf16" if native else "fp32")


def describe(accelerator: Accelerator) -> str:
    """The hardware in words, for a run's record."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{accelerator.num_processes} x {cpu()}, {threads} thread{'s' if threads > 1 else ''}"


def cpu() -> str:
    """The CPU's name, where the system tells it, and the widest instructions that torch uses."""
    file = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", file.read_text(), re.M) if file.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


@contextmanager
def out_of_memory(batch_size: int) -> Iterator[None]:
    """Turns the allocators' errors into one sentence with the batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # of the CPU's allocator and a GPU's libraries, which have no class of their own
        signs = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and not any(sign in str(error) for sign in signs):
            raise
        less = f"--batch-size {batch_size // 2}" if batch_size > 1 else "a smaller --input-size or model"
        raise RunError(f"out of memory at a batch size of {batch_size}: try {less}") from error


def exact_fp32() -> None:
    """Has cuDNN compute in fp32: by default it rounds to TF32's 10 bits, and scores differ from a CPU's."""
    torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> None:
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
