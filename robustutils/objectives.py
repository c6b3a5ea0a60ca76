"""What does training minimise? Each objective is a callable ``objective(model, x, y, progress) -> loss``.

``x`` is float32 [N, C, H, W] in [0, 1], ``y`` int64 [N]; ``progress`` runs from 0 to 1 over the training; the
loss is a scalar. An objective leaves the model in the mode it found it in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.attacks import PGD, cross_entropy
from robustutils.bounds import Margins
from robustutils.threats import L2, Linf, ThreatSet


class Objective(Protocol):
    """What :func:`robustutils.training.fit` minimises."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor: ...


@dataclass(frozen=True)
class Clean:
    """Cross-entropy on the images as they are: E[L(h(x), y)]."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        return F.cross_entropy(model(x), y)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Adversarial training: the share ``clean`` of the loss on x, the rest on ``attack(model, x, y)``.

    With ``clean=0`` this is Madry et al. (2018): min E[max L(h(x + delta), y)] (BS, section 2).
    """

    attack: Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
    clean: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.clean < 1:
            raise ValueError(f"clean={self.clean}: the clean share of the loss must lie in [0, 1)")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        loss = F.cross_entropy(model(self.attack(model, x, y, generator)), y)
        return (
            loss if self.clean == 0 else self.clean * F.cross_entropy(model(x), y) + (1 - self.clean) * loss
        )


def training_pgd(threat: ThreatSet, steps: int, step_size: float, dtype: torch.dtype = torch.float32) -> PGD:
    """PGD as training uses it: one random start, all steps, the last iterate."""
    return PGD(
        threat=threat, steps=steps, step_size=step_size, keep_best=False, drop_fooled=False, dtype=dtype
    )


@dataclass(frozen=True, kw_only=True)
class RampedAdversarial:
    """Adversarial training on PGD examples of a radius that grows from eps / 6 to eps: E[max L(h(x + delta), y)].

    Both the radius and the step size rise in a straight line over the share ``ramp`` of the training. At the full
    radius from the start, the loss of the MNIST network stays for epochs where guessing puts it.
    """

    eps: float
    steps: int
    step_size: float
    ramp: float
    dtype: torch.dtype = torch.float32
    norm: type[Linf] | type[L2] = Linf

    def __post_init__(self) -> None:
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp={self.ramp}: the share of the training must lie in (0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        scale = min(1.0, (1 + 5 * progress / self.ramp) / 6)
        threat = self.norm(eps=scale * self.eps)
        attack = training_pgd(threat, self.steps, scale * self.step_size, self.dtype)
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return cross_entropy(model(attack(model, x, y, generator)), y).mean()


@dataclass(frozen=True)
class Stages:
    """One objective after the other: ``stages`` holds (end, objective) with rising ends, the last one 1.

    Each objective sees its own progress from 0 to 1 over its stage.
    """

    stages: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        ends = [0.0, *(end for end, _ in self.stages)]
        if ends[-1] != 1 or not all(later > earlier for earlier, later in pairwise(ends)):
            raise ValueError(f"stages end at {ends[1:]}: the ends must rise from above 0 to 1")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        start = 0.0
        for end, objective in self.stages:
            if progress < end or end == 1:
                return objective(model, x, y, (progress - start) / (end - start))
            start = end
        raise AssertionError("the last stage ends at 1")


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Robust cross-entropy on verified margins: L(-m, y), m_j <= z_y - z_j for all x' with ||x' - x||_inf <= r.

    The radius r rises from ``start`` to ``eps`` in a straight line over the whole stage; pixels stay in [0, 1]. ``margins``
    is a function of :mod:`robustutils.bounds` (Wong & Kolter 2018 for the dual bound; BS, Table 4).
    """

    margins: Margins
    eps: float
    start: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.eps <= 1:
            raise ValueError(f"start={self.start}, eps={self.eps}: radii must rise within [0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        radius = self.start + (self.eps - self.start) * progress
        margins = self.margins(model, (x - radius).clamp(0, 1), (x + radius).clamp(0, 1), y)
        return F.cross_entropy(-margins, y)
