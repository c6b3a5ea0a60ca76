"""Training of the certified defence of INV, and of the voters that stand in for people."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.bounds import crown_ibp_margins, interval_margins
from robustutils.objectives import Objective
from robustutils.papers.invariance.alignment import warped


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
        return self.objective(model, warped(x, torch.stack(rows).permute(2, 0, 1)).clamp(0, 1), y, progress)
