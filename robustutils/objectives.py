"""What does training minimise? Each objective is a callable ``objective(model, x, y, progress) -> loss``.

``x`` is float32 [N, C, H, W] in [0, 1], ``y`` int64 [N]; ``progress`` runs from 0 to 1 over the training; the
loss is a scalar. An objective leaves the model in the mode it found it in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.attacks import PGD, cross_entropy
from robustutils.bounds import Margins, crown_ibp_margins, interval_margins
from robustutils.speed import FastInputGradients, autocast
from robustutils.threats import L2, Linf


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
        attack = PGD(
            threat=self.norm(eps=scale * self.eps),
            steps=self.steps,
            step_size=scale * self.step_size,
            keep_best=False,
            drop_fooled=False,
            dtype=self.dtype,
        )
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return cross_entropy(model(attack(model, x, y, generator)), y).mean()


@dataclass(frozen=True, kw_only=True)
class EnsembleAdversarial:
    """Single-step adversarial training on examples from the model itself and from static, pre-trained sources.

    Each batch draws one source uniformly from {``sources``..., the model itself}; the loss is
    (L(h(x), y) + L(h(x_adv), y)) / 2 with x_adv from :func:`single_step` on that source. Without sources this
    is plain FGSM adversarial training, whose gradients get masked (EAT, sections 3.1, 3.4 and C.1).
    """

    eps: float
    sources: tuple[
        nn.Module, ...
    ] = ()  # a recipe may hold artifacts, which training replaces by their networks

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps={self.eps}: a linf radius for pixels in [0, 1] must lie in (0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        candidates = (*self.sources, model)
        drawn = int(torch.randint(len(candidates), ())) if self.sources else 0
        x_adv = single_step(candidates[drawn], x, self.eps)
        return F.cross_entropy(model(torch.cat([x, x_adv])), torch.cat([y, y]))


def single_step(source: nn.Module, x: Tensor, eps: float) -> Tensor:
    """The training attack of EAT: x + eps sign(grad L(h(x), argmax h(x))), clipped to [0, 1].

    It uses the source's own prediction in place of the label, which avoids label leaking, and the mode the
    source is in: during training dropout is active, as in the authors' code. Returns a tensor like ``x``.
    """
    x = x.detach().requires_grad_(True)
    logits = source(x)
    loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return (x + eps * gradient.sign()).clamp(0, 1).detach()


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


@dataclass(frozen=True, kw_only=True)
class CrownIbp:
    """CROWN-IBP training (Zhang et al. 2020): L(-m, y) with m = beta m_CROWN-IBP + (1 - beta) m_IBP <= z_y - z_j.

    The margins hold for all x' in [0, 1] with ||x' - x||_inf <= r. Over the share ``ramp`` of the training, r rises from 0
    to ``eps`` and beta falls from 1 to 0 in straight lines; after it, a step takes a tenth of the time.
    """

    eps: float
    ramp: float

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and 0 < self.ramp <= 1):
            raise ValueError(
                f"eps={self.eps}, ramp={self.ramp}: the radius and the share of the training must lie in (0, 1]"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        risen = min(1.0, progress / self.ramp)
        box = (x - risen * self.eps).clamp(0, 1), (x + risen * self.eps).clamp(0, 1)
        margins = interval_margins(model, *box, y)
        if risen < 1:
            margins = torch.lerp(crown_ibp_margins(model, *box, y), margins, risen)
        return F.cross_entropy(-margins, y)


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
class AffineAugmented:
    """Another objective on randomly turned, sheared, scaled and shifted images, each parameter uniform and of each image.

    ``degrees``, ``shear`` and ``scale`` bound rotation, shear and relative change of size, ``shift`` is in pixels.
    """

    objective: Objective
    degrees: float = 20.0
    shear: float = 0.2
    scale: float = 0.2
    shift: float = 3.0

    def __post_init__(self) -> None:
        if not (min(self.degrees, self.shear, self.shift) >= 0 and 0 <= self.scale < 1):
            raise ValueError(
                f"degrees={self.degrees}, shear={self.shear}, scale={self.scale}, shift={self.shift}: "
                "none may be negative, and scale must be below 1"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        turned, sheared, scaled, right, down = (2 * torch.rand(5, len(x)) - 1).to(x)
        angle = turned * math.radians(self.degrees)
        cos, sin = angle.cos() / (1 + self.scale * scaled), angle.sin() / (1 + self.scale * scaled)
        slope = self.shear * sheared
        offset = torch.stack([right, down]) * (2 * self.shift / x.shape[-1])
        rows = [
            torch.stack([cos, slope * cos - sin, offset[0]]),
            torch.stack([sin, slope * sin + cos, offset[1]]),
        ]
        grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(x.shape), align_corners=False)
        return self.objective(model, F.grid_sample(x, grid, align_corners=False).clamp(0, 1), y, progress)


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
        rows, columns = (
            torch.arange(height, device=x.device) + top,
            torch.arange(width, device=x.device) + left,
        )
        if self.flip:
            mirrored = torch.rand(n, 1).to(x.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(x, (self.pad,) * 4).permute(0, 2, 3, 1)
        chosen = padded[torch.arange(n, device=x.device)[:, None, None], rows[:, :, None], columns[:, None]]
        return self.objective(model, chosen.permute(0, 3, 1, 2), y, progress)
