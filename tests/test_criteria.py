"""Criteria, intervals and the verdict ladder: every kind against every outcome."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustutils.criteria import (
    FIDELITIES,
    KINDS,
    VERDICTS,
    Judgement,
    Observed,
    mean_interval,
    paired_difference,
    parse_criterion,
    seed_interval,
    spearman_interval,
    verdict,
    wilson,
)

WITHIN = {"kind": "within", "points": 2, "relative": 0.1, "direction": "below"}
GREATER = {"kind": "greater", "null": 1.0, "low": 2.0, "high": 4.0}
LESS = {"kind": "less", "null": 0, "low": -4}
MONOTONE = {"kind": "monotone", "direction": "increasing", "tolerance": 0.5}
RANK = {"kind": "rank", "least": 0.8}
EQUIVALENT = {"kind": "equivalent", "target": 10.0, "margin": 1.0}
EXACT = {"kind": "exact", "tolerance": 1e-6}
FIVE = (1.0, 2.0, 3.0, 4.0, 5.0)

# kind, paper, measured value, effect, its interval, (direction, size)
JUDGED = [
    (WITHIN, 50.0, 54.0, -9.0, (-12.0, -6.0), (True, True)),
    (WITHIN, 50.0, 56.0, -9.0, (-12.0, -6.0), (True, False)),
    (WITHIN, 50.0, 54.0, -1.0, (-3.0, 1.0), (False, True)),
    (WITHIN, 50.0, 56.0, 9.0, (6.0, 12.0), (False, False)),
    (WITHIN, 10.0, 11.9, -9.0, (-12.0, -6.0), (True, True)),  # points are the wider band here
    (WITHIN, -50.0, -54.0, -9.0, (-12.0, -6.0), (True, True)),  # a negative number has a band too
    ({"kind": "within", "points": 1}, 5.0, 5.5, 5.5, None, (True, True)),
    ({"kind": "within", "points": 1}, 5.0, 6.5, 6.5, None, (False, False)),
    ({"kind": "within", "points": 1, "direction": "above", "null": 5}, 6.0, 6.5, 6.5, (5.1, 7), (True, True)),
    (GREATER, None, 3.0, 3.0, (1.5, 4.5), (True, True)),
    (GREATER, None, 5.0, 5.0, (4.5, 5.5), (True, False)),
    (GREATER, None, 1.5, 1.5, (1.2, 1.8), (True, False)),
    (GREATER, None, 3.0, 3.0, (1.0, 5.0), (False, True)),  # touching the null is not above it
    ({"kind": "greater", "null": 0}, None, 9.0, 9.0, (8.0, 10.0), (True, True)),
    (LESS, None, 7.0, -3.0, (-4.5, -1.5), (True, True)),
    (LESS, None, 7.0, -5.0, (-5.5, -4.5), (True, False)),
    (LESS, None, 7.0, 3.0, (2.0, 4.0), (False, True)),
    (MONOTONE, None, (1.0, 3.0, 2.6, 5.0), 4.0, (3.0, 5.0), (True, True)),
    (MONOTONE, None, (1.0, 3.0, 2.0, 5.0), 4.0, (3.0, 5.0), (True, False)),
    (MONOTONE, None, (1.0, 1.0, 1.1), 0.1, (-1.0, 1.2), (False, True)),
    (MONOTONE, None, (5.0, 3.0), -2.0, (-3.0, -1.0), (False, False)),
    (MONOTONE | {"direction": "decreasing"}, None, (5.0, 3.0), -2.0, (-3.0, -1.0), (True, True)),
    (RANK, FIVE, (10.0, 20.0, 30.0, 40.0, 50.0), 40.0, None, (True, True)),
    (RANK, (*FIVE, 6.0, 7.0, 8.0), (2.0, 1.0, 5.0, 3.0, 4.0, 8.0, 6.0, 7.0), 5.0, None, (True, True)),
    (
        RANK | {"least": 0.95},
        (*FIVE, 6.0, 7.0),
        (1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0),
        5.0,
        None,
        (True, False),
    ),
    (RANK, FIVE, (2.0, 3.0, 1.0, 5.0, 4.0), 2.0, None, (False, False)),  # rho 0.6 over five excludes nothing
    (RANK, FIVE, (5.0, 4.0, 3.0, 2.0, 1.0), -4.0, None, (False, False)),
    (RANK, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 2.0, None, (True, True)),  # too few values for an interval
    (RANK, FIVE, (2.0, 2.0, 2.0, 2.0, 2.0), 0.0, None, (False, False)),
    (EQUIVALENT, None, 10.0, 10.1, (9.5, 10.7), (True, True)),
    (EQUIVALENT, None, 10.0, 10.1, (8.9, 10.7), (False, False)),
    (EXACT, 0.5, 0.5 + 1e-7, 0.5, None, (True, True)),
    (EXACT, 0.5, 0.5 + 1e-5, 0.5, None, (False, False)),
    (EXACT, (0.5, 0.25), (0.5, 0.25), -0.25, None, (True, True)),
    (EXACT, (0.5, 0.25), (0.5, 0.26), -0.24, None, (False, False)),
]


@pytest.mark.parametrize(("data", "paper", "value", "effect", "interval", "expected"), JUDGED)
def test_each_kind_judges_direction_and_size(data, paper, value, effect, interval, expected):
    judgement = parse_criterion(data).judge(paper, Observed(value, effect, interval))
    assert (judgement.direction, judgement.size) == expected


def test_the_table_covers_every_kind_and_every_kind_describes_itself():
    assert {data["kind"] for data, *_ in JUDGED} == set(KINDS)
    for data, *_ in JUDGED:
        numbers = [
            f"{value:g}" for key, value in data.items() if key not in ("kind", "direction", "relative")
        ]
        assert all(number in str(parse_criterion(data)) for number in numbers), data


@pytest.mark.parametrize(("data", "paper", "value", "expected"), [
    (WITHIN, 5.0, 5.0, "95% interval of the effect and there is none"),
    (WITHIN, 5.0, (5.0, 6.0), "compares two numbers"),
    (GREATER, None, 5.0, "95% interval of the effect and there is none"),
    (EQUIVALENT, None, 5.0, "95% interval of the effect and there is none"),
    (MONOTONE, None, 5.0, "judges a sequence of values, got 5.0"),
    (RANK, FIVE, 5.0, "judges a sequence of values, got 5.0"),
    (RANK, FIVE, (1.0, 2.0), "at least 3 values of each, got 2 and 5"),
    (EXACT, (1.0, 2.0), 1.0, "compares like with like"),
    (EXACT, None, 1.0, "compares like with like"),
])  # fmt: skip
def test_a_measurement_that_a_criterion_cannot_judge_is_an_error(data, paper, value, expected):
    with pytest.raises(ValueError, match=expected):
        parse_criterion(data).judge(paper, Observed(value, 5.0, None))


@pytest.mark.parametrize(("data", "expected"), [
    ({}, "unknown criterion kind None; allowed: within, greater"),
    ({"kind": "near"}, "unknown criterion kind 'near'"),
    ({"kind": ["within"]}, "unknown criterion kind"),
    (GREATER | {"hihg": 3}, "'greater' has unknown key 'hihg'; allowed: null, low, high"),
    ({"kind": "greater", "low": 1}, "'greater' misses key 'null'"),
    ({"kind": "equivalent"}, "misses key 'margin'"),
    ({"kind": "exact"}, "misses key 'tolerance'"),
    ({"kind": "monotone"}, "misses key 'direction'"),
    ({"kind": "rank"}, "misses key 'least'"),
    ({"kind": "within"}, "needs a positive 'points' or 'relative'"),
    ({"kind": "within", "points": -1, "relative": 0.1}, "neither below 0"),
    ({"kind": "within", "points": "5"}, "'points' must be a finite number, got '5'"),
    ({"kind": "within", "points": math.nan}, "'points' must be a finite number, got nan"),
    ({"kind": "within", "points": True}, "'points' must be a finite number, got True"),
    (WITHIN | {"direction": "down"}, "'direction' is 'down'; allowed: above, below"),
    (MONOTONE | {"direction": "above"}, "'direction' is 'above'; allowed: increasing, decreasing"),
    (EXACT | {"tolerance": -1}, "'tolerance' must not be negative"),
    (GREATER | {"low": 9}, "low 9 above high 4"),
])  # fmt: skip
def test_a_misspelt_criterion_is_an_error(data, expected):
    with pytest.raises(ValueError, match=expected):
        parse_criterion(data)


HOLDS, DIRECTION, SIZE, NOTHING = (Judgement(d, s) for d, s in ((1, 1), (1, 0), (0, 1), (0, 0)))


@pytest.mark.parametrize(("judgement", "fidelity", "profile", "n", "seeds", "expected"), [
    (HOLDS, "exact", "paper", 100, 3, "reproduced"),
    (HOLDS, "code_variant", "standard", 100, 3, "reproduced"),
    (HOLDS, "substitution", "standard", 100, 3, "partly"),
    (HOLDS, "reduced", "standard", 100, 3, "partly"),
    (HOLDS, "reduced", "standard", 99, 1, "partly"),
    (DIRECTION, "exact", "standard", 100, 3, "partly"),
    (DIRECTION, "reduced", "standard", 100, 3, "partly"),
    (SIZE, "exact", "standard", 100, 3, "not_reproduced"),
    (NOTHING, "exact", "standard", 100, 3, "not_reproduced"),
    (NOTHING, "reduced", "standard", 99, 3, "not_reproduced"),
    (HOLDS, "exact", "quick", 1, 1, "not_evidence"),
    (NOTHING, "reduced", "quick", 1, 1, "not_evidence"),
])  # fmt: skip
def test_the_ladder(judgement, fidelity, profile, n, seeds, expected):
    least = {"min_n": 100, "min_seeds": 3}
    given_seeds = range(seeds)
    assert verdict(judgement, fidelity=fidelity, profile=profile, n=n, seeds=given_seeds, **least) == expected


@pytest.mark.parametrize(("change", "expected"), [
    ({"fidelity": "faithful"}, "unknown fidelity 'faithful'; allowed: exact, code_variant"),
    ({"profile": "fast"}, "unknown profile 'fast'; allowed: quick, standard, paper"),
    ({"n": 99}, r"n=99 and 3 seeds are fewer than the least \(100 and 3\): declare the fidelity 'reduced'"),
    ({"seeds": [0, 1]}, "n=100 and 2 seeds are fewer"),
    ({"seeds": [0], "fidelity": "substitution"}, "declare the fidelity 'reduced', not 'substitution'"),
])  # fmt: skip
def test_the_ladder_refuses_what_was_not_declared(change, expected):
    declared = {
        "fidelity": "exact",
        "profile": "paper",
        "n": 100,
        "seeds": [0, 1, 2],
        "min_n": 100,
        "min_seeds": 3,
    }
    with pytest.raises(ValueError, match=expected):
        verdict(HOLDS, **declared | change)


RUNS = [("exact", "standard"), ("substitution", "standard"), ("reduced", "paper"), ("exact", "quick")]
EARNED = {  # (direction, size): the verdict in each of RUNS
    (True, True): ("reproduced", "partly", "partly", "not_evidence"),
    (True, False): ("partly", "partly", "partly", "not_evidence"),
    (False, True): ("not_reproduced", "not_reproduced", "not_reproduced", "not_evidence"),
    (False, False): ("not_reproduced", "not_reproduced", "not_reproduced", "not_evidence"),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("data", "paper", "value", "effect", "interval", "expected"), JUDGED)
def test_each_kind_earns_its_verdict(data, paper, value, effect, interval, expected, run):
    judgement = parse_criterion(data).judge(paper, Observed(value, effect, interval))
    fidelity, profile = run
    reached = verdict(judgement, fidelity=fidelity, profile=profile, n=10, seeds=[0])
    assert reached == EARNED[expected][RUNS.index(run)]


@settings(deadline=None)
@given(st.booleans(), st.booleans(), st.sampled_from(["quick", "standard", "paper"]))
def test_a_weaker_fidelity_never_improves_the_verdict(direction, size, profile):
    reached = [
        VERDICTS.index(verdict(Judgement(direction, size), fidelity=f, profile=profile, n=10, seeds=[0]))
        for f in FIDELITIES
    ]
    assert reached == sorted(reached)


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
