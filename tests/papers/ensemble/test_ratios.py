"""The approximation ratio and directions around an image, on numbers and models whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from robustutils.papers.ensemble.ratios import Ratios, gradient_sign, made_orthogonal


def test_a_ratio_is_that_of_the_means_of_each_seed_with_a_bootstrap_over_the_points():
    rng = np.random.default_rng(0)
    strong = rng.exponential(size=(2, 300)).astype(np.float32)
    single = (strong * rng.random((2, 300))).astype(np.float32)
    found = Ratios(single, strong, [0, 1], "a note").measured()
    each = 100 * single.mean(1) / strong.mean(1)
    assert found.value == pytest.approx(each.mean())
    assert found.per_seed == pytest.approx(each)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert (found.n, found.seeds, found.note) == (300, (0, 1), "a note")
    assert found.outcomes.keys() == {"single-step loss", "strong loss"}
    found.check()


def test_the_single_step_counts_as_one_of_the_strong_attacks_and_a_loss_of_zero_as_reached():
    ratios = Ratios(np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 3.0, 0.0]]), [0])
    assert ratios.per_seed.tolist() == [60.0]


def test_the_mean_of_the_ratios_is_the_other_reading():
    single, strong = np.array([[1.0, 3.0, 0.0]]), np.array([[4.0, 3.0, 0.0]])
    found = Ratios(single, strong, [0])
    assert found.mean == pytest.approx(75.0)
    assert found.per_seed.tolist() == pytest.approx([100 * 4 / 7])


def test_two_ratios_are_compared_on_the_same_resamples_and_common_seeds():
    rng = np.random.default_rng(1)
    strong = rng.exponential(size=(3, 200))
    one, other = Ratios(0.5 * strong[:1], strong[:1], [1]), Ratios(0.4 * strong, strong, [0, 1, 2])
    apart = one - other
    assert (apart.value, apart.seeds) == (pytest.approx(10.0), (1,))
    assert apart.ci95 == pytest.approx((10.0, 10.0)), "the same points move both alike"
    assert one.measured(other).effect == pytest.approx(10.0)


# ---- two directions ----


@pytest.mark.parametrize("size", [16, 17])
def test_a_direction_is_made_orthogonal_with_as_few_flips_as_needed(size):
    signs = torch.randint(0, 2, (2, size), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    along, across = signs
    found = made_orthogonal(along, across)
    assert abs((along * found).sum().item()) == size % 2
    excess = abs(int((along * across).sum()))
    assert (found != across).sum().item() in (excess // 2, -(-excess // 2))
    assert torch.equal(made_orthogonal(along, found), found)


def test_the_sign_of_a_gradient_has_no_zero():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2)
    with torch.no_grad():
        model[1].weight[:, 0] = 0
    sign = gradient_sign(model, x, torch.tensor([0, 1]))
    assert sign.shape == x.shape
    assert sign.abs().unique().tolist() == [1.0]
    assert (sign.flatten(1)[:, 0] == 1).all()
