"""Intervals, bins, ROC areas and rank correlations against scipy, scikit-learn and published examples."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from robustutils.statistics import (
    Bin,
    auroc,
    equal_count_bins,
    equal_width_bins,
    independent_difference,
    mean_interval,
    median_interval,
    paired_difference,
    seeds_interval,
    spearman,
    spearman_interval,
    two_sample_test,
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
    with pytest.raises(ValueError, match="boolean"):
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
    with pytest.raises(ValueError, match="finite"):
        median_interval(values)


def test_t_interval_equals_scipy():
    values = [3.1, 4.0, 2.7, 3.3]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_t_interval_needs_two_finite_values(values):
    with pytest.raises(ValueError, match="two finite"):
        mean_interval(values)


def test_spearman_interval_narrows_with_n_and_encloses_rho():
    wide, narrow = spearman_interval(0.5, 10), spearman_interval(0.5, 100)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert narrow == pytest.approx(  # Bonett and Wright's standard error on Fisher's scale
        tuple(math.tanh(math.atanh(0.5) + s * 1.959964 * math.sqrt(1.125 / 97)) for s in (-1, 1))
    )


def noisy(count: int, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and hits that are likelier where the score is high."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=count)
    return scores, rng.random(count) < 1 / (1 + np.exp(-slope * scores))


SAMPLES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60).map(
    lambda pairs: (np.array([float(s) for s, _ in pairs]), np.array([h for _, h in pairs]))
)


def test_a_bin_tells_its_rate_with_wilsons_interval():
    found = Bin(0.0, 1.0, 40, 10)
    assert found.rate.percent == 25
    assert found.rate.interval == pytest.approx(tuple(100 * end for end in wilson(10, 40)))


# ---- bins of equal width ----


def test_equal_width_bins_count_as_numpys_histogram():
    scores, hits = noisy(500)
    found = equal_width_bins(scores, hits, bins=12, least=1)
    counts, edges = np.histogram(scores, bins=12)
    struck, _ = np.histogram(scores[hits], bins=edges)
    assert [(b.count, b.hits) for b in found] == [
        (n, k) for n, k in zip(counts, struck, strict=True) if n > 0
    ]
    kept = np.flatnonzero(counts)
    np.testing.assert_allclose([b.low for b in found], edges[kept])
    np.testing.assert_allclose([b.high for b in found], edges[kept + 1])


def test_small_bins_are_dropped():
    scores = np.repeat([0.0, 1.0, 2.0, 3.0], [5, 4, 6, 1])
    hits = np.arange(16) % 2 == 0
    assert equal_width_bins(scores, hits, bins=3) == [Bin(0.0, 1.0, 5, 3), Bin(2.0, 3.0, 7, 3)]
    assert [b.count for b in equal_width_bins(scores, hits, bins=3, least=6)] == [7]
    assert [b.count for b in equal_width_bins(scores, hits, bins=30, least=0)] == [5, 4, 6, 1], (
        "empty bins are never returned"
    )


@given(sample=SAMPLES, bins=st.integers(1, 15))
def test_bins_of_either_kind_share_out_all_points(sample, bins):
    scores, hits = sample
    for found in (equal_width_bins(scores, hits, bins, least=1), equal_count_bins(scores, hits, bins)):
        assert 1 <= len(found) <= bins
        assert min(b.count for b in found) > 0
        assert sum(b.count for b in found) == len(scores)
        assert sum(b.hits for b in found) == hits.sum()
        assert all(a.high <= b.low for a, b in pairwise(found))
        for b in found[:-1]:
            inside = (b.low <= scores) & (scores < b.high)
            assert (b.count, b.hits) == (inside.sum(), hits[inside].sum())
        assert found[0].low == scores.min()
        assert found[-1].high == scores.max()


def test_equal_scores_make_one_bin():
    scores, hits = np.full(8, 0.3), np.arange(8) < 2
    assert equal_width_bins(scores, hits) == [Bin(0.3, 0.3, 8, 2)]
    assert equal_count_bins(scores, hits) == [Bin(0.3, 0.3, 8, 2)]


# ---- bins of equal count ----


@pytest.mark.parametrize(("count", "bins"), [(100, 10), (103, 10), (7, 7), (5, 10)])
def test_equal_count_bins_differ_by_one_point_at_most_without_ties(count, bins):
    scores, hits = noisy(count)
    found = equal_count_bins(scores, hits, bins)
    assert len(found) == min(count, bins)
    counts = [b.count for b in found]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == count


def test_ties_stay_in_one_bin():
    scores = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2, 3], dtype=float)
    hits = scores >= 2
    assert [(b.low, b.high, b.count, b.hits) for b in equal_count_bins(scores, hits, bins=5)] == [
        (0, 1, 6, 0),
        (1, 2, 1, 0),
        (2, 3, 3, 3),
    ]
    lopsided = equal_count_bins(np.array([0.0, 1.0, 1.0, 1.0]), np.array([False, True, True, True]), bins=2)
    assert [(b.count, b.hits) for b in lopsided] == [(1, 0), (3, 3)], "a cut moves to the nearer end of a tie"
    mirrored = equal_count_bins(np.array([0.0, 0.0, 0.0, 1.0]), np.array([False, False, False, True]), bins=2)
    assert [(b.count, b.hits) for b in mirrored] == [(3, 0), (1, 1)], "also where that is its upper end"


@pytest.mark.parametrize("binned", [equal_width_bins, equal_count_bins])
def test_less_than_one_bin_is_refused(binned):
    with pytest.raises(ValueError, match="bins=0"):
        binned(*noisy(10), bins=0)


# ---- ROC ----


@given(sample=SAMPLES)
def test_the_area_is_scikit_learns_and_inside_its_interval(sample):
    scores, hits = sample
    if hits.all() or not hits.any():
        with pytest.raises(ValueError, match="misses"):
            auroc(scores, hits)
        return
    area, (low, high) = auroc(scores, hits)
    assert area == pytest.approx(roc_auc_score(hits, scores), abs=1e-12)
    assert 0 <= low <= area <= high <= 1


def test_the_interval_is_delongs_by_its_definition():
    scores, hits = np.round(noisy(80)[0], 1), noisy(80)[1]
    above, below = scores[hits], scores[~hits]
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    variance = wins.mean(1).var(ddof=1) / len(above) + wins.mean(0).var(ddof=1) / len(below)
    area, interval = auroc(scores, hits)
    half = stats.norm.ppf(0.975) * np.sqrt(variance)
    assert interval == pytest.approx((area - half, area + half), abs=1e-12)


def test_the_interval_is_about_that_of_a_bootstrap():
    scores, hits = noisy(400, seed=3)
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, 400, 400) for _ in range(1000))
    areas = [auroc(scores[rows], hits[rows])[0] for rows in draws]
    assert auroc(scores, hits)[1] == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])), abs=0.012)


def test_the_direction_of_the_area_and_its_ends():
    scores, hits = np.arange(10.0), np.arange(10) >= 5
    assert auroc(scores, hits)[0] == 1
    assert auroc(-scores, hits)[0] == 0
    assert auroc(np.zeros(10), hits) == (0.5, (0.5, 0.5))
    area, interval = auroc(np.array([3.0, 1.0, 2.0, 5.0]), np.array([True, False, False, False]))
    assert area == pytest.approx(2 / 3)
    assert interval == (0, 1), "one hit does not tell how hits spread"


@pytest.mark.parametrize("value", [True, False])
def test_the_area_needs_hits_and_misses(value):
    with pytest.raises(ValueError, match=f"{4 * value} of 4"):
        auroc(np.arange(4.0), np.full(4, value))


# ---- rank correlation and two samples ----


def test_spearman_equals_scipy_for_numbers_and_for_hits():
    scores, hits = noisy(200)
    rho, interval = spearman(scores, hits)
    assert rho == pytest.approx(stats.spearmanr(scores, hits).statistic)
    assert interval == spearman_interval(rho, 200)
    assert rho > 0.2
    assert interval[0] < rho < interval[1]
    assert spearman(scores, np.exp(scores))[0] == pytest.approx(1), "ranks alone count"
    assert spearman(scores, -scores)[0] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("scores", "values", "message"),
    [
        (np.ones(5), np.arange(5.0), "all scores are 1"),
        (np.arange(5.0), np.zeros(5, dtype=bool), "all values are 0"),
        (np.arange(3.0), np.arange(3.0), "3 and 3"),
        (np.arange(5.0), np.arange(6.0), "5 and 6"),
        (np.array([0, 1, np.inf, 3]), np.arange(4.0), "scores.* 1 .*not finite"),
    ],
)
def test_a_correlation_that_cannot_be_is_refused(scores, values, message):
    with pytest.raises(ValueError, match=message):
        spearman(scores, values)


def test_two_samples_are_compared_as_by_scipy():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=300), rng.normal(size=200), rng.normal(1, 1, size=200)
    statistic, p = two_sample_test(a, b)
    theirs = stats.ks_2samp(a, b)
    assert (statistic, p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert p > 0.05
    assert two_sample_test(a, c)[1] < 1e-6
    assert two_sample_test(a, c)[0] > statistic
    assert two_sample_test(np.array([0.0, 1.0]), np.array([2.0, 3.0, 4.0]))[0] == 1


@pytest.mark.parametrize("bad", [np.array([1.0]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_two_samples_are_vectors_of_finite_numbers(bad):
    good = np.arange(5.0)
    with pytest.raises(ValueError, match=r"^a "):
        two_sample_test(bad, good)
    with pytest.raises(ValueError, match=r"^b "):
        two_sample_test(good, bad)


# ---- inputs ----


@pytest.mark.parametrize("measure", [equal_width_bins, equal_count_bins, auroc])
@pytest.mark.parametrize(
    ("scores", "hits", "message"),
    [
        (np.arange(3.0), np.array([True, False]), r"3 scores.* hits.*\[2\]"),
        (np.array([0.0, np.nan]), np.array([True, False]), "scores.* 1 .*not finite"),
        (np.array([0.0]), np.array([True]), "scores.*at least 2"),
        (np.zeros((2, 2)), np.zeros((2, 2), dtype=bool), r"scores.*\[2, 2\]"),
        (np.arange(2.0), np.array([0, 1]), "hits.*int64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(measure, scores, hits, message):
    with pytest.raises(ValueError, match=message):
        measure(scores, hits)


def test_an_interval_over_seeds_stays_on_its_scale_and_is_students_far_from_its_ends():
    low, high = seeds_interval([1.0, 3.0, 52.0], 0, 100)
    assert 0 < low < 18.7 < high < 100
    assert mean_interval([1.0, 3.0, 52.0])[0] < 0
    narrow = [49.9, 50.0, 50.1]
    assert seeds_interval(narrow, 0, 100) == pytest.approx(mean_interval(narrow), abs=1e-4)


def test_of_correlations_it_is_fishers_z_by_the_delta_method():
    found, values = seeds_interval([0.8, 0.9, 0.97], -1, 1), np.array([0.8, 0.9, 0.97])
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5 / (1 - values.mean() ** 2)
    assert found == pytest.approx(np.tanh(np.arctanh(values.mean()) + np.array([-half, half])))


@pytest.mark.parametrize("values", [[0.0, 0.0], [100.0, 100.0], [50.0, 101.0], [-0.1, 50.0], [50.0]])
def test_an_interval_over_seeds_refuses_what_is_not_on_the_scale_and_seeds_without_spread_on_an_end(values):
    with pytest.raises(ValueError, match="values"):
        seeds_interval(values, 0, 100)
