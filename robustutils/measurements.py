"""What was measured: values in the unit of their row, with their intervals, points and seeds.

Two intervals are kept apart: `ci95` says how far the finite test set leaves the value open, `seed_ci95` how
far a newly trained model would move it. With several training seeds the second decides, with one the first.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from robustutils.criteria import FIDELITIES, Observed, Value
from robustutils.intervals import mean_interval, paired_difference, seed_interval, wilson


@dataclass(frozen=True)
class Measurement:
    """One measured row, in the unit of the row.

    `value` is a number (the mean over seeds) or, for criteria that judge sequences, one number per position;
    `ci95` its test-set interval (for a sequence one pair per value; None where sampling plays no part); `n`
    the number of test points; `seeds` the training seeds, and `per_seed` the value of each. `effect`,
    `effect_ci95`, `effect_per_seed` are the same for the (paired) difference that the claim is about.
    `outcomes` are the numbers of each example behind the value, by name, [seeds, examples], and `images` the places of
    those examples in the test set (the first ones where it is None): what a later check is paired with.
    `fidelity` is exact, code_variant, substitution or reduced; `note` says in a sentence what differs.
    """

    value: Value
    ci95: Any  # pairs and per-seed values come as lists, tuples or arrays and are kept as tuples of floats
    n: int
    seeds: Sequence[int]
    _: KW_ONLY
    per_seed: Any = None
    effect: float | None = None
    effect_ci95: Any = None
    effect_per_seed: Any = None
    fidelity: str
    note: str = ""
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    images: Sequence[int] | np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("value", "ci95", "per_seed", "effect", "effect_ci95", "effect_per_seed"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    @property
    def seed_ci95(self) -> Any:
        """95% interval of the value over the training seeds (for a sequence one pair per value), or None."""
        return _over_seeds(self.per_seed)

    @property
    def effect_seed_ci95(self) -> Any:
        """95% interval of the effect over the training seeds, or None."""
        return _over_seeds(self.effect_per_seed)

    def check(self) -> None:
        """Raise ValueError for what cannot be one: NaN, no points, an interval that misses its value."""
        if self.fidelity not in FIDELITIES:
            raise ValueError(f"unknown fidelity {self.fidelity!r}; allowed: {', '.join(FIDELITIES)}")
        if self.n < 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"needs n >= 1 and distinct seeds, got n={self.n}, seeds={list(self.seeds)}")
        if self.effect is None and (self.effect_ci95 is not None or self.effect_per_seed is not None):
            raise ValueError("effect_ci95 or effect_per_seed is given without effect")
        for name, value, ci95, per_seed in (
            ("value", self.value, self.ci95, self.per_seed),
            ("effect", self.effect, self.effect_ci95, self.effect_per_seed),
        ):
            if value is None:
                continue
            centre = np.asarray(value)
            slack = 1e-6 * np.maximum(1, np.abs(centre))
            if not np.isfinite(centre).all():
                raise ValueError(f"{name} is not finite: {value!r}")
            if ci95 is not None:
                bounds = np.asarray(ci95)
                if bounds.shape != (*centre.shape, 2) or not (
                    np.all(bounds[..., 0] <= centre + slack) and np.all(centre - slack <= bounds[..., 1])
                ):
                    raise ValueError(
                        f"the 95% interval {ci95!r} does not enclose {name} {value!r}; same unit?"
                    )
            if per_seed is not None:
                each = np.asarray(per_seed)
                if each.shape != (len(self.seeds), *centre.shape):
                    raise ValueError(
                        f"{name} has {len(per_seed)} values per seed for {len(self.seeds)} seeds"
                    )
                if not np.all((each.min(axis=0) <= centre + slack) & (centre - slack <= each.max(axis=0))):
                    raise ValueError(
                        f"{name} {value!r} lies outside its values per seed {per_seed!r}; same unit?"
                    )

    def observed(self) -> Observed:
        """Value, effect and the interval that decides: over several seeds, else of the test set."""
        effect, ci95, each = self.effect, self.effect_ci95, self.effect_per_seed
        if effect is None:
            effect, ci95, each = _climb(self.value), self.ci95, self.per_seed
            if isinstance(self.value, tuple):
                # the gap between the end intervals ignores how they are paired, which is conservative
                ci95 = None if ci95 is None else (ci95[-1][0] - ci95[0][1], ci95[-1][1] - ci95[0][0])
                each = None if each is None else tuple(_climb(values) for values in each)
        return Observed(self.value, effect, _over_seeds(each) if len(self.seeds) > 1 else ci95)


def _plain(value: Any) -> Any:
    """Numbers, arrays and nested sequences of them as floats and tuples."""
    return float(value) if np.ndim(value) == 0 else tuple(_plain(part) for part in value)


def _climb(value: Value) -> float:
    return value[-1] - value[0] if isinstance(value, tuple) else value


def _over_seeds(values: Sequence[Any] | None) -> Any:
    """t-interval over two or more seeds; one for every position of sequences; None where it is undefined."""
    if values is None or len(values) < 2:
        return None
    if isinstance(values[0], tuple):
        return tuple(seed_interval(column) for column in zip(*values, strict=True))
    return seed_interval(values)


def rate(
    outcomes: Sequence | np.ndarray,
    reference: Sequence | np.ndarray | None = None,
    *,
    seeds: Sequence[int],
    fidelity: str,
    note: str = "",
    images: Sequence[int] | np.ndarray | None = None,
) -> Measurement:
    """Percentage of true outcomes, bool [S, N]: S training seeds on the same N examples ([N] for one seed).

    With a `reference` of the same shape the effect is the paired difference outcomes - reference in points.
    The test-set interval counts N examples, not S * N: Wilson for the rate; for the difference Newcombe (one
    seed) or Student's t over the examples' means over seeds. Raises: ValueError for other dtypes or shapes.
    """
    ours = np.atleast_2d(np.asarray(outcomes))
    theirs = None if reference is None else np.atleast_2d(np.asarray(reference))
    if ours.dtype != bool or ours.ndim != 2 or len(ours) != len(seeds):
        raise ValueError(f"rate needs bool [{len(seeds)} seeds, N], got {ours.dtype}{list(ours.shape)}")
    if theirs is not None and (theirs.dtype != bool or theirs.shape != ours.shape):
        raise ValueError(
            f"the reference is {theirs.dtype}{list(theirs.shape)}, the outcomes {list(ours.shape)}"
        )
    n = ours.shape[1]
    each = 100 * ours.mean(axis=1)
    measurement = Measurement(
        each.mean(),
        tuple(100 * end for end in wilson(float(ours.mean()) * n, n)),
        n,
        seeds,
        per_seed=each,
        fidelity=fidelity,
        note=note,
        outcomes={"outcomes": ours} if theirs is None else {"outcomes": ours, "reference": theirs},
        images=images,
    )
    if theirs is None:
        return measurement
    apart = ours.astype(float) - theirs
    interval = (
        paired_difference(ours[0], theirs[0])[1] if len(ours) == 1 else mean_interval(apart.mean(axis=0))
    )
    return dataclasses.replace(
        measurement,
        effect=100 * apart.mean(),
        effect_ci95=tuple(100 * end for end in interval),
        effect_per_seed=100 * apart.mean(axis=1),
    )


def difference(
    outcomes: Sequence | np.ndarray,
    reference: Sequence | np.ndarray,
    *,
    seeds: Sequence[int],
    fidelity: str,
    note: str = "",
    images: Sequence[int] | np.ndarray | None = None,
) -> Measurement:
    """The paired difference outcomes - reference in points, as the measured value itself; see :func:`rate`."""
    paired = rate(outcomes, reference, seeds=seeds, fidelity=fidelity, note=note, images=images)
    assert paired.effect is not None
    return Measurement(
        paired.effect,
        paired.effect_ci95,
        paired.n,
        paired.seeds,
        per_seed=paired.effect_per_seed,
        fidelity=fidelity,
        note=note,
        outcomes=paired.outcomes,
        images=images,
    )


def mean(
    values: Sequence | np.ndarray,
    *,
    seeds: Sequence[int],
    fidelity: str,
    note: str = "",
    images: Sequence[int] | np.ndarray | None = None,
) -> Measurement:
    """The mean of finite numbers [S, N]: one for each of N examples and S training seeds ([N] for one seed).

    Differences of paired numbers give the mean paired difference. The test-set interval is Student's t over the
    examples' means over seeds. Raises: ValueError for other shapes or numbers that are not finite.
    """
    array = np.atleast_2d(np.asarray(values, dtype=float))
    if array.ndim != 2 or len(array) != len(seeds):
        raise ValueError(f"mean needs numbers [{len(seeds)} seeds, N], got {list(array.shape)}")
    return Measurement(
        array.mean(),
        mean_interval(array.mean(axis=0)),
        array.shape[1],
        seeds,
        per_seed=array.mean(axis=1),
        fidelity=fidelity,
        note=note,
        outcomes={"values": array},
        images=images,
    )
