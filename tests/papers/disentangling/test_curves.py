"""Curves with known slopes, correlations and multipliers; intervals against scipy, by hand and by their coverage."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from robustutils.papers.disentangling import curves
from robustutils.papers.disentangling.curves import Band, Trained, apart, change, correlation, gap, multiplier

SIZES = (250, 1000, 4000, 10000)


def networks(
    error: Callable[[int], float],
    measure: Callable[[float], float] = lambda error: error,
    *,
    strategy: str = "normal",
    seeds: int = 3,
    sizes: tuple[int, ...] = SIZES,
    noise: float = 0.0,
    draw: int = 0,
) -> list[Trained]:
    """Networks of one strategy whose test error is a function of the size, and the measure "success" of the error."""
    generator = np.random.default_rng(draw)
    found = []
    for n in sizes:
        for seed in range(seeds):
            at = error(n)
            success = measure(at) + noise * generator.normal()
            found.append(Trained(strategy, n, seed, at + noise * generator.normal(), {"success": success}))
    return found


def test_a_band_is_the_interval_over_seeds_within_what_can_be():
    band = Band.of([1.0, 2.0, 3.0])
    assert band.percent == 2
    assert band.interval == (0.0, pytest.approx(2 + stats.t.ppf(0.975, 2) / 3**0.5))
    assert Band.of([4.0]).interval == (4.0, 4.0)


def falling(n: int) -> float:
    """A straight line in log N: 74% at 250, 14% fewer with each factor of four."""
    return 74 - 14 * math.log(n / 250, 4)


# ---- correlation ----


def test_a_correlation_equals_scipys():
    models = networks(falling, lambda error: 0.5 * error, noise=8)
    errors, values = ([m.test_error for m in models], [m.measures["success"] for m in models])
    found = correlation(models, "success")
    assert found.value == pytest.approx(stats.spearmanr(errors, values).statistic)
    assert found.n == 12
    assert 0.3 < found.value < 0.95, "this test needs noise"
    low, high = found.ci95
    assert low < found.value < high
    for seed, within in found.per_seed.items():
        some = [m for m in models if m.seed == seed]
        pair = [m.test_error for m in some], [m.measures["success"] for m in some]
        assert within == pytest.approx(stats.spearmanr(*pair).statistic), f"seed {seed}"
    assert correlation(models, "success") == found, "the resamples are the same ones"


def test_the_bootstrap_interval_is_that_of_scipy():
    models = networks(falling, lambda error: 0.5 * error, noise=8, seeds=10)
    errors, values = (
        np.array([m.test_error for m in models]),
        np.array([m.measures["success"] for m in models]),
    )
    peer = stats.bootstrap(
        (errors, values), lambda x, y: stats.spearmanr(x, y).statistic, paired=True, vectorized=False,
        method="percentile", n_resamples=1000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    found = correlation(models, "success")
    assert found.ci95 == pytest.approx((peer.low, peer.high), abs=0.03)


def test_a_monotone_relation_has_rank_correlation_one():
    models = networks(falling, lambda error: error**4, noise=0)
    assert correlation(models, "success").value == pytest.approx(1)
    opposite = networks(falling, lambda error: -error)
    assert correlation(opposite, "success").ci95 == pytest.approx((-1, -1))


def test_several_seeds_decide_by_their_mean_and_one_by_the_bootstrap():
    several = correlation(networks(falling, noise=10), "success")
    row = several.measured()
    row.check()
    assert row.value == several.value
    assert row.ci95 == several.ci95
    assert row.seeds == (0, 1, 2)
    assert row.effect == pytest.approx(np.mean(list(several.per_seed.values())))
    assert row.observed().interval == row.effect_seed_ci95
    alone = correlation(networks(falling, noise=10, seeds=1), "success").measured()
    alone.check()
    assert alone.observed().interval == alone.ci95


def test_only_seeds_with_a_network_of_every_strategy_and_size_count_by_themselves():
    models = networks(falling, noise=3, seeds=5)
    fewer = [m for m in models if m.n <= 1000 or m.seed < 3]
    found = correlation(fewer, "success")
    assert list(found.per_seed) == [0, 1, 2]
    assert found.n == 16


def test_the_difference_of_two_data_sets_has_the_seeds_of_both():
    strong = correlation(networks(falling, noise=2, seeds=4), "success")
    weak = correlation(networks(falling, noise=25, seeds=3, draw=1), "success")
    less = weak - strong
    assert less.value == pytest.approx(weak.value - strong.value)
    assert list(less.per_seed) == [0, 1, 2]
    assert less.per_seed[1] == pytest.approx(weak.per_seed[1] - strong.per_seed[1])
    assert less.ci95[0] < less.value < less.ci95[1]
    wide = less.ci95[1] - less.ci95[0]
    assert wide > max(high - low for low, high in (strong.ci95, weak.ci95))


# ---- equivalence ----


def test_the_change_is_the_slope_times_the_range_and_its_interval_scipys():
    models = networks(falling, lambda error: 90 - 0.2 * error, noise=2)
    errors, values = ([m.test_error for m in models], [m.measures["success"] for m in models])
    line, width = stats.linregress(errors, values), max(errors) - min(errors)
    found = change(models, "success")
    assert found.value == pytest.approx(line.slope * width)
    half = stats.t.ppf(0.975, 10) * line.stderr * width
    assert found.ci95 == pytest.approx((found.value - half, found.value + half))
    found.measured().check()


@pytest.mark.parametrize(("slope", "equivalent"), [(0.0, True), (0.1, True), (0.4, False), (-0.4, False)])
def test_known_slopes_are_equivalent_or_not(slope, equivalent):
    """The range of test errors is about 37 points: a slope of 0.4 changes success by 15."""
    models = networks(falling, lambda error: 50 + slope * error, noise=0.3)
    found = change(models, "success")
    assert (found.ci95[0] > -10 and found.ci95[1] < 10) == equivalent
    assert found.value == pytest.approx(slope * 37.3, abs=1)
    assert all(each == pytest.approx(slope * 37.3, abs=2) for each in found.per_seed.values())
    assert len(found.per_seed) == 3


def test_noise_without_a_slope_leaves_a_wide_interval_and_a_ceiling_none():
    low, high = change(networks(falling, lambda error: 50, noise=30), "success").ci95
    assert high - low > 20, "it could lie within no margin of ten points"
    ceiling = change(networks(falling, lambda error: 100), "success")
    assert (ceiling.value, ceiling.ci95) == (0, (0, 0))


def test_only_the_strategy_that_is_asked_for_counts():
    normal = networks(falling, lambda error: 90)
    regular = networks(falling, lambda error: error, strategy="regular")
    assert change(normal + regular, "success").value == 0
    assert change(normal + regular, "success", strategy="regular").value == pytest.approx(37.3, abs=0.1)


# ---- multiplier ----


@pytest.fixture
def few(monkeypatch):
    """Thirty resamples."""
    monkeypatch.setattr(curves, "RESAMPLES", 30)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 3.0])
def test_a_curve_shifted_by_a_factor_gives_that_factor(factor, few):
    models = networks(falling) + networks(lambda n: falling(n) + 14 * math.log(factor, 4), strategy="regular")
    found = multiplier(models)
    assert found.value == pytest.approx(factor)
    assert found.ci95 == pytest.approx((factor, factor)), "seeds that agree leave nothing open"
    assert (found.n, found.seeds) == (24, (0,))


def test_a_bent_curve_gives_nearly_its_factor(few):
    def power(n: float) -> float:
        return 74 * (n / 250) ** -0.4

    models = networks(power) + networks(lambda n: power(n / 2), strategy="regular", sizes=(500, *SIZES))
    models = [m for m in models if m.test_error <= 100]
    assert multiplier(models).value == pytest.approx(2, rel=0.06)


def test_the_interval_covers_the_factor_about_as_often_as_it_says(few):
    covered = 0
    for draw in range(30):
        models = networks(falling, noise=1.5, draw=draw, seeds=4) + networks(
            lambda n: falling(n) + 7, strategy="regular", noise=1.5, draw=1000 + draw, seeds=4
        )
        low, high = multiplier(models).ci95
        covered += low <= 2 <= high
    assert 26 <= covered <= 30, covered


def test_curves_that_do_not_overlap_have_no_multiplier_but_a_reason():
    models = networks(lambda n: falling(n) / 10) + networks(falling, strategy="regular")
    found = multiplier(models)
    assert found == "no test error is reached by both: regular 36.7 to 74.0%, normal 3.7 to 7.4%"
    flat = multiplier(networks(falling) + networks(lambda n: 50, strategy="regular"))
    assert "regular 50.0 to 50.0%" in flat


def test_one_seed_gives_no_multiplier_but_a_reason():
    models = networks(falling, seeds=1) + networks(lambda n: falling(n) + 7, strategy="regular", seeds=1)
    assert "no seeds" in multiplier(models)
    assert "'normal' has networks of the sizes [250]" in multiplier(models[:1], strategy="normal")


def test_where_resamples_do_not_overlap_there_is_no_multiplier(few):
    normal = [
        Trained("normal", n, s, e) for n, s, e in ((100, 0, 30), (100, 1, 50), (1000, 0, 20), (1000, 1, 20))
    ]
    regular = [
        Trained("regular", n, s, e) for n, s, e in ((100, 0, 60), (100, 1, 60), (1000, 0, 30), (1000, 1, 46))
    ]
    found = multiplier(normal + regular)
    assert re.fullmatch(r"the curves overlap in \d+ of 30 resamples only", found)


def test_a_curve_that_rises_somewhere_is_levelled_there(few):
    assert curves._size_of_error({1: 5.0, 10: 3.0, 1000: 4.0, 2000: 1.0})(3.5) == pytest.approx(math.log(100))
    assert curves._size_of_error({1: 1.0, 10: 2.0, 100: 3.0}) is None
    bumpy = dict(zip(SIZES, (70.0, 40.0, 42.0, 20.0), strict=True))
    models = networks(bumpy.__getitem__) + networks(bumpy.__getitem__, strategy="regular")
    assert multiplier(models).value == pytest.approx(1)


# ---- gap ----


def test_gaps_are_paired_by_seed_at_every_size():
    normal = [Trained("normal", n, seed, 30 + seed) for n in (250, 1000) for seed in (0, 1, 2)]
    regular = [Trained("regular", 250, seed, 36 + 2 * seed) for seed in (0, 1, 2, 3)]
    regular += [Trained("regular", 1000, 1, 33), Trained("regular", 4000, 0, 5)]
    found = gap(normal + regular, 10000)
    assert list(found) == [250, 1000], "sizes and seeds of both"
    small = found[250]
    small.check()
    assert small.per_seed == (6, 7, 8)
    assert small.value == pytest.approx(7)
    half = 4.302653 / 3**0.5
    assert small.seed_ci95 == pytest.approx((7 - half, 7 + half), abs=1e-5)
    spread = 100 * 1.96 * (0.31 * 0.69 / 10000 + 0.38 * 0.62 / 10000) ** 0.5
    assert small.ci95 == pytest.approx((7 - spread, 7 + spread), abs=0.01)
    assert found[1000].seeds == (1,)
    assert found[1000].value == pytest.approx(2)
    assert small.n == 10000


def test_gaps_of_two_data_sets_are_compared_seed_by_seed():
    hard = networks(falling) + networks(lambda n: falling(n) + 9, strategy="regular", noise=0.5)
    easy = networks(lambda n: falling(n) / 5) + networks(
        lambda n: falling(n) / 5 + 2, strategy="regular", seeds=2
    )
    found = apart(gap(hard, 1000)[1000], gap(easy, 1000)[1000])
    found.check()
    assert found.seeds == (0, 1)
    assert found.per_seed == pytest.approx([each - 2 for each in gap(hard, 1000)[1000].per_seed[:2]])
    assert found.value == pytest.approx(7, abs=1)
    low, high = found.ci95
    assert low < found.value < high


# ---- every complaint ----

MODELS = networks(falling)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Trained("normal", 0, 0, 50.0), "n=0, test_error=50.0"),
        (lambda: Trained("normal", 1, 0, 101.0), "test_error=101.0"),
        (lambda: Trained("normal", 1, 0, math.nan), "test_error=nan"),
        (lambda: Trained("normal", 1, 4, 5.0, {"a": math.inf}), "normal, n=1, seed=4 is inf"),
        (lambda: correlation(MODELS[:3], "success"), "3 networks"),
        (lambda: correlation(MODELS, "steps"), "normal, n=250, seed=0 'steps'"),
        (lambda: correlation(MODELS + MODELS[:1], "success"), "'normal', n=250, seed=0"),
        (lambda: correlation(networks(falling, lambda e: 7), "success"), "'success' are 7"),
        (lambda: correlation(networks(lambda n: 9), "success"), "errors are 9"),
        (lambda: change(MODELS, "success", strategy="mixture"), "'mixture'"),
        (lambda: change(networks(lambda n: 9), "success"), "errors are 9"),
        (lambda: multiplier(MODELS), "'regular'"),
        (lambda: gap(MODELS + networks(falling, strategy="regular", sizes=(300,)), 9), "no size"),
        (lambda: gap(MODELS, 0, strategy="normal"), "n=0"),
        (
            lambda: apart(gap(MODELS, 9, strategy="normal")[250], correlation(MODELS, "success").measured()),
            "no seed",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_by_its_value(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
