"""Can the numbers be trusted? What holds in any sound evaluation, stated as checks, and AutoAttack from a peer library."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from robustutils.evaluation import AttackResult
from robustutils.outcomes import Measurement, Outcomes
from robustutils.statistics import Rate
from robustutils.tables import Table, plain
from robustutils.threats import Linf


class SanityError(AssertionError):
    """A relation that must hold in any sound evaluation does not; the message says which."""


def hold(condition: bool, otherwise: str) -> None:
    """Stop with a message unless a condition holds, also where Python drops assertions.

    Raises: SanityError.
    """
    if not condition:
        raise SanityError(otherwise)


def check_rising(rates: Sequence[Rate], what: str, slack: float = 2.0) -> None:
    """Rates of an attack over rising radii must not fall by more than ``slack`` points from one to the next.

    Raises: SanityError that names ``what`` and the two rates.
    """
    for before, after in pairwise(rates):
        hold(
            after.percent >= before.percent - slack,
            f"{what}: a larger radius made the attack weaker, {before} and then {after}",
        )


def lead(other: AttackResult, white_box: AttackResult) -> Measurement:
    """By how many points more images one attack fools than the white-box attack does, on the same images."""
    return Outcomes(~other.attacked, [0]) - Outcomes(~white_box.attacked, [0])


def check_not_beaten(
    white_box: AttackResult, others: Mapping[str, AttackResult], slack: float = 2.0
) -> Table:
    """The success of attacks that know less, or not more, beside that of the white-box attack.

    Raises: SanityError where the lower end of the 95% interval of a lead exceeds ``slack`` points.
    """
    rows = [("the attack of this chapter", str(white_box.success_rate()), "")]
    for name, other in others.items():
        found = lead(other, white_box)
        low, high = found.ci95
        hold(low <= slack, f"{name} does better than the white-box attack by {found.value:.1f} points")
        rows.append((name, str(other.success_rate()), f"{found.value:+.1f} [{low:.1f}, {high:.1f}]"))
    return plain(("attack", "success", "its lead in points"), rows)


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack (Croce & Hein 2020) of the library torchattacks, with 100 steps a stage (it ships with 10).

    Stages: APGD on the cross-entropy, targeted APGD, targeted FAB, and the square attack with ``queries`` queries.
    """

    threat: Linf
    classes: int
    steps: int = 100
    queries: int = 5000

    @staticmethod
    def is_installed() -> bool:
        """Whether the peer library is there; it is no dependency of the book."""
        return importlib.util.find_spec("torchattacks") is not None

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Examples held to the ball; the library's own random state is used.

        Raises: ImportError where torchattacks is not installed.
        """
        import torchattacks

        eps, steps = self.threat.eps, self.steps
        stages = [
            torchattacks.APGD(model, eps=eps, steps=steps, loss="ce"),
            torchattacks.APGDT(model, eps=eps, steps=steps, n_classes=self.classes),
            torchattacks.FAB(model, eps=eps, steps=steps, multi_targeted=True, n_classes=self.classes),
            torchattacks.Square(model, eps=eps, n_queries=self.queries),
        ]
        x_adv = torchattacks.MultiAttack(stages)(x, y)
        return (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1)
