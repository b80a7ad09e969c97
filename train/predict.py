"""Logits of many faces."""

import math

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn

from fer_zoo.preprocess import normalize


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """uint8 images (N, 1, H, W) at another height and width, as PIL does it: float32 (N, 1, *size)."""
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor, accelerator: Accelerator | None = None) -> torch.Tensor:
    """Logits of a split, single forward, in fp32, shared out over the processes.

    Args:
        model: The bare model; its mode is kept.
        images: uint8 (N, 1, H, W), on the model's device; resized bilinearly where the model takes another
            size.
        accelerator: None for one process.

    Returns:
        float32 (N, classes), in every process, exactly N rows.
    """
    was_training = model.training
    model.eval()
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    if world > 1:
        # BatchNorm's running figures differ between processes that share no batch: the first one's count
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer))
    share = math.ceil(len(images) / world)
    # the last processes may have fewer images: they repeat the last one, and the surplus is cut off below
    rows = torch.arange(rank * share, (rank + 1) * share).clamp(max=len(images) - 1)
    size = model.pretrained_cfg["input_size"][1:]
    # of larger images fewer at once; a CPU is faster where the features of a batch stay in its caches
    batch = (64 if images.device.type == "cpu" else 512) * 48**2 // math.prod(size)
    logits = []
    with torch.compiler.set_stance("force_eager"):
        for part in rows.split(max(1, batch)):
            x = images[part]
            if x.shape[2:] != size:
                x = resize(x, size)
            logits.append(model(normalize(x, model.pretrained_cfg)).float())
    model.train(was_training)
    logits = torch.cat(logits)
    return (accelerator.gather(logits) if accelerator else logits)[: len(images)]
