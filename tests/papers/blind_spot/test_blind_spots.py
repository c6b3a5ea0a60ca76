"""Scaled and shifted images, the attack at a fixed radius, and a cell of the paper's tables."""

import numpy as np
import pytest
import torch
from torch import nn

from robustutils.evaluation import evaluate
from robustutils.papers.blind_spot import blind_spots
from robustutils.papers.blind_spot.blind_spots import FixedRadius, attack_cell, scale_shift, transformed
from robustutils.papers.blind_spot.carlini import CarliniLinf
from robustutils.threats import L2, Linf, check_inside


def linear_net(weights: torch.Tensor, bias: float = 0.0) -> nn.Sequential:
    """Two classes: class 1 wins where weights . x + bias > 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros_like(weights), weights]))
        net[1].bias.copy_(torch.tensor([0.0, bias]))
    return net.eval()


# ---- the transformation ----


def test_scale_and_shift_act_about_mid_grey():
    x = torch.tensor([0.0, 0.5, 1.0])
    assert torch.allclose(scale_shift(x, 0.7, 0.0), torch.tensor([0.15, 0.5, 0.85]))
    assert torch.allclose(scale_shift(x, 0.7, 0.15), torch.tensor([0.3, 0.65, 1.0])), "white stays white"
    assert torch.allclose(scale_shift(x, 0.7, -0.15), torch.tensor([0.0, 0.35, 0.7])), "black stays black"
    centred = x - 0.5
    assert torch.allclose(scale_shift(x, 0.8, 0.1), 0.8 * centred + 0.1 + 0.5), "the paper's pixels"


@pytest.mark.parametrize(
    ("alpha", "beta"), [(1.0, 0.01), (0.9, 0.06), (0.9, -0.06), (0.0, 0.0), (1.1, 0.0), (float("nan"), 0.0)]
)
def test_what_leaves_the_pixel_range_is_refused_by_name(alpha, beta):
    with pytest.raises(ValueError, match=f"alpha={alpha}"):
        scale_shift(torch.rand(3), alpha, beta)


@pytest.mark.parametrize("alpha", [0.95, 0.9, 0.8, 0.7, 0.3])
def test_the_largest_shift_of_each_scale_is_allowed_and_stays_in_the_range(alpha):
    x = torch.rand(1000)
    for beta in ((1 - alpha) / 2, -(1 - alpha) / 2):
        moved = scale_shift(x, alpha, beta)
        assert 0 <= moved.min() <= moved.max() <= 1


def test_the_images_as_they_are_are_the_data_set_itself(tiny_data):
    assert transformed(tiny_data, 1, 0) is tiny_data
    moved = transformed(tiny_data, 0.9, 0.05)
    assert moved.fingerprint != tiny_data.fingerprint
    assert torch.equal(moved.labels, tiny_data.labels)


# ---- the attack at a fixed radius ----


@pytest.mark.parametrize("threat", [Linf(eps=0.2), L2(eps=1.5)])
def test_it_stays_in_its_threat_set_and_repeats_itself(digits, digits_net, threat):
    some = digits.first(20)
    attack = FixedRadius(threat=threat, steps=5, restarts=1)
    x_adv = attack(digits_net, some.images, some.labels)
    check_inside(threat, some.images, x_adv)
    assert torch.equal(x_adv, attack(digits_net, some.images, some.labels))


def test_on_a_linear_model_it_succeeds_exactly_where_the_radius_reaches():
    weights = torch.tensor([1.0, -2.0, 0.5, 1.5])
    x = torch.full((2, 1, 2, 2), 0.5)
    net = linear_net(weights, bias=-0.5 * weights.sum().item() - 0.5)  # margin 0.5 at mid-grey
    distance = 0.5 / weights.abs().sum().item()
    y = torch.zeros(2, dtype=torch.int64)
    for eps, fools in ((0.98 * distance, False), (1.02 * distance, True)):
        x_adv = FixedRadius(threat=Linf(eps=eps), steps=100, restarts=0)(net, x, y)
        assert bool((net(x_adv).argmax(1) != y).all()) == fools, eps


def test_each_start_finds_what_only_it_can_find():
    """A network without gradients: only the starting points themselves can fool it."""

    class GreyOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            grey = ((x - 0.5).flatten(1).abs().amax(1) < 1e-6).float()
            return (
                torch.stack([5 - 5 * grey, 3 + 0 * grey], 1)
                + 0 * (self.weight * x.flatten(1).sum(1))[:, None]
            )

    x, y = torch.full((3, 1, 2, 2), 0.3), torch.zeros(3, dtype=torch.int64)
    net = GreyOnly()
    fooled = [
        bool((net(FixedRadius(threat=Linf(eps=eps), steps=1, restarts=0)(net, x, y)).argmax(1) != y).all())
        for eps in (0.1, 0.2)
    ]
    assert fooled == [False, True], "the grey image is projected: within reach it is grey itself"


def test_more_starts_never_find_less(digits, digits_net):
    some = digits.first(60)
    rates = [
        evaluate(
            digits_net, FixedRadius(threat=Linf(eps=0.08), steps=5, restarts=n), some, batch_size=60
        ).success_rate()
        for n in (0, 3)
    ]
    assert rates[1].count >= rates[0].count
    assert rates[0].count > 0


@pytest.mark.parametrize("bad", [{"steps": 0}, {"restarts": -1}, {"noise": -0.1}])
def test_bad_settings_are_refused_by_name(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        FixedRadius(threat=Linf(eps=0.1), **bad)


# ---- a cell ----


@pytest.fixture
def cell(digits, digits_net) -> blind_spots.Cell:
    attack = FixedRadius(threat=Linf(eps=0.15), steps=10, restarts=0)
    return attack_cell(digits_net, attack, digits.first(80), alpha=0.8, beta=0.1, n=30)


def test_a_cell_attacks_the_first_correctly_classified_images(cell, digits, digits_net):
    images = transformed(digits.first(80), 0.8, 0.1)
    right = digits_net(images.images).argmax(1) == images.labels
    assert torch.equal(cell.correct, right)
    assert cell.attacked.tolist() == right.nonzero().squeeze(1)[:30].tolist()
    assert cell.accuracy().n == 80
    assert cell.success().n == 30


def test_the_stricter_threshold_is_reached_by_no_more_images(cell, digits, digits_net):
    assert not (cell.at_alpha_eps & ~cell.at_eps).any()
    strict = FixedRadius(threat=Linf(eps=0.8 * 0.15), steps=10, restarts=0)
    images = transformed(digits.first(80).take(cell.attacked), 0.8, 0.1)
    alone = ~evaluate(digits_net, strict, images).attacked
    apart = (alone != cell.at_alpha_eps).float().mean()
    assert apart <= 0.1, "the same images at the stricter threshold alone; starts are drawn anew"
    assert 0 < cell.success(strict=True).count < cell.success().count


def test_at_scale_one_both_thresholds_are_one(digits, digits_net):
    attack = FixedRadius(threat=Linf(eps=0.1), steps=5, restarts=0)
    cell = attack_cell(digits_net, attack, digits.first(40), alpha=1.0, beta=0.0, n=20)
    assert torch.equal(cell.at_eps, cell.at_alpha_eps)


def test_a_cell_without_a_correctly_classified_image_is_an_error(tiny_data):
    class Wrong(nn.Module):
        """Always one class beside the label of the only image."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.eye(3)[(tiny_data.labels[0] + 1) % 3].expand(len(x), 3) + self.weight

    with pytest.raises(ValueError, match=r"none of the 1 .*alpha=0.9, beta=0.0"):
        attack_cell(Wrong(), FixedRadius(threat=Linf(eps=0.1)), tiny_data.first(1), alpha=0.9, beta=0.0, n=5)


# ---- what a chapter asks of cells ----


def test_the_outcomes_of_a_cell_know_their_images(cell):
    accuracy = cell.outcomes("accuracy", [0], "digits")
    assert accuracy.values.tolist() == [cell.correct.tolist()]
    for quantity, hits in (("success at eps", cell.at_eps), ("success at alpha eps", cell.at_alpha_eps)):
        found = cell.outcomes(quantity, [0], "digits")
        assert found.values.tolist() == [hits.tolist()]
        assert found.images.tolist() == cell.attacked.tolist()
        assert found.dataset == "digits"


def test_the_plane_is_empty_where_there_is_no_room_or_too_little_is_right(digits, digits_net):
    attack = FixedRadius(threat=Linf(eps=0.1), steps=3, restarts=0)
    success, accuracy = blind_spots.plane(
        digits_net, attack, digits.first(40), scales=[1.0, 0.8, 0.02], shares=[1.0, 0.0], n=10
    )
    assert success.shape == accuracy.shape == (2, 3)
    assert np.isnan([success[0, 0], accuracy[0, 0]]).all(), "scale 1 leaves no room for a shift"
    assert not np.isnan(accuracy[:, 1:]).any()
    assert np.isnan(success[:, 2]).all(), "hardly any contrast is left, and the network is wrong"
    one = attack_cell(digits_net, attack, digits.first(40), alpha=0.8, beta=0.1, n=10)
    assert success[0, 1] == one.success().percent
    assert accuracy[0, 1] == pytest.approx(one.accuracy().percent)


def test_galleries_show_the_same_images_in_every_cell(digits, digits_net):
    attack = CarliniLinf(iterations=10, initial_c=0.1, learning_rate=5e-2)
    cells = [(1.0, 0.0), (0.8, 0.1)]
    few, sizes = digits.first(30), {"n": 6, "n_moved": 4}
    places, found, parts = blind_spots.nearest_in_cells(digits_net, attack, few, cells, **sizes)
    assert len(places) == 6
    assert [len(part.distances) for part in found] == [6, 4]
    assert [len(part.images) for part in found] == [4, 4], "the gallery shows no more"
    (whole,) = (part() for part in parts)
    assert torch.equal(whole["images"][[0, 1, 2, 3, 6, 7, 8, 9]], torch.cat([part.images for part in found]))
    assert torch.equal(whole["distances"], torch.cat([part.distances for part in found]))
    for (alpha, beta), part in zip(cells, found, strict=True):
        images = transformed(digits.take(places[:4]), alpha, beta)
        assert (digits_net(images.images).argmax(1) == images.labels).all()
        apart = (part.images - images.images).flatten(1).abs().amax(1)
        there = part.distances[:4].isfinite()
        assert (apart[there] <= part.distances[:4][there] + 1e-6).all()
    with pytest.raises(ValueError, match="at least 4"):
        blind_spots.nearest_in_cells(digits_net, attack, digits.first(3), cells, n=6, n_moved=4)


def test_attacks_that_know_less_are_judged_on_the_same_images(digits, digits_net):
    few = digits.first(40)
    attack = FixedRadius(threat=Linf(eps=0.1), steps=5, restarts=0)
    found = blind_spots.knowing_less(digits_net, digits_net, attack, few)
    assert list(found) == [
        "twice the steps", "gradient-free (Square)", "carried over from the natural network",
    ]  # fmt: skip
    white = evaluate(digits_net, attack, few)
    assert all(torch.equal(other.clean, white.clean) for other in found.values())
    assert (found["twice the steps"].attacked <= white.attacked).float().mean() > 0.9
