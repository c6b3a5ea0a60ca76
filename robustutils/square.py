"""The square attack: random search for linf examples that asks for logits only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustutils.attacks import InCube, guarded, margin, wide
from robustutils.speed import exact

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many of 10,000 queries the square attack halves the area of its squares."""


@dataclass(frozen=True, kw_only=True)
class Square(InCube):
    """Square attack: random search that asks for logits only, the referee where gradients may be masked.

    It starts from vertical stripes of +-eps. Each query sets one random square of each image to +-eps and keeps
    what lowers the margin of the true class; the squares shrink from the share ``p`` of the image on the
    schedule of Andriushchenko et al. (2020, section 3 and appendix B), stretched over ``queries``. An image that
    is fooled asks no more.
    """

    eps: float
    queries: int = 1000
    p: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.threat  # which refuses a radius out of range
        if self.queries < 1:
            raise ValueError(f"queries={self.queries}: at least one is needed")
        if not 0 < self.p <= 1:
            raise ValueError(f"p={self.p}: the share of the image must lie in (0, 1]")

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Random search; without gradients."""
        height, width = x.shape[2:]

        def signs(*shape: int) -> Tensor:
            return torch.randint(2, shape, generator=generator).mul(2.0).sub(1).to(x.device)

        def corner(count: int, room: int) -> Tensor:
            return torch.randint(room + 1, (count, 1, 1, 1), generator=generator).to(x.device)

        with exact(x):
            result, left = x.clone(), torch.arange(len(x), device=x.device)
            delta = self.eps * signs(len(x), x.shape[1], 1, width).expand_as(x)
            best = torch.full((len(x),), -torch.inf, device=x.device)
            for query in range(self.queries):
                candidate = delta
                if query:
                    share = self.p / 2 ** sum(10_000 * query > end * self.queries for end in HALVINGS)
                    side = min(height, width, max(1, round((share * height * width) ** 0.5)))
                    top, start = corner(len(left), height - side), corner(len(left), width - side)
                    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1) - top
                    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1) - start
                    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
                    candidate = torch.where(inside, self.eps * signs(len(left), x.shape[1], 1, 1), delta)
                x_adv = self.threat.perturb(x[left], self.threat.project(x[left], candidate))
                gain = margin(model(x_adv), y[left])
                better = gain > best
                result[left[better]] = x_adv[better]
                delta = torch.where(wide(better, delta), candidate, delta)
                best = torch.where(better, gain, best)
                standing = best <= 0
                left, delta, best = left[standing], delta[standing], best[standing]
                if len(left) == 0:
                    break
        return result
