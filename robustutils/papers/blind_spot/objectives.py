"""Training of the defences that BS alone attacks, and on what its attack moves: scaled, shifted and moved images."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.objectives import Objective
from robustutils.speed import FastInputGradients, autocast


@dataclass(frozen=True, kw_only=True)
class Wasserstein:
    """Distributionally robust training, WRM (Sinha et al. 2018): E[L(h(x*), y)] with x* from :func:`wasserstein_ascent`.

    The labels are smoothed: a share ``smoothing`` goes to the wrong classes in equal parts (BS, section 6.4, Table 5).
    """

    c: float = 1.3
    steps: int = 15
    smoothing: float = 0.1
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not (self.c > 0 and self.steps >= 0 and 0 <= self.smoothing < 1):
            raise ValueError(
                f"c={self.c}, steps={self.steps}, smoothing={self.smoothing}: "
                "c must be positive, steps not negative, smoothing in [0, 1)"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        targets = torch.full((len(y), classes), self.smoothing / (classes - 1), device=x.device)
        targets.scatter_(1, y[:, None], 1 - self.smoothing)
        x_star = wasserstein_ascent(model, x, targets, c=self.c, steps=self.steps, dtype=self.dtype)
        return F.cross_entropy(model(x_star), targets)


def wasserstein_ascent(
    model: nn.Module, x: Tensor, targets: Tensor, *, c: float, steps: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The inner maximisation of WRM: climb c L(h(x'), t) - ||x' - x||^2 / 2 from x + c grad L; like ``x``.

    ``targets`` are probabilities [N, K]; c = 1 / (2 gamma). The steps have size 1 / sqrt(t + 2); pixels are not clipped
    to [0, 1], as in the authors' code.
    """

    def gradient(x_star: Tensor) -> Tensor:
        leaf = x_star.detach().requires_grad_(True)
        loss = F.cross_entropy(model(leaf).float(), targets, reduction="sum")
        return c * torch.autograd.grad(loss, leaf)[0]

    with torch.enable_grad(), FastInputGradients(), autocast(x.device, dtype):
        x_star = x + gradient(x)
        for step in range(steps):
            x_star = x_star + (gradient(x_star) - (x_star - x)) / math.sqrt(step + 2)
    return x_star.detach()


@dataclass(frozen=True, kw_only=True)
class ScaledAndShifted:
    """Another objective on randomly scaled and shifted images: x' = a x + b + (1 - a) / 2 (BS, section 3.3).

    For each image a is uniform in [``least``, 1] and b within (1 - a) / 2 of 0, so that pixels stay in [0, 1].
    """

    objective: Objective
    least: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise ValueError(f"least={self.least}: the smallest scale must lie in (0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        scale = 1 - (1 - self.least) * torch.rand(len(x), 1, 1, 1).to(x.device)
        offset = (1 - scale) * torch.rand(len(x), 1, 1, 1).to(x.device)
        return self.objective(model, (scale * x + offset).clamp(0, 1), y, progress)


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Another objective on randomly moved and, with ``flip``, mirrored images: padded by ``pad`` and cropped again."""

    objective: Objective
    pad: int
    flip: bool

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad={self.pad}: must not be negative")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        n, _, height, width = x.shape
        top, left = torch.randint(2 * self.pad + 1, (2, n, 1)).to(x.device)
        rows = torch.arange(height, device=x.device) + top
        columns = torch.arange(width, device=x.device) + left
        if self.flip:
            mirrored = torch.rand(n, 1).to(x.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(x, (self.pad,) * 4).permute(0, 2, 3, 1)
        chosen = padded[torch.arange(n, device=x.device)[:, None, None], rows[:, :, None], columns[:, None]]
        return self.objective(model, chosen.permute(0, 3, 1, 2), y, progress)
