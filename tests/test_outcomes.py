"""What was measured: rates, means and differences of outcomes, sequences of them, and what cannot be a measurement."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from robustutils.outcomes import Measurement, Outcomes, Ranking, highest, sequence
from robustutils.papers.disentangling.attempts import Conditional
from robustutils.statistics import auroc, independent_difference, mean_interval, paired_difference, wilson


def test_a_rate_of_several_seeds_and_its_effect():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 400)) < 0.05, rng.random((2, 400)) < 0.8
    found = Outcomes(ours, [0, 1], note="n").measured(Outcomes(theirs, [0, 1]))
    assert found.value == pytest.approx(100 * ours.mean())
    assert found.ci95 == pytest.approx([100 * end for end in wilson(ours.mean() * 400, 400)])
    assert found.per_seed == pytest.approx(100 * ours.mean(axis=1))
    assert found.effect == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert found.effect_per_seed == pytest.approx(100 * (ours.mean(axis=1) - theirs.mean(axis=1)))
    assert (found.n, found.seeds, found.note) == (400, (0, 1), "n")
    assert found.effect_ci95 == pytest.approx(
        [100 * end for end in mean_interval((ours.astype(float) - theirs).mean(axis=0))]
    )


def test_one_seed_takes_newcombes_paired_interval():
    ours, theirs = np.arange(100) < 10, np.arange(100) < 40
    difference, interval = paired_difference(ours, theirs)
    found = Outcomes(ours, [3]) - Outcomes(theirs, [3])
    assert found.value == pytest.approx(100 * difference)
    assert found.ci95 == pytest.approx([100 * end for end in interval])
    assert Outcomes(ours, [3]).measured().effect is None


def test_a_difference_is_of_the_seeds_and_images_that_both_have():
    ours = Outcomes([[True, True, False], [True, False, False]], [0, 1], images=[5, 7, 9])
    theirs = Outcomes([[True, False, True]], [1], images=[9, 5, 2])
    found = ours - theirs
    assert (found.seeds, found.n, found.images.tolist()) == ((1,), 2, [5, 9])
    assert found.outcomes["outcomes"].tolist() == [[True, False]]
    assert found.outcomes["reference"].tolist() == [[False, True]]
    assert found.value == 0
    with pytest.raises(ValueError, match="no image in common"):
        ours - Outcomes([True], [0], images=[4])


def test_outcomes_on_two_data_sets_are_independent_samples():
    one = Outcomes(np.arange(100) < 30, [0], dataset="MNIST")
    other = Outcomes(np.arange(50) < 5, [0], dataset="Fashion-MNIST")
    ends = [tuple(100 * end for end in wilson(k, n)) for k, n in ((30, 100), (5, 50))]
    value, interval = independent_difference(30.0, ends[0], 10.0, ends[1])
    found = one - other
    assert (found.value, found.n) == (pytest.approx(value), 50)
    assert found.ci95 == pytest.approx(interval)


def test_numbers_have_means_and_paired_differences():
    values = np.array([[1.0, 2.0, 3.0, 6.0], [2.0, 4.0, 4.0, 6.0]])
    found = Outcomes(values, [0, 1]).measured()
    assert (found.value, found.n, found.per_seed) == (3.5, 4, (3.0, 4.0))
    assert found.ci95 == pytest.approx(mean_interval([1.5, 3.0, 3.5, 6.0]))
    apart = Outcomes(values, [0, 1]) - Outcomes(values[:1], [0])
    assert (apart.value, apart.seeds) == (0.0, (0,))
    with pytest.raises(ValueError, match="truth values and numbers"):
        Outcomes(values, [0, 1]) - Outcomes(values > 2, [0, 1])


def test_a_number_that_stands_for_all_points_has_no_interval_over_them():
    found = Outcomes([[0.1], [0.3]], [0, 1], n=1000, note="embeddings").measured()
    assert (found.ci95, found.n, found.per_seed) == (None, 1000, (0.1, 0.3))
    assert found.seed_ci95[0] < 0.1


@pytest.mark.parametrize(("values", "seeds", "images", "expected"), [
    (np.zeros((2, 5)), [0], None, r"1 seeds.* float64\[2, 5\]"),
    (np.zeros((2, 5), bool), [0], None, r"bool\[2, 5\]"),
    ([1.0, math.nan], [0], None, "finite"),
    (np.zeros(5, bool), [0], [1, 2], "5 .* 2 images"),
])  # fmt: skip
def test_outcomes_of_another_shape_are_refused(values, seeds, images, expected):
    with pytest.raises(ValueError, match=expected):
        Outcomes(values, seeds, images)


def test_a_sequence_is_decided_by_the_paired_difference_of_its_ends():
    parts = [Outcomes(np.arange(50) < k, [0]) for k in (5, 20, 40)]
    found = sequence(parts)
    assert found.value == (10.0, 40.0, 80.0)
    assert found.per_seed == ((10.0, 40.0, 80.0),)
    apart = parts[2] - parts[0]
    assert (found.effect, found.effect_ci95, found.n) == (apart.value, apart.ci95, 50)
    found.check()
    assert (
        sequence([Outcomes([[0.1], [0.3]], [0, 1], n=9), Outcomes([[1.0], [2.0]], [0, 1], n=9)]).ci95 is None
    )


def conditional(seeds=(0, 1), percent=True):
    """Four points under two seeds: means of 75 over two points and of 20 over three."""
    values = np.array([[100.0, 50.0, 7.0, 9.0], [60.0, 0.0, 0.0, 7.0]])
    counts = np.array([[True, True, False, False], [True, True, True, False]])
    return Conditional(values, counts, seeds, percent)


def test_a_conditional_rate_counts_each_seeds_own_points():
    found = conditional().measured()
    assert found.per_seed == pytest.approx((75, 20))
    assert (found.value, found.n, found.seeds) == (pytest.approx(47.5), 2, (0, 1))
    assert found.ci95 == pytest.approx([100 * end for end in wilson(0.475 * 2, 2)])
    assert found.outcomes["values"].tolist() == [[100, 50, 0, 0], [60, 0, 0, 0]], "what does not count is 0"
    assert conditional(percent=False).measured().ci95 == pytest.approx(
        [end - 75 + 47.5 for end in mean_interval([100, 50])]
    )


def test_a_difference_of_conditional_rates_is_of_the_seeds_that_both_have():
    apart = conditional() - conditional((1, 2))
    assert (apart.value, apart.seeds, apart.per_seed) == (pytest.approx(20 - 75), (1,), (-55,))
    assert apart.outcomes.keys() == {"values", "counts", "other values", "other counts"}
    with pytest.raises(ValueError, match="no seed in common"):
        conditional() - conditional((2, 3))


def test_a_sequence_is_of_the_seeds_that_all_have():
    found = sequence([conditional(), conditional((1, 2))])
    assert found.seeds == (1,)
    assert found.value == pytest.approx((20, 75))
    assert found.effect == pytest.approx(55)


@pytest.mark.parametrize(
    ("counts", "seeds", "expected"),
    [
        ([[True, False], [False, False]], [0, 1], "no example"),
        ([[True, True]], [0, 1], r"\[2, 2\].*\[1, 2\].* 2 seeds"),
        ([[True, True], [True, True]], [0], "of 1 seeds"),
    ],
)
def test_conditional_rates_of_another_shape_are_refused(counts, seeds, expected):
    with pytest.raises(ValueError, match=expected):
        Conditional(np.zeros((2, 2)), np.array(counts), seeds)


def test_the_highest_error_is_that_of_one_attack_for_each_seed():
    weak, strong = np.eye(2, 4, dtype=bool), np.ones((2, 4), bool)
    mixed = np.stack([strong[0], weak[0]])
    found = highest([Outcomes(weak, [0, 1]), Outcomes(mixed, [0, 1])])
    assert found.values.tolist() == [strong[0].tolist(), weak[1].tolist()]


def test_a_ranking_is_measured_by_its_auroc():
    scores, hits = np.arange(20.0), np.arange(20) % 3 == 0
    found = Ranking(scores, hits, [0]).measured()
    area, interval = auroc(scores, hits)
    assert (found.value, found.ci95, found.n) == (area, interval, 20)
    apart = Ranking(scores, hits, [0]) - Ranking(-scores, hits, [0])
    assert apart.value == pytest.approx(2 * area - 1)
    with pytest.raises(ValueError, match="reference"):
        Ranking(scores, hits, [0]).measured(Ranking(scores, hits, [0]))


def test_a_measurement_keeps_the_outcome_of_each_example_and_its_place():
    ours, theirs, places = np.arange(6) < 2, np.arange(6) < 4, [1, 2, 3, 7, 8, 9]
    one, other = Outcomes(ours, [0], places), Outcomes(theirs, [0], places)
    for found in (one.measured(other), one - other):
        assert {name: values.tolist() for name, values in found.outcomes.items()} == {
            "outcomes": [ours.tolist()],
            "reference": [theirs.tolist()],
        }
        assert found.images.tolist() == places
    assert Outcomes(ours + 0.5, [0], places).measured().outcomes["values"].tolist() == [(ours + 0.5).tolist()]
    assert one.measured().outcomes.keys() == {"outcomes"}


def measured(value=4.0, effect=-78.0, **changes):
    """Two seeds, 100 points."""
    settings = {
        "per_seed": [value - 0.5, value + 0.5],
        "effect": effect,
        "effect_ci95": None if effect is None else (effect - 2, effect + 2),
        "effect_per_seed": [-78.1, -77.9] if effect is None else [effect - 0.1, effect + 0.1],
    }
    return Measurement(value, (value - 2, value + 2), 100, [0, 1], **settings | changes)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"value": math.nan, "per_seed": None}, "value.* nan"),
    ({"effect": math.inf}, "effect.* inf"),
    ({"effect_per_seed": [-78.0]}, "effect has 1 .* 2 seeds"),
    ({"per_seed": [0.04, 0.05]}, "value 4.0.* per seed"),
    ({"effect_ci95": (-0.8, -0.7)}, "enclose effect -78.0"),
    ({"effect_ci95": [(-80.0, -70.0)]}, "enclose effect -78.0"),
    ({"effect": None}, "without effect"),
])  # fmt: skip
def test_what_cannot_be_a_measurement_is_an_error(changes, expected):
    with pytest.raises(ValueError, match=expected):
        measured(**changes).check()


@pytest.mark.parametrize(("n", "seeds"), [(0, [0, 1]), (100, [1, 1])])
def test_points_and_seeds_are_counted(n, seeds):
    with pytest.raises(ValueError, match=r"distinct seeds.*n="):
        Measurement(4.0, (3.0, 5.0), n, seeds, per_seed=[3.0, 5.0]).check()


def test_measurements_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        measured().value = 1.0


def test_seeds_without_a_value_of_each_leave_the_test_set_to_decide():
    found = Measurement(3.0, (2.0, 4.0), 100, [0, 1], effect=1.0, effect_ci95=(0.5, 1.5))
    assert found.observed().interval == (0.5, 1.5)
    each = Measurement(3.0, (2.0, 4.0), 100, [0, 1], per_seed=[2.9, 3.1])
    assert each.observed().interval == pytest.approx(mean_interval([2.9, 3.1]))


def test_intervals_over_seeds_are_on_the_scale_of_the_unit():
    seeds, rates = [0, 1, 2], [1.0, 3.0, 52.0]
    rate = Measurement(56 / 3, (18.0, 19.5), 10_000, seeds, per_seed=rates, unit="%")
    assert rate.seed_ci95[0] > 0
    assert rate.observed().spread == rate.observed().interval == rate.seed_ci95
    plain = Measurement(56 / 3, (18.0, 19.5), 10_000, seeds, per_seed=rates)
    assert plain.seed_ci95[0] < 0
    effect = {"effect": -90.0, "effect_ci95": (-91.0, -89.0), "effect_per_seed": (-99.0, -99.0, -72.0)}
    fallen = Measurement(5.0, (4.0, 6.0), 10_000, seeds, per_seed=(1.0, 1.0, 13.0), unit="%", **effect)
    assert -100 < fallen.observed().interval[0] < -90 < fallen.observed().interval[1]


def test_seeds_that_all_stand_on_one_end_leave_it_to_the_test_set_or_decide_nothing():
    full = Measurement(100.0, (99.9, 100.0), 5_000, [0, 1], per_seed=(100.0, 100.0), unit="%")
    assert full.seed_ci95 is None
    assert full.observed().interval == (99.9, 100.0)
    ordered = {"effect": -1.0, "effect_per_seed": (-1.0, -1.0)}
    perfect = Measurement(-0.9, (-1.0, -0.5), 6, [0, 1], unit="correlation", **ordered)
    assert perfect.observed().interval == (-1.0, 1.0)
