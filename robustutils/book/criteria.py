"""Criteria fixed before a run, and the verdict that follows from what they say of a measurement.

A criterion is data in a claims file. It answers two questions about a measurement: does the *direction* of
the effect hold by its 95% interval, and does its *size* hold? A direction holds, or is refuted, or the interval
reaches to both sides and leaves it undetermined. An interval wider than its band leaves the size undetermined. The effect
is what the measurement states (a paired difference, a difference to a reference); without one it is the measured value,
and for a sequence of values the last minus the first. Every number is in the unit of its row.

.. list-table::
   :header-rows: 1

   * - kind
     - keys, optional ones in brackets
     - direction holds when
     - size holds when
   * - ``within``
     - ``points`` and/or ``relative``, [``direction`` above or below, ``null`` = 0]
     - the interval of the effect lies wholly on that side of ``null``; without ``direction``, for a level
       that has none: the size holds (refuted where the interval misses the band)
     - abs(measured - paper) is at most the larger of ``points`` and ``relative`` times abs(paper)
   * - ``greater``
     - ``null``, [``low``, ``high``]
     - the interval of the effect lies wholly above ``null``
     - ``low`` <= effect <= ``high``
   * - ``less``
     - ``null``, [``low``, ``high``]
     - the interval of the effect lies wholly below ``null``
     - ``low`` <= effect <= ``high``
   * - ``monotone``
     - ``direction`` increasing or decreasing, [``tolerance`` = 0]
     - the interval of last minus first lies wholly on that side of 0
     - no step goes the other way by more than ``tolerance``
   * - ``rank``
     - ``least``
     - Spearman's correlation with the paper's sequence is above 0, by its interval from five values on
       (the order of four is too often right by chance: 1/24)
     - the correlation is at least ``least``
   * - ``equivalent``
     - ``margin``, [``target`` = 0, ``points``]
     - the interval of the effect lies wholly within ``margin`` of ``target`` (refuted: wholly outside)
     - the same; with ``points``, where the paper has a number: abs(measured - paper) is at most ``points``
   * - ``exact``
     - ``tolerance``
     - abs(measured - paper) is at most ``tolerance``, for every value of a sequence
     - the same
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from robustutils.outcomes import Observed, Value
from robustutils.registry import choose
from robustutils.statistics import Interval, spearman_interval

NO_EVIDENCE = ("quick", "check")
FIDELITIES = ("exact", "open_choice", "code_variant", "fewer", "reduced", "substitution")
"""From the paper's protocol away.

``exact``: as the paper says. ``open_choice``: where the paper leaves something open, such as precision, device or a
number of steps, the chapter chooses and says what. ``code_variant``: as the authors' code does where paper and code differ.
``fewer`` seeds or images, a ``reduced`` training or attack, a ``substitution``: other data, networks or methods instead.
"""
STRONG = FIDELITIES[:3]
VERDICTS = (
    "disagrees", "undetermined", "direction", "agrees", "reproduced", "not_scored", "not_run", "not_evidence",
)  # fmt: skip
"""In the order in which they are shown: what speaks against the paper first."""
SIDES = {"above": 1.0, "below": -1.0, "increasing": 1.0, "decreasing": -1.0}


@dataclass(frozen=True)
class Judgement:
    """Whether direction and size hold; `effect` and `interval` where the criterion computed its own.

    `direction` is None where the interval decides nothing, `size` where the interval is wider than the band.
    """

    direction: bool | None
    size: bool | None
    effect: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class Criterion:
    """One kind of criterion; its fields are its keys in the claims file (the table at the top)."""

    directions: ClassVar[tuple[str, ...]] = ()
    # forms of the paper's value it compares with; empty: it needs none
    paper: ClassVar[tuple[type, ...]] = ()

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        """Judge one measurement. Raises: ValueError when it lacks what the criterion decides by."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    def _interval(self, observed: Observed) -> Interval:
        if observed.interval is None:
            raise ValueError(
                f"criterion {self.kind!r} decides by the 95% interval of the effect and there is none: "
                "give ci95 (effect_ci95 with an effect), with several seeds per_seed (effect_per_seed)"
            )
        return observed.interval


def _side(interval: Interval, null: float, sign: float) -> bool | None:
    """Whether an interval lies wholly on one side of `null`; None where it reaches to both."""
    ends = [sign * (end - null) for end in interval]
    if min(ends) > 0:
        return True
    return False if max(ends) < 0 else None


def _near(interval: Interval, centre: float, width: float) -> bool | None:
    """Whether an interval lies wholly nearer to `centre` than `width`; None where it reaches in and out."""
    low, high = interval
    if max(abs(low - centre), abs(high - centre)) < width:
        return True
    return False if low > centre + width or high < centre - width else None


def _sized(value: float, spread: Interval | None, low: float, high: float) -> bool | None:
    """Whether a value lies in its band; None where its interval is wider than the band."""
    if spread is not None and spread[1] - spread[0] > high - low:
        return None
    return low <= value <= high


def _values(kind: str, value: Value | None) -> tuple[float, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"criterion {kind!r} judges a sequence of values, got {value!r}")
    return value


@dataclass(frozen=True)
class Within(Criterion):
    """Near the paper's number."""

    directions: ClassVar[tuple[str, ...]] = ("above", "below")
    paper: ClassVar[tuple[type, ...]] = (float,)
    points: float = 0.0
    relative: float = 0.0
    direction: str | None = None
    null: float = 0.0

    def __post_init__(self) -> None:
        if self.points == self.relative == 0:
            raise ValueError("it needs a positive 'points' or 'relative'")

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        if not isinstance(observed.value, float) or not isinstance(paper, float):
            raise ValueError(f"criterion 'within' compares two numbers, got {observed.value!r} and {paper!r}")
        width = max(self.points, self.relative * abs(paper))
        size = _sized(observed.value, observed.spread, paper - width, paper + width)
        holds = size
        if self.direction is not None:
            holds = _side(self._interval(observed), self.null, SIDES[self.direction])
        elif not size and observed.spread is not None:
            holds = _near(observed.spread, paper, width)
        return Judgement(holds, size)

    def __str__(self) -> str:
        points = f"{self.points:g}" if self.points else ""
        relative = f"{self.relative:.0%} of it" if self.relative else ""
        side = f"; effect {self.direction} {self.null:g} by its 95% interval" if self.direction else ""
        return f"within {' or '.join(filter(None, (points, relative)))} of the paper{side}"


@dataclass(frozen=True)
class Greater(Criterion):
    """An effect above `null`, of a size between `low` and `high`."""

    side: ClassVar[str] = "above"
    null: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} above high {self.high:g}")

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        holds = _side(self._interval(observed), self.null, SIDES[self.side])
        return Judgement(holds, _sized(observed.effect, observed.interval, self.low, self.high))

    def __str__(self) -> str:
        unbounded = math.isinf(self.low) and math.isinf(self.high)
        size = "" if unbounded else f", size in [{self.low:g}, {self.high:g}]"
        return f"effect {self.side} {self.null:g} by its 95% interval{size}"


@dataclass(frozen=True)
class Less(Greater):
    """An effect below `null`, of a size between `low` and `high`."""

    side: ClassVar[str] = "below"


@dataclass(frozen=True)
class Monotone(Criterion):
    """A sequence that rises or falls."""

    directions: ClassVar[tuple[str, ...]] = ("increasing", "decreasing")
    direction: str
    tolerance: float = 0.0

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        sign = SIDES[self.direction]
        steps = sign * np.diff(_values(self.kind, observed.value))
        holds = _side(self._interval(observed), 0.0, sign)
        return Judgement(holds, bool((steps >= -self.tolerance).all()), observed.effect, observed.interval)

    def __str__(self) -> str:
        return (
            f"{self.direction} from first to last by its 95% interval, no step back beyond {self.tolerance:g}"
        )


@dataclass(frozen=True)
class Rank(Criterion):
    """The paper's ordering."""

    paper: ClassVar[tuple[type, ...]] = (tuple,)
    least: float

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        ours, theirs = _values(self.kind, observed.value), _values(self.kind, paper)
        if len(ours) != len(theirs) or len(ours) < 3:
            raise ValueError(
                f"criterion 'rank' needs at least 3 values of each, got {len(ours)} and {len(theirs)}"
            )
        constant = len(set(ours)) == 1 or len(set(theirs)) == 1
        rho = 0.0 if constant else float(stats.spearmanr(ours, theirs).statistic)
        interval = spearman_interval(rho, len(ours)) if len(ours) >= 5 else None
        holds = rho > 0 if interval is None else _side(interval, 0.0, 1.0)
        return Judgement(holds, rho >= self.least, rho, interval)

    def __str__(self) -> str:
        return f"rank correlation with the paper at least {self.least:g}, above 0 by its 95% interval"


@dataclass(frozen=True)
class Equivalent(Criterion):
    """No relevant difference to `target`, and a value within `points` of the paper's."""

    margin: float
    target: float = 0.0
    points: float = math.inf

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        inside = _near(self._interval(observed), self.target, self.margin)
        near = True
        if isinstance(observed.value, float) and isinstance(paper, float):
            near = abs(observed.value - paper) <= self.points
        return Judgement(inside, inside is True and near)

    def __str__(self) -> str:
        near = "" if math.isinf(self.points) else f", value within {self.points:g} of the paper"
        return f"95% interval of the effect inside {self.target:g} +- {self.margin:g}{near}"


@dataclass(frozen=True)
class Exact(Criterion):
    """A closed-form result."""

    paper: ClassVar[tuple[type, ...]] = (float, tuple)
    tolerance: float

    def judge(self, paper: Value | None, observed: Observed) -> Judgement:
        ours, theirs = np.asarray(observed.value), np.asarray(paper)
        if paper is None or ours.shape != theirs.shape:
            raise ValueError(
                f"criterion 'exact' compares like with like, got {observed.value!r} and {paper!r}"
            )
        holds = bool((np.abs(ours - theirs) <= self.tolerance).all())
        return Judgement(holds, holds)

    def __str__(self) -> str:
        return f"equal to the paper within {self.tolerance:g}"


KINDS: Mapping[str, type[Criterion]] = {
    cls.__name__.lower(): cls for cls in (Within, Greater, Less, Monotone, Rank, Equivalent, Exact)
}


def parse_criterion(data: Mapping[str, Any]) -> Criterion:
    """The criterion that a table of a claims file states. Raises: ValueError naming the kind and the key."""
    choose("criterion kind", data.get("kind"), list(KINDS))
    cls, given = KINDS[data["kind"]], {key: value for key, value in data.items() if key != "kind"}
    try:
        for key, value in given.items():
            choose("key", key, cls.__match_args__)
            if key == "direction":
                choose("direction", value, cls.directions)
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{key!r} must be a finite number, got {value!r}")
            elif key in ("tolerance", "margin", "points", "relative") and value < 0:
                raise ValueError(f"{key!r} must not be negative, got {value!r}")
        for field in fields(cls):
            if field.default is MISSING and field.name not in given:
                raise ValueError(f"key {field.name!r} is missing")
        return cls(**{key: value if key == "direction" else float(value) for key, value in given.items()})
    except ValueError as error:
        raise ValueError(f"criterion {data['kind']!r}: {error}") from error


def verdict(
    direction: bool | None, size: bool | None, *, fidelity: str, profile: str, check: bool = False
) -> str:
    """The pair of the book's two answers, whether paper and run agree and how faithful the run was, as one word.

    `disagrees`: the direction is refuted. `undetermined`: the interval decides nothing, or is wider than the band.
    `direction`: it holds and the size does not. `agrees`: both hold, in a run of less fidelity than code_variant.
    `reproduced`: both hold at fidelity exact, open_choice or code_variant. `not_scored`: a check, which counts neither for
    nor against the paper. `not_evidence`: whatever the profiles `quick` and `check` measured.

    Raises: ValueError for an unknown fidelity.
    """
    choose("fidelity", fidelity, FIDELITIES)
    if profile in NO_EVIDENCE:
        return "not_evidence"
    if check:
        return "not_scored"
    if direction is False:
        return "disagrees"
    if direction is None or size is None:
        return "undetermined"
    if not size:
        return "direction"
    return "reproduced" if fidelity in STRONG else "agrees"
