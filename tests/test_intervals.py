"""Intervals against scipy, published examples and properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustutils.intervals import (
    independent_difference,
    mean_interval,
    median_interval,
    paired_difference,
    seed_interval,
    spearman_interval,
    wilson,
)


@settings(deadline=None)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_wilson_contains_the_rate_and_stays_inside_0_and_1(case):
    k, n = case
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


@pytest.mark.parametrize(("k", "n"), [(0, 1000), (1, 10), (37, 1000), (450, 1000), (1000, 1000)])
def test_wilson_equals_scipy(k, n):
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_for_none_of_a_thousand_is_at_most_04_percent():
    assert wilson(0, 1000)[0] == 0
    assert 0.003 < wilson(0, 1000)[1] < 0.004


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 10), (11, 10), (math.nan, 10)])
def test_wilson_refuses_impossible_counts(k, n):
    with pytest.raises(ValueError, match=r"wilson\("):
        wilson(k, n)


def _pairs(both, first, second, neither):
    cells = np.repeat(
        [[True, True], [True, False], [False, True], [False, False]], (both, first, second, neither), 0
    )
    return cells[:, 0], cells[:, 1]


def test_paired_difference_equals_newcombes_example():
    difference, interval = paired_difference(*_pairs(36, 12, 2, 0))
    assert difference == pytest.approx(0.2)
    assert interval == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_paired_difference_is_antisymmetric_and_tighter_than_unpaired():
    a, b = _pairs(600, 50, 20, 330)
    difference, (low, high) = paired_difference(a, b)
    assert paired_difference(b, a) == (pytest.approx(-difference), pytest.approx((-high, -low)))
    shuffled = np.random.default_rng(0).permutation(b)
    unpaired = paired_difference(a, shuffled)[1]
    assert high - low < unpaired[1] - unpaired[0]


@pytest.mark.parametrize("outcome", [True, False])
def test_paired_difference_of_identical_outcomes_is_zero_with_a_margin(outcome):
    difference, (low, high) = paired_difference(np.full(50, outcome), np.full(50, outcome))
    assert difference == 0
    assert low < 0 < high


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_lies_in_its_interval_and_the_interval_in_minus_one_to_one(pairs):
    difference, (low, high) = paired_difference(*np.array(pairs).T)
    assert -1 - 1e-12 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1 + 1e-12


@pytest.mark.parametrize(("a", "b"), [([0, 1], [1, 0]), ([True], [True, False]), ([[True]], [[True]])])
def test_paired_difference_refuses_other_dtypes_and_shapes(a, b):
    with pytest.raises(ValueError, match="two boolean vectors of one length"):
        paired_difference(a, b)


def test_independent_difference_equals_newcombes_published_example():
    one, other = 56 / 70, 48 / 80  # his Table II, method 10
    found, interval = independent_difference(one, wilson(56, 70), other, wilson(48, 80))
    assert found == pytest.approx(0.2)
    assert [round(end, 4) for end in interval] == [0.0524, 0.3339]


@pytest.mark.parametrize("n", [1, 5, 6, 25, 200])
def test_median_interval_is_the_narrowest_pair_of_order_statistics_that_covers(n):
    low, high = median_interval(np.random.default_rng(n).permutation(n))
    assert low + high == n - 1
    assert low == 0 or 2 * stats.binom.cdf(low, n, 0.5) <= 0.05  # low values lie below it
    assert 2 * stats.binom.cdf(low + 1, n, 0.5) > 0.05


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0, 2.0]]])
def test_median_interval_needs_finite_values(values):
    with pytest.raises(ValueError, match="needs finite values in a row"):
        median_interval(values)


@pytest.mark.parametrize("interval", [seed_interval, mean_interval])
def test_t_interval_equals_scipy(interval):
    values = [3.1, 4.0, 2.7, 3.3]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_t_interval_needs_two_finite_values(values):
    with pytest.raises(ValueError, match="at least two finite values"):
        seed_interval(values)


def test_spearman_interval_narrows_with_n_and_encloses_rho():
    wide, narrow = spearman_interval(0.5, 10), spearman_interval(0.5, 100)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert narrow == pytest.approx(  # Bonett and Wright's standard error on Fisher's scale
        tuple(math.tanh(math.atanh(0.5) + s * 1.959964 * math.sqrt(1.125 / 97)) for s in (-1, 1))
    )
