"""95% intervals of a rate, a difference, a mean, a median and a rank correlation: pure functions.

A rate and a difference of rates are fractions here; percentages and points are made by the caller.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

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


def seed_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """95% t-interval of the mean over training seeds [S], S >= 2: the spread a newly trained model adds."""
    return mean_interval(values)


def spearman_interval(rho: float, n: int) -> Interval:
    """95% interval of Spearman's rho over n >= 4 pairs. Source: Bonett, Wright (2000), Psychometrika 65."""
    centre = math.atanh(max(-1 + 1e-12, min(rho, 1 - 1e-12)))
    half = _Z * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(centre - half), math.tanh(centre + half)
