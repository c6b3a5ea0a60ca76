"""The attack for those who do not choose one: short, again and again on what still stands, and then without gradients."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustutils.attacks import PGD, WorstOf, decaying, margin
from robustutils.speed import ONCE_FLOAT32
from robustutils.square import Square
from robustutils.threats import Linf, ThreatSet


@dataclass(frozen=True, kw_only=True)
class Refereed:
    """Margin ascent by large steps that decay to zero, again on what still stands, and a referee who needs no gradient.

    Each of the ``restarts`` begins at random, moves ``diversify`` steps along a random sum of the logits (Tashiro et al.
    2020) and climbs the margin, which does not saturate. What stands then is handed to the square attack (Andriushchenko et
    al. 2020). Where that fools what the gradient left, :func:`robustutils.evaluation.evaluate` raises a flag: the gradient
    is masked. In l2 there is no referee.

    Settings were chosen on training images that the networks had not been trained on; how near it comes to AutoAttack
    (Croce & Hein 2020), and in which part of its time, is measured in ``benchmarks/``.

    >>> Refereed(threat=Linf(eps=0.3))(model, x, y)  # doctest: +SKIP
    """

    threat: ThreatSet
    steps: int = 40
    restarts: int = 5
    diversify: int = 2
    queries: int = 100
    dtype: torch.dtype = field(default=torch.bfloat16, metadata=ONCE_FLOAT32)
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.ascent, self.referee  # which refuse settings out of range

    @property
    def ascent(self) -> PGD:
        """The attack that follows the gradient."""
        return PGD(
            threat=self.threat,
            steps=self.steps,
            step_size=self.threat.eps or 1.0,  # in a ball of radius zero no step leads anywhere
            loss=margin,
            schedule=decaying,
            restarts=self.restarts,
            diversify=self.diversify,
            dtype=self.dtype,
            seed=self.seed,
        )

    @property
    def referee(self) -> Square | None:
        """The attack that needs none; in linf only."""
        if isinstance(self.threat, Linf):
            return Square(eps=self.threat.eps, queries=self.queries, seed=self.seed)
        return None

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The first image that fools the model, of either."""
        stages = (self.ascent, self.referee) if self.referee else (self.ascent,)
        return WorstOf(attacks=stages)(model, x, y, generator)
