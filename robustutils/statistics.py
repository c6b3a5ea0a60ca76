"""How sure are we? 95% intervals, rates over bins of a score, and what orders hits above misses: pure functions.

A rate and a difference of rates are fractions here unless they say percent; ``scores`` are float [N], ``hits`` bool [N].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats
from scipy.special import expit, logit

Interval = tuple[float, float]

_Z = float(stats.norm.ppf(0.975))


def wilson(k: float, n: int) -> Interval:
    """95% Wilson score interval of the proportion k/n; a mean count over seeds may be fractional.

    Raises: ValueError unless n >= 1 and 0 <= k <= n. Source: Wilson (1927), JASA 22, 209-212.

    >>> [round(end, 4) for end in wilson(0, 1000)]
    [0.0, 0.0038]
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"wilson(k={k}, n={n}): n must be at least 1 and k between 0 and n")
    rate = k / n
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    # rounding must not push a bound past the rate it brackets (0 and 1 are exact bounds)
    return max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate))


def paired_difference(
    a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray
) -> tuple[float, Interval]:
    """Difference of proportions mean(a) - mean(b), bool [N] on the same N examples, and its 95% interval.

    Wilson intervals squared and added with the correlation of the pairs, continuity corrected.
    Raises: ValueError for other dtypes or shapes.
    Source: Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != bool or second.dtype != bool or first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            "paired_difference needs two boolean vectors of one length, "
            f"got {first.dtype}{list(first.shape)} and {second.dtype}{list(second.shape)}"
        )
    n = len(first)
    x, y = int(first.sum()), int(second.sum())
    (low_a, high_a), (low_b, high_b) = wilson(x, n), wilson(y, n)
    both = int((first & second).sum())
    cross = both * (n - x - y + both) - (x - both) * (y - both)
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    margins = x * (n - x) * y * (n - y)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    p, q = x / n, y / n

    def spread(s: float, t: float) -> float:
        return math.sqrt(max(s * s - 2 * phi * s * t + t * t, 0.0))

    return p - q, (p - q - spread(p - low_a, high_b - q), p - q + spread(high_a - p, q - low_b))


def independent_difference(
    a: float, a_interval: Interval, b: float, b_interval: Interval
) -> tuple[float, Interval]:
    """a - b of two independent estimates, each with its 95% interval, and the 95% interval of the difference.

    The distances from estimate to bound are squared and added. Of two Wilson intervals this is method 10 of Newcombe
    (1998), Statistics in Medicine 17, 873-890; in general Zou & Donner (2008), Statistics in Medicine 27, 1693-1702.
    """
    below = math.hypot(a - a_interval[0], b_interval[1] - b)
    above = math.hypot(a_interval[1] - a, b - b_interval[0])
    return a - b, (a - b - below, a - b + above)


def median_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """95% interval of the median of values [N], N >= 1: two of their order statistics, whatever their distribution.

    Where N is too small for 95% (N < 6) it is all of their range. Source: Conover (1999), section 3.2.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    if ordered.ndim != 1 or len(ordered) < 1 or not np.isfinite(ordered).all():
        raise ValueError(f"an interval of the median needs finite values in a row, got {values!r}")
    skipped = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return float(ordered[skipped]), float(ordered[-1 - skipped])


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """95% Student t-interval of the mean of per-example values [N], N >= 2 and finite (else ValueError)."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError(f"an interval of the mean needs at least two finite values in a row, got {values!r}")
    mean = float(array.mean())
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1)) / math.sqrt(len(array))
    return mean - half, mean + half


def seeds_interval(values: Sequence[float] | np.ndarray, low: float, high: float) -> Interval:
    """95% t-interval of the mean of values [N >= 2] that can only lie in [low, high], as it then does too.

    It is made on the logit scale, where the delta method carries the standard error: in [0, 1] the logit interval of survey
    statistics, in [-1, 1] Fisher's z.

    Raises: ValueError for fewer than two values, values beyond the bounds, or all on one of them.
    Source: Korn & Graubard (1999), Analysis of Health Surveys, section 3.2; Fisher (1921), Metron 1, 3-32.
    """
    below, above = mean_interval(values)
    share = ((below + above) / 2 - low) / (high - low)
    if not (low <= min(values) and max(values) <= high and low < max(values) and min(values) < high):
        raise ValueError(f"needs values in [{low:g}, {high:g}], not all on one end, got {list(values)}")
    half = (above - below) / 2 / (high - low) / (share * (1 - share))
    ends = expit(logit(share) + np.array([-half, half]))
    return float(low + (high - low) * ends[0]), float(low + (high - low) * ends[1])


def spearman_interval(rho: float, n: int) -> Interval:
    """95% interval of Spearman's rho over n >= 4 pairs. Source: Bonett, Wright (2000), Psychometrika 65."""
    centre = math.atanh(max(-1 + 1e-12, min(rho, 1 - 1e-12)))
    half = _Z * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(centre - half), math.tanh(centre + half)


@dataclass(frozen=True)
class Rate:
    """``count`` of ``n`` examples, with its 95% Wilson interval, and what speaks against it (:mod:`robustutils.flags`)."""

    count: int
    n: int
    flags: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        """The rate in percent."""
        return 100 * self.count / self.n

    @property
    def interval(self) -> Interval:
        """The 95% Wilson interval in percent."""
        low, high = wilson(self.count, self.n)
        return 100 * low, 100 * high

    @property
    def text(self) -> str:
        """The rate with its interval and without its flags, where those are said apart."""
        low, high = self.interval
        return f"{self.percent:.1f}% [{low:.1f}, {high:.1f}]"

    def __str__(self) -> str:
        return f"{self.text} (flagged: {'; '.join(self.flags)})" if self.flags else self.text


@dataclass(frozen=True)
class Bin:
    """``hits`` of ``count`` points whose score is in [low, high); the last bin includes its high edge."""

    low: float
    high: float
    count: int
    hits: int

    @property
    def rate(self) -> Rate:
        """The rate of hits."""
        return Rate(self.hits, self.count)


def equal_width_bins(scores: np.ndarray, hits: np.ndarray, bins: int = 30, least: int = 5) -> list[Bin]:
    """Rates of hits in ``bins`` bins of one width from the lowest to the highest score, in rising order.

    Bins of fewer than ``least`` points are not returned, and empty ones never. Equal scores make one bin.

    Raises:
        ValueError: ``bins`` < 1, or the arrays are not N >= 2 finite scores and N booleans.
    """
    values, outcomes = _ordered(scores, hits, bins)
    low, high = values[0], values[-1]
    edges = np.linspace(low, high, bins + 1) if low < high else np.array([low, high])
    cuts = [*np.searchsorted(values, edges[:-1]).tolist(), len(values)]
    return [one for one in _binned(outcomes, cuts, edges.tolist()) if one.count >= max(least, 1)]


def equal_count_bins(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> list[Bin]:
    """Rates of hits in ``bins`` bins of as equal a number of points as ties allow, in rising order.

    Equal scores stay in one bin, so there may be fewer bins; none is empty.

    Raises:
        ValueError: ``bins`` < 1, or the arrays are not N >= 2 finite scores and N booleans.
    """
    values, outcomes = _ordered(scores, hits, bins)
    last = len(values) - 1
    cuts = {0, len(values)}
    for i in range(1, bins):
        cut = min(round(i * len(values) / bins), last)
        below, upto = np.searchsorted(values, values[cut]), np.searchsorted(values, values[cut], side="right")
        cuts.add(int(below if cut - below <= upto - cut else upto))
    return _binned(outcomes, sorted(cuts), [float(values[min(cut, last)]) for cut in sorted(cuts)])


def _ordered(scores: np.ndarray, hits: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    values, outcomes = _pair(scores, hits)
    if bins < 1:
        raise ValueError(f"bins={bins}: at least one bin")
    order = np.argsort(values, kind="stable")
    return values[order], outcomes[order]


def _binned(outcomes: np.ndarray, cuts: Sequence[int], edges: Sequence[float]) -> list[Bin]:
    """A bin between each two edges: of the outcomes, in the order of their scores, those between two cuts."""
    places = zip(pairwise(cuts), pairwise(edges), strict=True)
    return [Bin(*ends, stop - start, int(outcomes[start:stop].sum())) for (start, stop), ends in places]


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
