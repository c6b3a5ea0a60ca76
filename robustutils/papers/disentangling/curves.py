"""What many trained networks say together: success against test error, and the data that a strategy needs (DIS, section 3).

A :class:`Trained` holds the rates of one network; every function takes the networks of one data set. Test errors are in
percent, other measures in the unit they were given in. Networks are resampled whole: where they are compared, an example or
an attempt is no independent unit.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats
from scipy.interpolate import PchipInterpolator
from sklearn.isotonic import isotonic_regression

from robustutils.outcomes import Measurement
from robustutils.registry import choose
from robustutils.statistics import Interval, independent_difference, mean_interval, wilson

RESAMPLES = 1000
"""Of the networks, in every bootstrap."""


@dataclass(frozen=True)
class Trained:
    """One network: how it was trained, its test error in percent, and other measures by name.

    Raises:
        ValueError: ``n`` < 1, a test error outside of [0, 100], or a measure that is not finite.
    """

    strategy: str
    n: int
    seed: int
    test_error: float
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.test_error <= 100:
            raise ValueError(
                f"n={self.n}, test_error={self.test_error}: at least one training image, and 0 to 100 percent"
            )
        for name, value in self.measures.items():
            if not math.isfinite(value):
                raise ValueError(f"{name!r} of {self.strategy}, n={self.n}, seed={self.seed} is {value}")


@dataclass(frozen=True)
class Estimate:
    """A number of ``n`` networks, its 95% interval over them, and the number of each training seed by itself.

    ``per_seed`` has the seeds of which there is a network of every strategy and size.
    """

    value: float
    ci95: Interval
    n: int
    per_seed: Mapping[int, float]

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of the numbers of two data sets."""
        value, ci95 = independent_difference(self.value, self.ci95, other.value, other.ci95)
        each = {seed: x - other.per_seed[seed] for seed, x in self.per_seed.items() if seed in other.per_seed}
        return Estimate(value, ci95, min(self.n, other.n), each)

    def measured(self) -> Measurement:
        """The number as a row; where several seeds have one, the effect is their mean, with its interval over seeds."""
        each = list(self.per_seed.values())
        effect: Any = {"effect": np.mean(each), "effect_per_seed": each} if len(each) > 1 else {}
        return Measurement(self.value, self.ci95, self.n, list(self.per_seed) or [0], **effect)


@dataclass(frozen=True)
class Band:
    """Percentages of several seeds as one point of a curve: their mean, and the 95% interval over them."""

    percent: float
    interval: Interval

    @classmethod
    def of(cls, each: Sequence[float]) -> "Band":
        """Of the number of each seed; a single one has no width."""
        mean = float(np.mean(each))
        low, high = mean_interval(each) if len(each) > 1 else (mean, mean)
        return cls(mean, (max(low, 0.0), min(high, 100.0)))


# ---- success and test error ----


def correlation(models: Sequence[Trained], measure: str) -> Estimate:
    """Spearman's correlation of a measure with the test error over networks, all strategies and sizes (DIS, Figure 5).

    The interval is that of the central 95% of bootstrap resamples of whole networks, at least up to the value itself;
    resamples in which one side is constant have no correlation and are left out.

    Raises:
        ValueError: fewer than 4 networks, two of one strategy, size and seed, a measure that one lacks, or a constant side.
    """
    errors, values = _columns(models, measure)
    for name, column in (("test errors", errors), (f"values of {measure!r}", values)):
        if np.ptp(column) == 0:
            raise ValueError(f"all {name} are {column[0]:g}: there is no correlation")
    value = float(_correlations(errors[None], values[None])[0])
    drawn = np.random.default_rng(0).integers(len(models), size=(RESAMPLES, len(models)))
    low, high = np.nanpercentile(_correlations(errors[drawn], values[drawn]), [2.5, 97.5])
    each = {}
    for one, chosen in _complete_seeds(models).items():
        within = _correlations(errors[None, chosen], values[None, chosen])[0]
        if len(chosen) >= 3 and np.isfinite(within):
            each[one] = float(within)
    return Estimate(value, (min(float(low), value), max(float(high), value)), len(models), each)


def change(models: Sequence[Trained], measure: str, *, strategy: str = "normal") -> Estimate:
    """By how much a measure changes over the range of test errors, over networks of one strategy (DIS, Figure 6).

    Least squares over networks: slope times (highest - lowest test error), taken as fixed, Student's t with n - 2 degrees
    of freedom. The measure does not depend on the test error where the interval lies within a margin fixed before.

    Raises:
        ValueError: fewer than 4 networks, equal test errors, or as :func:`correlation`.
    """
    chosen = _of(models, strategy)
    errors, values = _columns(chosen, measure)
    width = float(np.ptp(errors))
    if width == 0:
        raise ValueError(f"all test errors are {errors[0]:g}: there is no range")
    value, spread = (width * part for part in _slope(errors, values))
    half = float(stats.t.ppf(0.975, len(chosen) - 2)) * spread
    each = {
        seed: width * _slope(errors[some], values[some])[0]
        for seed, some in _complete_seeds(chosen).items()
        if len(some) > 1 and np.ptp(errors[some]) > 0
    }
    return Estimate(value, (value - half, value + half), len(chosen), each)


# ---- data and test error ----


def multiplier(
    models: Sequence[Trained], *, strategy: str = "regular", reference: str = "normal"
) -> Measurement | str:
    """Data that a strategy needs over data that the reference needs, for the test errors that both reach (DIS, Figure 7).

    Mean test errors over seeds are made to fall with the size (isotonic regression), and log N is interpolated between them
    as a monotone cubic of the test error. The multiplier is the geometric mean of N / N_reference at test errors evenly
    spaced over those that both curves reach; nothing is extrapolated. The interval is Student's t of its logarithm: the
    standard error over resamples of the seeds of each strategy and size (one seed less than there are, so that means vary as
    they should), with as many degrees of freedom as networks exceed these cells.

    Returns:
        The multiplier; or why there is none, where a strategy has one size, no test error is reached by both, there is one
        seed, or more than one resample in twenty has none.

    Raises:
        ValueError: a strategy without networks, or two of one strategy, size and seed.
    """
    both = [_of(models, name) for name in (strategy, reference)]
    curves = [_errors_by_size(part) for part in both]
    for name, curve in zip((strategy, reference), curves, strict=True):
        if len(curve) < 2:
            return f"strategy {name!r} has networks of the sizes {list(curve)}: at least two"
    means = [{n: float(errors.mean()) for n, errors in curve.items()} for curve in curves]
    value = _ratio(*means)
    if value is None:
        reached = [f"{min(curve.values()):.1f} to {max(curve.values()):.1f}%" for curve in means]
        return f"no test error is reached by both: {strategy} {reached[0]}, {reference} {reached[1]}"
    if max(len(errors) for curve in curves for errors in curve.values()) < 2:
        return "one network of each size: no seeds to resample"
    generator = np.random.default_rng(0)

    def resampled(curve: Mapping[int, np.ndarray]) -> dict[int, float]:
        return {n: float(generator.choice(part, max(len(part) - 1, 1)).mean()) for n, part in curve.items()}

    drawn = (_ratio(*map(resampled, curves)) for _ in range(RESAMPLES))
    found = [ratio for ratio in drawn if ratio is not None]
    if len(found) < 0.95 * RESAMPLES:
        return f"the curves overlap in {len(found)} of {RESAMPLES} resamples only"
    degrees = sum(len(cell) - 1 for curve in curves for cell in curve.values())
    half = float(stats.t.ppf(0.975, degrees) * np.log(found).std(ddof=1))
    seeds = sorted(model.seed for part in both for model in part)
    return Measurement(value, (value * math.exp(-half), value * math.exp(half)), len(seeds), seeds[:1])


def _ratio(curve: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Geometric mean of the sizes of two curves at the errors that both reach, or None."""
    first, second = _size_of_error(curve), _size_of_error(other)
    if first is None or second is None:
        return None
    low, high = max(first.x[0], second.x[0]), min(first.x[-1], second.x[-1])
    if low > high:
        return None
    errors = np.linspace(low, high, 101)
    return float(np.exp(np.mean(first(errors) - second(errors))))


def _size_of_error(curve: Mapping[int, float]) -> PchipInterpolator | None:
    """log N as a falling function of the test error; None for a curve that does not fall."""
    sizes = sorted(curve)
    falling = isotonic_regression([curve[n] for n in sizes], increasing=False)
    errors, inverse = np.unique(falling, return_inverse=True)
    if len(errors) < 2:
        return None
    # several sizes of one error count as the one in the middle
    logs = np.bincount(inverse, weights=np.log(sizes)) / np.bincount(inverse)
    return PchipInterpolator(errors, logs, extrapolate=False)


def gap(
    models: Sequence[Trained], n_test: int, *, strategy: str = "regular", reference: str = "normal"
) -> dict[int, Measurement]:
    """Test error of a strategy minus that of the reference in points, by the number of training images (DIS-X4).

    On the seeds that both have, one difference for each: the interval over several seeds decides. ``ci95`` is over the
    ``n_test`` test images, as if the two had different ones, which is too wide rather than too narrow.

    Raises:
        ValueError: no size has a seed of both, ``n_test`` < 1, or two networks of one strategy, size and seed.
    """
    first, second = (
        {(model.n, model.seed): model.test_error for model in _of(models, name)}
        for name in (strategy, reference)
    )
    shared = first.keys() & second.keys()
    found = {}
    for n in sorted({n for n, _ in shared}):
        seeds = sorted(seed for size, seed in shared if size == n)
        ours, theirs = (np.array([part[n, seed] for seed in seeds]) for part in (first, second))
        (a, a_ends), (b, b_ends) = (
            (mean / 100, wilson(mean / 100 * n_test, n_test)) for mean in (ours.mean(), theirs.mean())
        )
        value, ends = independent_difference(a, a_ends, b, b_ends)
        found[n] = Measurement(
            100 * value, [100 * end for end in ends], n_test, seeds, per_seed=ours - theirs
        )
    if not found:
        raise ValueError(f"{strategy!r} and {reference!r} have no size and seed in common")
    return found


def apart(one: Measurement, other: Measurement) -> Measurement:
    """The difference of two measured numbers of different examples, seed by seed, as of a gap on two data sets.

    Raises:
        ValueError: they have no values per seed, or no seed in common.
    """
    mine, yours = (dict(zip(part.seeds, part.per_seed or (), strict=False)) for part in (one, other))
    seeds = [seed for seed in mine if seed in yours]
    if not seeds:
        raise ValueError(f"no seed in common with a value: {list(mine)} and {list(yours)}")
    each = [mine[seed] - yours[seed] for seed in seeds]
    value = float(np.mean(each))
    ends = None
    if one.ci95 is not None and other.ci95 is not None:
        centre, (low, high) = independent_difference(one.value, one.ci95, other.value, other.ci95)
        # the seeds in common may be fewer: the interval keeps its width around their mean
        ends = (low - centre + value, high - centre + value)
    return Measurement(value, ends, min(one.n, other.n), seeds, per_seed=each)


# ---- parts ----


def _of(models: Sequence[Trained], strategy: str) -> list[Trained]:
    choose("strategy", strategy, sorted({model.strategy for model in models}))
    chosen = [model for model in models if model.strategy == strategy]
    _check_distinct(chosen)
    return chosen


def _check_distinct(models: Sequence[Trained]) -> None:
    keys = Counter((model.strategy, model.n, model.seed) for model in models)
    if keys and (most := keys.most_common(1)[0])[1] > 1:
        strategy, n, seed = most[0]
        raise ValueError(f"two networks of strategy {strategy!r}, n={n}, seed={seed}")


def _columns(models: Sequence[Trained], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Test errors and values of a measure, float [n] each."""
    _check_distinct(models)
    if len(models) < 4:
        raise ValueError(f"{len(models)} networks: at least 4")
    for model in models:
        choose(f"measure of {model.strategy}, n={model.n}, seed={model.seed}", measure, model.measures)
    pairs = [(model.test_error, model.measures[measure]) for model in models]
    errors, values = np.ascontiguousarray(np.array(pairs, dtype=float).T)
    return errors, values


def _complete_seeds(models: Sequence[Trained]) -> dict[int, list[int]]:
    """Where the networks of each seed stand that has one of every strategy and size."""
    cells = {(model.strategy, model.n) for model in models}
    seeds = np.array([model.seed for model in models])
    places = {int(seed): np.flatnonzero(seeds == seed).tolist() for seed in np.unique(seeds)}
    return {seed: chosen for seed, chosen in places.items() if len(chosen) == len(cells)}


def _errors_by_size(models: Sequence[Trained]) -> dict[int, np.ndarray]:
    sizes = sorted({model.n for model in models})
    return {n: np.array([model.test_error for model in models if model.n == n]) for n in sizes}


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least-squares slope of y on x, which differ, and its standard error: 0 for two points or equal y, unlike scipy's."""
    x, y = x - x.mean(), y - y.mean()
    slope = (x @ y) / (x @ x)
    residual = y - slope * x
    return float(slope), math.sqrt(residual @ residual / max(len(x) - 2, 1) / (x @ x))


def _correlations(errors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Spearman's correlation in each row of two arrays [B, n]: [B], NaN where a side is constant."""
    x, y = (stats.rankdata(side, axis=1) for side in (errors, values))
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (x, y))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(scale > 0, (x * y).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan).clip(-1, 1)
