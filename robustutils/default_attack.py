"""The attack for those who do not choose one: short, again and again on what still stands, and then without gradients."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustutils.attacks import PGD, WorstOf, decaying, guarded, margin
from robustutils.speed import ONCE_FLOAT32, exact
from robustutils.square import Square
from robustutils.threats import Linf, ThreatSet


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Another attack again and again, each round twice as often on the half of the images that came nearer to falling.

    After Jamieson & Talwalkar (2016). The first round is two runs on all images, the second two on the nearest half of
    them, the next four on the nearest quarter: every round after the first costs half of it. How near an image came is told
    by the largest margin that it has been brought to, so that the scale of the logits does not matter. What is fooled is
    left alone. Halves are those of a batch.
    """

    attack: PGD
    rounds: int = 4

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: at least 1 is needed")

    @property
    def threat(self) -> ThreatSet:
        """That of the attack."""
        return self.attack.threat

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """For each image the one of largest margin."""
        generator = generator or torch.Generator().manual_seed(self.attack.seed)
        result, best = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        for number in range(self.rounds):
            chosen = best.topk(math.ceil(len(x) / 2**number)).indices
            for _ in range(max(2, 2**number)):
                chosen = chosen[best[chosen] <= 0]
                if len(chosen) == 0:
                    break
                found = self.attack(model, x[chosen], y[chosen], generator)
                with exact(x):
                    gain = margin(model(found), y[chosen])
                better = gain > best[chosen]
                result[chosen[better]], best[chosen[better]] = found[better], gain[better]
        return result


@dataclass(frozen=True, kw_only=True)
class DefaultAttack:
    """Margin ascent by large steps that decay to zero, most often on what nearly falls, and a referee without gradients.

    Each run begins at random, moves ``diversify`` steps along a random sum of the logits (Tashiro et al. 2020) and climbs
    the margin, which does not saturate; :class:`Halving` says which images it is run on. What stands then is handed to the
    square attack (Andriushchenko et al. 2020). Where that fools what the gradient left,
    :func:`robustutils.evaluation.evaluate` raises a flag: the gradient is masked. In l2 there is no referee.

    Settings were chosen on training images that the networks had not been trained on; how near it comes to AutoAttack
    (Croce & Hein 2020), and in which part of its time, is measured in ``benchmarks/``.

    >>> DefaultAttack(threat=Linf(eps=0.3))(model, x, y)  # doctest: +SKIP
    """

    threat: ThreatSet
    steps: int = 40
    rounds: int = 4
    diversify: int = 2
    queries: int = 100
    dtype: torch.dtype = field(default=torch.bfloat16, metadata=ONCE_FLOAT32)
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.ascent, self.referee  # which refuse settings out of range

    @property
    def ascent(self) -> Halving:
        """The attack that follows the gradient."""
        run = PGD(
            threat=self.threat,
            steps=self.steps,
            step_size=self.threat.eps or 1.0,  # in a ball of radius zero no step leads anywhere
            loss=margin,
            schedule=decaying,
            diversify=self.diversify,
            dtype=self.dtype,
            seed=self.seed,
        )
        return Halving(attack=run, rounds=self.rounds)

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
