"""Two spheres on which a classifier is wrong in two ways at once: it can be moved without cause, and not moved with cause.

Points are float64 [N, d], uniform on a sphere of radius R1 (class 0) or R2 (class 1). The classifier looks at all but the
last n coordinates: ||x_{1..d-n}|| against a threshold between the classes. What it ignores is enough to carry a point from
one sphere to the other, and what it sees is enough to fool it on the spot (INV, section 3 and Figure 2).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Spheres:
    """The task: dimension ``d``, the last ``n`` coordinates ignored, radii ``inner`` < ``outer``."""

    d: int = 500
    n: int = 10
    inner: float = 1.0
    outer: float = 1.3

    def __post_init__(self) -> None:
        if not (0 < self.n < self.d and 0 < self.inner < self.outer):
            raise ValueError(
                f"d={self.d}, n={self.n}, inner={self.inner}, outer={self.outer}: needs 0 < n < d and 0 < inner < outer"
            )

    def sample(self, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """``count`` points on the inner and on the outer sphere, float64 [count, d] each."""
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(2, count, self.d, generator=generator, dtype=torch.float64)
        directions /= directions.norm(dim=2, keepdim=True)
        return self.inner * directions[0], self.outer * directions[1]

    def seen(self, points: Tensor) -> Tensor:
        """What the classifier looks at: the norm of all but the last n coordinates, [N]."""
        return points[:, : -self.n].norm(dim=1)

    def threshold(self, inner: Tensor, outer: Tensor) -> float:
        """Its threshold: midway between the largest inner and the smallest outer norm of a training set.

        Raises:
            ValueError: the two overlap, so that no threshold tells them apart.
        """
        low, high = self.seen(inner).max().item(), self.seen(outer).min().item()
        if low >= high:
            raise ValueError(f"the classes overlap: inner norms up to {low:.4f}, outer ones from {high:.4f}")
        return (low + high) / 2

    def perturbed(self, points: Tensor, threshold: float) -> Tensor:
        """Outer points moved along their sphere to just below the threshold: the class stays, the answer changes.

        Points that are not on the outer sphere come back as NaN: at R1 below the threshold there is nothing to move to.
        """
        target = torch.full((len(points),), threshold * (1 - 1e-9), dtype=points.dtype)
        return self._moved(points, target, self.outer, possible=self.seen(points) >= threshold)

    def invariant(self, points: Tensor) -> Tensor:
        """Inner points moved to the outer sphere by their last n coordinates alone: the class changes, the answer stays.

        Points that are not inside the outer sphere come back as NaN.
        """
        inside = points.norm(dim=1) < self.outer * (1 - 1e-9)
        return self._moved(points, self.seen(points), self.outer, possible=inside)

    def _moved(self, points: Tensor, seen: Tensor, radius: float, *, possible: Tensor) -> Tensor:
        """The nearest points with the given norms of the seen part, on the sphere of ``radius``."""
        body, rest = points[:, : -self.n], points[:, -self.n :]
        hidden = (radius**2 - seen**2).clamp_min(0).sqrt()
        made = torch.cat(
            [body * (seen / body.norm(dim=1))[:, None], rest * (hidden / rest.norm(dim=1))[:, None]], 1
        )
        return torch.where(possible[:, None], made, math.nan)
