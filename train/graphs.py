"""Training steps as CUDA graphs: their several hundred kernels take longer to launch than to run."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from fer_zoo.models._base import FaceNet

# Steps before one is recorded: in them libraries choose kernels and take memory, which a graph cannot hold.
WARM_UP = 3


def can_record(model: nn.Module, accelerator: Accelerator) -> bool:
    """Whether a step can be a graph: a network of timm's may wait for the GPU within its forward."""
    alone_on_gpu = accelerator.num_processes == 1 and accelerator.device.type == "cuda"
    return alone_on_gpu and isinstance(model, FaceNet)


class Graphed:
    """A step that is recorded once it is warm, and replayed from then on.

    What it computes lies in memory of the recording's own, which nothing else can use while this lives: the
    gradients, too, so that nobody but the step itself may set them to None.

    Args:
        step: From images and targets to the loss; sets the parameters' gradients to None, then computes them.
            It runs on one GPU and never waits for it.
    """

    def __init__(self, step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.step = step
        self.stream = torch.cuda.Stream()
        self.shape = None

    def __call__(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What `step` returns; it holds until the next call.

        Args:
            x: float32 (B, C, H, W); those of another shape than the last ones are recorded anew.
            targets: float32 (B, classes).

        Raises:
            RuntimeError: The step waits for the GPU.
        """
        if x.shape != self.shape:
            self.shape, self.calls, self.graph = x.shape, 0, None
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._aside(x, targets)
        if self.graph is None:
            self.x, self.targets = x.clone(), targets.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.loss = self.step(self.x, self.targets)
        self.x.copy_(x)
        self.targets.copy_(targets)
        self.graph.replay()
        return self.loss

    def _aside(self, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The step itself, on the stream of the recording: autograd remembers where gradients were made."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = self.step(x, targets)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss
