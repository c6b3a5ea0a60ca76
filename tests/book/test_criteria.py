"""Criteria and the verdict that agreement and fidelity make: every kind against every outcome."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustutils.book.criteria import FIDELITIES, KINDS, VERDICTS, parse_criterion, verdict
from robustutils.book.parameters import PROFILES
from robustutils.outcomes import Observed

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
    (WITHIN, 50.0, 54.0, -1.0, (-3.0, 1.0), (None, True)),
    (WITHIN, 50.0, 56.0, 9.0, (6.0, 12.0), (False, False)),
    (WITHIN, 10.0, 11.9, -9.0, (-12.0, -6.0), (True, True)),  # points are the wider band here
    (WITHIN, -50.0, -54.0, -9.0, (-12.0, -6.0), (True, True)),  # a negative number has a band too
    ({"kind": "within", "points": 1}, 5.0, 5.5, 5.5, None, (True, True)),
    ({"kind": "within", "points": 1}, 5.0, 6.5, 6.5, None, (False, False)),
    ({"kind": "within", "points": 1}, 5.0, 6.5, 6.5, (6.1, 6.9), (False, False)),
    ({"kind": "within", "points": 1}, 5.0, 6.5, 6.5, (5.9, 7.1), (None, False)),
    (
        {"kind": "within", "points": 1},
        5.0,
        6.5,
        1.0,
        (0.5, 1.5),
        (False, False),
    ),  # the interval of another number
    ({"kind": "within", "points": 1, "direction": "above", "null": 5}, 6.0, 6.5, 6.5, (5.1, 7), (True, True)),
    (GREATER, None, 3.0, 3.0, (2.5, 3.5), (True, True)),
    (GREATER, None, 5.0, 5.0, (4.5, 5.5), (True, False)),
    (GREATER, None, 1.5, 1.5, (1.2, 1.8), (True, False)),
    (GREATER, None, 2.0, 2.0, (1.0, 2.9), (None, True)),  # touching the null is not above it
    (GREATER, None, 3.0, 3.0, (1.5, 4.5), (True, None)),  # the interval is wider than the band
    ({"kind": "within", "points": 1}, 5.0, 5.5, 5.5, (4.0, 7.0), (None, None)),
    ({"kind": "within", "points": 1}, 5.0, 9.5, 9.5, (8.0, 11.0), (False, None)),
    ({"kind": "within", "points": 1, "direction": "above"}, 5.0, 5.5, 5.5, (4.0, 7.0), (True, None)),
    (GREATER, None, 0.0, 0.0, (-1.0, 0.9), (False, False)),
    ({"kind": "greater", "null": 0}, None, 9.0, 9.0, (8.0, 10.0), (True, True)),
    (LESS, None, 7.0, -3.0, (-4.5, -1.5), (True, True)),
    (LESS, None, 7.0, -5.0, (-5.5, -4.5), (True, False)),
    (LESS, None, 7.0, 3.0, (2.0, 4.0), (False, True)),
    (MONOTONE, None, (1.0, 3.0, 2.6, 5.0), 4.0, (3.0, 5.0), (True, True)),
    (MONOTONE, None, (1.0, 3.0, 2.0, 5.0), 4.0, (3.0, 5.0), (True, False)),
    (MONOTONE, None, (1.0, 1.0, 1.1), 0.1, (-1.0, 1.2), (None, True)),
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
    (RANK, FIVE, (2.0, 3.0, 1.0, 5.0, 4.0), 2.0, None, (None, False)),  # rho 0.6 over five excludes nothing
    (RANK, FIVE, (5.0, 4.0, 3.0, 2.0, 1.0), -4.0, None, (False, False)),
    (RANK, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 2.0, None, (True, True)),  # too few values for an interval
    (RANK, FIVE, (2.0, 2.0, 2.0, 2.0, 2.0), 0.0, None, (None, False)),
    (EQUIVALENT, None, 10.0, 10.1, (9.5, 10.7), (True, True)),
    (EQUIVALENT, None, 10.0, 10.1, (8.9, 10.7), (None, False)),
    (EQUIVALENT, None, 10.0, 12.0, (11.5, 12.5), (False, False)),
    (EQUIVALENT | {"points": 3}, 14.0, 10.0, 10.1, (9.5, 10.7), (True, False)),
    (EQUIVALENT | {"points": 3}, 12.0, 10.0, 10.1, (9.5, 10.7), (True, True)),
    (EQUIVALENT | {"points": 3}, None, 10.0, 10.1, (9.5, 10.7), (True, True)),  # the paper has no number
    (EXACT, 0.5, 0.5 + 1e-7, 0.5, None, (True, True)),
    (EXACT, 0.5, 0.5 + 1e-5, 0.5, None, (False, False)),
    (EXACT, (0.5, 0.25), (0.5, 0.25), -0.25, None, (True, True)),
    (EXACT, (0.5, 0.25), (0.5, 0.26), -0.24, None, (False, False)),
]


@pytest.mark.parametrize(("data", "paper", "value", "effect", "interval", "expected"), JUDGED)
def test_each_kind_judges_direction_and_size(data, paper, value, effect, interval, expected):
    spread = interval if effect == value else None
    judgement = parse_criterion(data).judge(paper, Observed(value, effect, interval, spread))
    assert (judgement.direction, judgement.size) == expected


def test_the_table_covers_every_kind_and_every_kind_describes_itself():
    assert {data["kind"] for data, *_ in JUDGED} == set(KINDS)
    for data, *_ in JUDGED:
        numbers = [
            f"{value:g}" for key, value in data.items() if key not in ("kind", "direction", "relative")
        ]
        assert all(number in str(parse_criterion(data)) for number in numbers), data


@pytest.mark.parametrize(("data", "paper", "value", "expected"), [
    (WITHIN, 5.0, 5.0, "interval"),
    (WITHIN, 5.0, (5.0, 6.0), "two numbers"),
    (GREATER, None, 5.0, "interval"),
    (EQUIVALENT, None, 5.0, "interval"),
    (MONOTONE, None, 5.0, "sequence.* 5.0"),
    (RANK, FIVE, 5.0, "sequence.* 5.0"),
    (RANK, FIVE, (1.0, 2.0), "3 .*2 and 5"),
    (EXACT, (1.0, 2.0), 1.0, "like with like"),
    (EXACT, None, 1.0, "like with like"),
])  # fmt: skip
def test_a_measurement_that_a_criterion_cannot_judge_is_an_error(data, paper, value, expected):
    with pytest.raises(ValueError, match=expected):
        parse_criterion(data).judge(paper, Observed(value, 5.0, None))


@pytest.mark.parametrize(("data", "expected"), [
    ({}, "kind None.*within, greater"),
    ({"kind": "near"}, "kind 'near'"),
    ({"kind": ["within"]}, "kind.*within"),
    (GREATER | {"hihg": 3}, r"'greater'.*'hihg'.*'high'.*null, low, high"),
    ({"kind": "greater", "low": 1}, "'greater'.*'null' is missing"),
    ({"kind": "equivalent"}, "'margin' is missing"),
    ({"kind": "exact"}, "'tolerance' is missing"),
    ({"kind": "monotone"}, "'direction' is missing"),
    ({"kind": "rank"}, "'least' is missing"),
    ({"kind": "within"}, "'points' or 'relative'"),
    ({"kind": "within", "points": -1, "relative": 0.1}, "'points'.* -1"),
    ({"kind": "within", "points": "5"}, "'points'.* '5'"),
    ({"kind": "within", "points": math.nan}, "'points'.* nan"),
    ({"kind": "within", "points": True}, "'points'.* True"),
    (WITHIN | {"direction": "down"}, "'down'.*above, below"),
    (MONOTONE | {"direction": "above"}, "'above'.*increasing, decreasing"),
    (EXACT | {"tolerance": -1}, "'tolerance'.* -1"),
    (EQUIVALENT | {"points": -1}, "'points'.* -1"),
    (GREATER | {"low": 9}, "low 9.* high 4"),
])  # fmt: skip
def test_a_misspelt_criterion_is_an_error(data, expected):
    with pytest.raises(ValueError, match=expected):
        parse_criterion(data)


@pytest.mark.parametrize(("direction", "size", "fidelity", "expected"), [
    (True, True, "exact", "reproduced"),
    (True, True, "code_variant", "reproduced"),
    (True, True, "substitution", "agrees"),
    (True, True, "reduced", "agrees"),
    (True, False, "exact", "direction"),
    (True, False, "reduced", "direction"),
    (True, True, "fewer", "agrees"),
    (None, True, "exact", "undetermined"),
    (None, False, "reduced", "undetermined"),
    (False, True, "exact", "disagrees"),
    (False, False, "reduced", "disagrees"),
])  # fmt: skip
def test_agreement_and_fidelity_make_the_verdict(direction, size, fidelity, expected):
    for profile in ("standard", "paper"):
        assert verdict(direction, size, fidelity=fidelity, profile=profile) == expected
    for profile in ("quick", "check"):
        assert verdict(direction, size, fidelity=fidelity, profile=profile) == "not_evidence"


@pytest.mark.parametrize("direction", [True, False, None])
def test_a_check_is_not_scored(direction):
    assert verdict(direction, True, fidelity="exact", profile="standard", check=True) == "not_scored"
    assert verdict(direction, True, fidelity="exact", profile="quick", check=True) == "not_evidence"


def test_an_unknown_fidelity_is_refused():
    with pytest.raises(ValueError, match=r"fidelity 'faithful'.*exact, open_choice"):
        verdict(True, True, fidelity="faithful", profile="paper")


@settings(deadline=None)
@given(st.sampled_from([True, False, None]), st.booleans(), st.sampled_from(PROFILES))
def test_a_weaker_fidelity_never_improves_the_verdict(direction, size, profile):
    reached = [VERDICTS.index(verdict(direction, size, fidelity=f, profile=profile)) for f in FIDELITIES]
    assert reached == sorted(reached, reverse=True), "what speaks against the paper stands first"


@pytest.mark.parametrize(("direction", "size", "reached"), [
    (True, None, "undetermined"), (None, None, "undetermined"), (False, None, "disagrees"),
])  # fmt: skip
def test_an_interval_wider_than_the_band_determines_nothing_but_a_refuted_direction(direction, size, reached):
    assert verdict(direction, size, fidelity="exact", profile="standard") == reached
