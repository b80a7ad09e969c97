"""What a training step minimises."""

import torch
import torch.nn.functional as F

from train.recipe import Recipe

FORGET_EPOCHS = 10  # over which the share of images left out grows, as in the paper on co-teaching


class Loss:
    """Cross-entropy, summed over the images of a batch as if all were like those that are learnt from.

    Args:
        labels: int64 (N,), of all training images, on the device.
        num_classes: Of the network.
        recipe: Gives class weights, label smoothing and the share of images left out.
    """

    def __init__(self, labels: torch.Tensor, num_classes: int, recipe: Recipe) -> None:
        self.weight = class_weights(labels, num_classes) if recipe.class_weights else None
        self.label_smoothing, self.forget_rate = recipe.label_smoothing, recipe.forget_rate
        # on the device: a recorded CUDA graph reads it anew in every step
        self.kept = torch.ones((), device=labels.device)

    def begin(self, epoch: int) -> None:
        """To be called before an epoch, counted from 0."""
        self.kept.fill_(1 - self.forget_rate * min(1, (epoch + 1) / FORGET_EPOCHS))

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The sum, float32 ().

        Args:
            logits: (B, classes), or (B, classes, 2) of a pair of networks, of which each is then told by the
                other's losses which images to learn from (co-teaching, Han et al. 2018, arXiv:1804.06872).
            targets: float32 (B, classes).
        """
        if logits.ndim == 3:
            targets = targets.unsqueeze(2).expand_as(logits)
        reduction = "none" if self.forget_rate else "sum"
        losses = F.cross_entropy(
            logits.float(), targets, self.weight, label_smoothing=self.label_smoothing, reduction=reduction
        )
        if not self.forget_rate:
            return losses
        losses = losses.view(len(targets), -1)
        ranks = losses.detach().flip(1).argsort(0).argsort(0)
        count = (self.kept * len(targets)).round().clamp(min=1)
        return torch.where(ranks < count, losses, 0).sum() * (len(targets) / count)


def class_weights(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Inverse frequency of each class, float32 (num_classes,); the mean over the images is one.

    A class without images has weight 0.
    """
    counts = labels.bincount(minlength=num_classes).float()
    weights = torch.where(counts > 0, 1 / counts, 0)
    return weights * len(labels) / (weights * counts).sum()
