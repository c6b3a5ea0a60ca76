"""How far from linear is the loss around an image? The approximation ratio over seeds, and the surface that a cut shows."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from robustutils.artifacts import kept
from robustutils.evaluation import Model, loss_gradients, losses
from robustutils.outcomes import Measurement


@dataclass(frozen=True, eq=False)
class Ratios:
    """Losses [S, N] of the single step and of the strongest attack, S training seeds on the same N examples (EAT, Table 6).

    Measured as the approximation ratio in percent: the ratio of the mean losses of each seed, which no example with a tiny
    loss can dominate. Its interval over the examples is that of 1,000 bootstrap resamples, the same ones for every ratio
    over as many examples, so that two ratios are compared on the same resamples.
    """

    single: np.ndarray
    strong: np.ndarray
    seeds: Sequence[int]
    note: str = ""

    @functools.cached_property
    def per_seed(self) -> np.ndarray:
        """The ratio of each seed: [S]."""
        return self._ratio(slice(None))

    @functools.cached_property
    def resampled(self) -> np.ndarray:
        """The ratio of each seed over each resample: [1000, S]."""
        n = self.single.shape[1]
        resamples = np.random.default_rng(0).integers(n, size=(1000, n))
        return np.stack([self._ratio(chosen) for chosen in resamples])

    def _ratio(self, chosen: Any) -> np.ndarray:
        strongest = np.maximum(self.single, self.strong)
        return 100 * self.single[:, chosen].mean(1) / strongest[:, chosen].mean(1)

    @property
    def mean(self) -> float:
        """The mean over examples of their ratios, the other reading of the paper, averaged over seeds."""
        strongest = np.maximum(self.single, self.strong)
        unmoved = strongest == 0  # no attack raises a loss that rounds to zero
        return float((100 * np.where(unmoved, 1.0, self.single / np.where(unmoved, 1.0, strongest))).mean())

    def measured(self, reference: Self | None = None) -> Measurement:
        """The ratio; its effect is the difference to that of a reference, on the seeds that both have."""
        losses = {"single-step loss": self.single, "strong loss": self.strong}
        own = self._points(self.per_seed, self.resampled, self.seeds, outcomes=losses)
        if reference is None:
            return own
        apart = self - reference
        of = {"effect": apart.value, "effect_ci95": apart.ci95, "effect_per_seed": apart.per_seed}
        return dataclasses.replace(own, **of)

    def __sub__(self, other: Self) -> Measurement:
        """The difference of two ratios in points, on the seeds that both have."""
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        mine, yours = ([list(part.seeds).index(seed) for seed in seeds] for part in (self, other))
        each = self.per_seed[mine] - other.per_seed[yours]
        return self._points(each, self.resampled[:, mine] - other.resampled[:, yours], seeds)

    def _points(
        self, each: np.ndarray, resampled: np.ndarray, seeds: Sequence[int], **more: Any
    ) -> Measurement:
        ends = np.percentile(resampled.mean(axis=1), [2.5, 97.5])  # of means over seeds
        return Measurement(
            each.mean(), ends, self.single.shape[1], seeds, per_seed=each, note=self.note, **more
        )


def loss_surface(
    model: nn.Module, x: Tensor, y: Tensor, vertical: Tensor, horizontal: Tensor, steps: Tensor
) -> Tensor:
    """The loss at clip(x + s vertical + t horizontal) for all pairs of ``steps`` s, t [P]: [P, P] (EAT, Figures 4, 5).

    ``x`` and the directions are one image [1, C, H, W], ``y`` its label [1].
    """
    s, t = torch.meshgrid(steps, steps, indexing="ij")
    images = x + s.reshape(-1, 1, 1, 1) * vertical + t.reshape(-1, 1, 1, 1) * horizontal
    return losses(model, images.clamp(0, 1), y.expand(len(images))).view(len(steps), len(steps))


def gradient_sign(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """The sign of the loss gradient at each image, +1 where it is zero: like ``x``; kept."""
    sign = kept(loss_gradients, model, x, y).sign()
    return torch.where(sign == 0, 1.0, sign)


def made_orthogonal(along: Tensor, across: Tensor) -> Tensor:
    """``across`` with as few signs flipped, at random, as make it orthogonal to ``along``; both are of signs +1 and -1.

    An odd number of pixels leaves a product of one (EAT, Figure 4).
    """
    agreement = (along * across).flatten()
    excess = int(agreement.sum()) // 2
    agreeing = (agreement == np.sign(excess)).nonzero().flatten()
    shuffled = torch.randperm(len(agreeing), generator=torch.Generator().manual_seed(0))
    flipped = agreeing[shuffled[: abs(excess)]]
    flat = across.flatten()
    return flat.index_copy(0, flipped, -flat[flipped]).view_as(across)
