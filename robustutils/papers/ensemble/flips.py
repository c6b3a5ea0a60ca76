"""Thresholded pixels: which can flip, which flips fool the model behind the threshold, and what undoes the threshold?

A pixel x becomes 1 where x >= 0.5, else 0. An adversary of linf radius eps flips those within eps of the threshold and
no others, so the whole threat set is a finite set of flips (EAT, appendix C.1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.artifacts import kept, later
from robustutils.attacks import evaluation_mode, margin
from robustutils.bounds import verified
from robustutils.data import Dataset
from robustutils.evaluation import Model, correct, loss_gradients
from robustutils.speed import device_of, exact


def flippable(x: Tensor, eps: float) -> Tensor:
    """Which pixels a change of at most eps inside [0, 1] carries over the threshold of 0.5: bool like ``x``."""
    return torch.where(x >= 0.5, x - eps < 0.5, x + eps >= 0.5)


def greedy_flips(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Flip, one after the other, the pixel that raises the margin of a wrong class most, until the model is fooled.

    ``model`` takes binarised pixels [N, C, H, W] and returns logits. Returns binarised images like ``x``. What it
    finds is a lower bound on the error that flips can cause; it stops where no single flip raises the margin.
    """
    home, device = x.device, device_of(model)
    x, y = x.to(device), y.to(device)
    found = []
    with evaluation_mode(model), exact(x):
        for image, free, label in zip(binary(x), flippable(x, eps), y.split(1), strict=True):
            left, best = free.flatten().nonzero(), margin(model(image[None]), label)
            while best <= 0 and len(left):
                candidates = inverted(image.expand(len(left), -1, -1, -1), left)
                gains = margin(model(candidates), label.expand(len(left)))
                chosen = gains.argmax()
                if gains[chosen] <= best:
                    break
                best, image = gains[chosen], candidates[chosen]
                left = left[left[:, 0] != left[chosen]]
            found.append(image)
    return torch.stack(found).to(home)


def most_promising(model: nn.Module, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """The pixels whose inversion, x becomes 1 - x, raises the loss most to first order: int64 [N, count] on the CPU.

    ``images`` are float32 [N, C, H, W] in [0, 1]; an index counts through all numbers of an image.
    """
    gains = (1 - 2 * images) * loss_gradients(model, images, labels)
    return gains.flatten(1).topk(count, dim=1).indices


def binary(images: Tensor) -> Tensor:
    """Images rounded at 0.5: 0 or 1, like ``images``."""
    return (images >= 0.5).to(images.dtype)


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images [N, C, H, W] rotated about their centre, bilinearly, with black corners, in steps of 1/255.

    So the same bits come out on every machine, and what was measured on them is found again by its name.
    """
    angle = math.radians(degrees)
    rows = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    turn = torch.tensor(rows, dtype=torch.float64)
    grid = F.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), False)
    turned = F.grid_sample(images.double(), grid, align_corners=False)
    return ((255 * turned.clamp(0, 1)).round() / 255).to(images.dtype)


def random_pixels(images: Tensor, count: int, *, seed: int = 0) -> Tensor:
    """``count`` pixels of each image [N, C, H, W], drawn at random: int64 [N, count], through all numbers of an image."""
    scores = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
    return scores.flatten(1).topk(count, dim=1).indices


def inverted(images: Tensor, picked: Tensor) -> Tensor:
    """Images [N, C, H, W] with x replaced by 1 - x at the pixels ``picked``, int64 [N, count]."""
    flat = images.flatten(1)
    return flat.scatter(1, picked, 1 - flat.gather(1, picked)).view_as(images)


def errors_by_flips(model: Model, dataset: Dataset, eps: float) -> Tensor:
    """Images that :func:`greedy_flips` fools a model of rounded pixels on: bool [N], a lower bound on its errors; kept."""
    greedy = later(greedy_flips, model, dataset.images, dataset.labels, eps)
    return ~kept(correct, model, greedy, dataset.labels)


def unverified(model: Model, dataset: Dataset, eps: float) -> Tensor:
    """Images for which interval bounds do not rule out an error by flips: bool [N], an upper bound; kept."""
    low, high = (binary((dataset.images + shift).clamp(0, 1)) for shift in (-eps, eps))
    return ~kept(verified, model, low, high, dataset.labels)
