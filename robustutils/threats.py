"""Threat sets: where may the adversary move?

A threat set describes a perturbation ``delta`` of a batch: where it may start, which images it makes, how it is
brought back into the set, and which direction of unit size climbs fastest. The ascent loop of
:mod:`robustutils.attacks` knows nothing else about it. Images are float32 [N, C, H, W] in [0, 1].
"""

from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor


class ThreatSet(Protocol):
    """What an attack needs to know about the adversary's room to move."""

    def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A perturbation to start from: random with a generator, zero (no change) without one."""

    def perturb(self, x: Tensor, delta: Tensor) -> Tensor:
        """The images that ``delta`` makes of ``x``."""

    def project(self, x: Tensor, delta: Tensor) -> Tensor:
        """A perturbation inside the set; one that is inside already stays as it is."""

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of unit size, in the set's own norm, along which the loss grows fastest."""

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """How far each image moved, in the unit of ``eps``: [N]."""

    @property
    def eps(self) -> float:
        """The largest size the set allows."""


class _Added:
    """A perturbation that is added to the pixels."""

    def perturb(self, x: Tensor, delta: Tensor) -> Tensor:
        """X + delta."""
        return x + delta


@dataclass(frozen=True, kw_only=True)
class Linf(_Added):
    """Every pixel moves by at most ``eps`` and stays in [0, 1]: ||x' - x||_inf <= eps."""

    eps: float

    def __post_init__(self) -> None:
        if not (isinstance(self.eps, Real) and 0 <= self.eps <= 1):
            raise ValueError(
                f"eps={self.eps!r}: a linf radius for pixels in [0, 1] must be a number in [0, 1]"
            )

    def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Uniform in the cube, or zero."""
        if generator is None:
            return torch.zeros_like(x)
        noise = torch.rand(x.shape, generator=generator).to(x.device, non_blocking=True)
        return self.project(x, (2 * noise - 1) * self.eps)

    def project(self, x: Tensor, delta: Tensor) -> Tensor:
        """Clip to the cube, then to the box."""
        return (x + delta.clamp(-self.eps, self.eps)).clamp(0, 1) - x

    def direction(self, gradient: Tensor) -> Tensor:
        """The sign of the gradient."""
        return gradient.sign()

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The largest change of a pixel."""
        return (x_adv - x).flatten(1).abs().amax(1)


@dataclass(frozen=True, kw_only=True)
class L2(_Added):
    """The image moves by at most ``eps`` in Euclidean distance and stays in [0, 1]: ||x' - x||_2 <= eps."""

    eps: float

    def __post_init__(self) -> None:
        if not (isinstance(self.eps, Real) and self.eps >= 0):
            raise ValueError(f"eps={self.eps!r}: an l2 radius must be a number that is not negative")

    def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Uniform in the ball, or zero."""
        if generator is None:
            return torch.zeros_like(x)
        noise = torch.randn(x.shape, generator=generator)
        radius = torch.rand(len(x), generator=generator) ** (1 / x[0].numel())
        delta = self.direction(noise) * radius.view(-1, 1, 1, 1) * self.eps
        return self.project(x, delta.to(x.device, non_blocking=True))

    def project(self, x: Tensor, delta: Tensor) -> Tensor:
        """Scale back to the ball, then clip to the box: the clip only moves towards x."""
        norm = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return (x + delta * (self.eps / norm).clamp_max(1)).clamp(0, 1) - x

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient scaled to length 1; a zero gradient stays zero."""
        flat = gradient.flatten(1)
        peak = flat.abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        tiny = flat.norm(dim=1) < 1e-12  # its squares vanish
        gradient = gradient / torch.where(tiny, peak, 1.0).view(-1, 1, 1, 1)
        return gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    def size(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The Euclidean distance."""
        return (x_adv - x).flatten(1).norm(dim=1)


class ThreatError(RuntimeError):
    """An attack left its threat set."""


def check_inside(threat: ThreatSet, x: Tensor, x_adv: Tensor, tolerance: float = 1e-5) -> None:
    """Hold an attack to its word: same shape, finite, pixels in [0, 1], size at most eps.

    Raises:
        ThreatError: names what is wrong and by how much.
    """
    if x_adv.shape != x.shape:
        raise ThreatError(f"the attack returned shape {tuple(x_adv.shape)} for images of {tuple(x.shape)}")
    if not torch.isfinite(x_adv).all():
        raise ThreatError("the attack returned pixels that are not finite")
    low, high = x_adv.min().item(), x_adv.max().item()
    if low < -tolerance or high > 1 + tolerance:
        raise ThreatError(f"the attack left the box: pixels in [{low:.6g}, {high:.6g}], allowed [0, 1]")
    size = threat.size(x, x_adv).max().item()
    if size > threat.eps + tolerance:
        raise ThreatError(f"the attack moved {size:.6g} in {type(threat).__name__}, allowed {threat.eps:.6g}")
