"""Does success grow with a number? Rates in bins of a score, and what orders hits above misses.

Pure functions on numpy arrays: ``scores`` float [N] and ``hits`` bool [N]. All intervals are at 95%.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from robustutils.intervals import Interval, spearman_interval, wilson

_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Bin:
    """``hits`` of ``count`` points whose score is in [low, high); the last bin includes its high edge."""

    low: float
    high: float
    count: int
    hits: int

    @property
    def percent(self) -> float:
        """The rate of hits in percent."""
        return 100 * self.hits / self.count

    @property
    def interval(self) -> Interval:
        """The 95% Wilson interval in percent."""
        low, high = wilson(self.hits, self.count)
        return 100 * low, 100 * high


def equal_width_bins(scores: np.ndarray, hits: np.ndarray, bins: int = 30, least: int = 5) -> list[Bin]:
    """Rates of hits in ``bins`` bins of one width from the lowest to the highest score, in rising order.

    Bins of fewer than ``least`` points are not returned, and empty ones never. Equal scores make one bin.

    Raises:
        ValueError: ``bins`` < 1, or the arrays are not N >= 2 finite scores and N booleans.
    """
    values, outcomes = _pair(scores, hits)
    _check_bins(bins)
    low, high = values.min(), values.max()
    edges = np.linspace(low, high, bins + 1) if low < high else np.array([low, high])
    place = np.searchsorted(edges[:-1], values, side="right") - 1
    found = []
    for i in range(len(edges) - 1):
        inside = outcomes[place == i]
        if len(inside) >= max(least, 1):
            found.append(Bin(float(edges[i]), float(edges[i + 1]), len(inside), int(inside.sum())))
    return found


def equal_count_bins(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> list[Bin]:
    """Rates of hits in ``bins`` bins of as equal a number of points as ties allow, in rising order.

    Equal scores stay in one bin, so there may be fewer bins; none is empty.

    Raises:
        ValueError: ``bins`` < 1, or the arrays are not N >= 2 finite scores and N booleans.
    """
    values, outcomes = _pair(scores, hits)
    _check_bins(bins)
    order = np.argsort(values, kind="stable")
    values, outcomes = values[order], outcomes[order]
    size = len(values)
    cuts = {0, size}
    for i in range(1, bins):
        cut = min(round(i * size / bins), size - 1)
        first = int(np.searchsorted(values, values[cut], side="left"))
        last = int(np.searchsorted(values, values[cut], side="right"))
        cuts.add(first if cut - first <= last - cut else last)
    edges = sorted(cuts)
    return [
        Bin(
            float(values[start]),
            float(values[min(stop, size - 1)]),
            stop - start,
            int(outcomes[start:stop].sum()),
        )
        for start, stop in pairwise(edges)
    ]


def auroc(scores: np.ndarray, hits: np.ndarray) -> tuple[float, Interval]:
    """Probability that a hit has a higher score than a miss (ties count half), and DeLong's interval.

    The interval is clipped to [0, 1]. It is [0, 1] where there is one hit or one miss, whose spread nothing
    tells, and has no width where the scores separate hits from misses. Source: DeLong et al. (1988); computed
    by midranks, Sun & Xu (2014), IEEE Signal Processing Letters 21.

    Raises:
        ValueError: all or none are hits, or the arrays are not N >= 2 finite scores and N booleans.
    """
    values, outcomes = _pair(scores, hits)
    above, below = values[outcomes], values[~outcomes]
    m, n = len(above), len(below)
    if m == 0 or n == 0:
        raise ValueError(f"{m} of {m + n} are hits: the area under the ROC curve needs hits and misses")
    ranks = stats.rankdata(values)
    # for each hit the share of misses below it, for each miss the share of hits above it
    over = (ranks[outcomes] - stats.rankdata(above)) / n
    under = 1 - (ranks[~outcomes] - stats.rankdata(below)) / m
    area = float(over.mean())
    if m == 1 or n == 1:
        return area, (0.0, 1.0)
    half = _Z * math.sqrt(float(over.var(ddof=1)) / m + float(under.var(ddof=1)) / n)
    return area, (max(0.0, area - half), min(1.0, area + half))


def spearman(scores: np.ndarray, values: np.ndarray) -> tuple[float, Interval]:
    """Rank correlation of ``scores`` [N] with ``values`` [N] (numbers or hits), N >= 4, and its interval.

    Raises:
        ValueError: fewer than 4 pairs, different lengths, a constant side, or numbers that are not finite.
    """
    first, second = _vector("scores", scores), _vector("values", values)
    if len(first) != len(second) or len(first) < 4:
        raise ValueError(f"needs two vectors of one length, at least 4, got {len(first)} and {len(second)}")
    for name, array in (("scores", first), ("values", second)):
        if array.min() == array.max():
            raise ValueError(f"all {name} are {array[0]:g}: there is no rank correlation")
    rho = float(stats.spearmanr(first, second).statistic)
    return rho, spearman_interval(rho, len(first))


def two_sample_test(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov statistic (the largest gap of the distribution functions) of [N] and [M], and its p.

    Raises:
        ValueError: fewer than two numbers in a sample, or numbers that are not finite.
    """
    result = stats.ks_2samp(_vector("a", a), _vector("b", b))
    return float(result.statistic), float(result.pvalue)


def _vector(name: str, numbers: np.ndarray) -> np.ndarray:
    array = np.asarray(numbers, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must be a vector of at least 2 numbers, got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} values that are not finite")
    return array


def _pair(scores: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, outcomes = _vector("scores", scores), np.asarray(hits)
    if outcomes.dtype != bool:
        raise ValueError(f"hits must be booleans, got {outcomes.dtype}")
    if outcomes.shape != values.shape:
        raise ValueError(f"{len(values)} scores do not fit hits of shape {list(outcomes.shape)}")
    return values, outcomes


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins={bins}: at least one bin")
