"""Attacks on thresholded pixels: which can flip, and which flips fool the model behind the threshold?

A pixel x becomes 1 where x >= 0.5, else 0. An adversary of linf radius eps flips those within eps of the threshold and
no others, so the whole threat set is a finite set of flips (EAT, appendix E).
"""

import torch
from torch import Tensor, nn

from robustutils.attacks import cross_entropy, evaluation_mode, margin
from robustutils.precision import exact


def flippable(x: Tensor, eps: float) -> Tensor:
    """Which pixels a change of at most eps inside [0, 1] carries over the threshold of 0.5: bool like ``x``."""
    return torch.where(x >= 0.5, x - eps < 0.5, x + eps >= 0.5)


def greedy_flips(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Flip, one after the other, the pixel that raises the margin of a wrong class most, until the model is fooled.

    ``model`` takes binarised pixels [N, C, H, W] and returns logits. Returns binarised images like ``x``. What it
    finds is a lower bound on the error that flips can cause; it stops where no single flip raises the margin.
    """
    home, device = x.device, next(model.parameters()).device
    x, y = x.to(device), y.to(device)
    binary = (x >= 0.5).to(x.dtype)
    free = flippable(x, eps)
    result = binary.clone()
    with evaluation_mode(model), exact(x):
        for i in range(len(x)):
            image, left, label = binary[i].clone(), free[i].flatten().nonzero().squeeze(1), y[i : i + 1]
            best = margin(model(image[None]), label).item()
            while best <= 0 and len(left):
                candidates = image.flatten().repeat(len(left), 1)
                candidates[torch.arange(len(left)), left] = 1 - candidates[torch.arange(len(left)), left]
                gains = margin(model(candidates.view(-1, *image.shape)), label.expand(len(left)))
                chosen = int(gains.argmax())
                if gains[chosen].item() <= best:
                    break
                best, image = gains[chosen].item(), candidates[chosen].view(image.shape)
                left = left[left != left[chosen]]
            result[i] = image
    return result.to(home)


def most_promising(
    model: nn.Module, images: Tensor, labels: Tensor, count: int, *, batch_size: int = 500
) -> Tensor:
    """The pixels whose inversion, x becomes 1 - x, raises the loss most to first order: int64 [N, count] on the CPU.

    ``images`` are float32 [N, C, H, W] in [0, 1]; an index counts through all numbers of an image.
    """
    device = next(model.parameters()).device
    picked = []
    with evaluation_mode(model), torch.enable_grad():
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            leaf = x.to(device).requires_grad_(True)
            (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y.to(device)).sum(), leaf)
            gains = (1 - 2 * leaf.detach()) * gradient
            picked.append(gains.flatten(1).topk(count, dim=1).indices.cpu())
    return torch.cat(picked)
