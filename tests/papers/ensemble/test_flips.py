"""Flips of thresholded pixels against exhaustive search."""

from itertools import product

import pytest
import torch
from torch import nn

from robustutils.attacks import margin
from robustutils.data import Dataset
from robustutils.papers.ensemble.flips import (
    binary,
    errors_by_flips,
    flippable,
    greedy_flips,
    inverted,
    most_promising,
    random_pixels,
    rotated,
    unverified,
)

X = torch.tensor([0.0, 0.1, 0.2, 0.45, 0.5, 0.7, 0.8, 0.81, 1.0])


@pytest.mark.parametrize("eps", [0.05, 0.3, 0.6])
def test_flippable_pixels_are_those_that_some_change_carries_over(eps):
    grid = torch.linspace(-eps, eps, 2001)
    reached = ((X[:, None] + grid).clamp(0, 1) >= 0.5) != (X[:, None] >= 0.5)
    found = flippable(X, eps)
    near = ((X - 0.5).abs() - eps).abs() < 1e-3  # on the edge rounding decides
    assert torch.equal(found[~near], reached.any(1)[~near])


def test_greedy_flips_touch_only_what_can_flip_and_stop_when_fooled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    x = torch.rand(200, 1, 3, 3)
    binary = (x >= 0.5).float()
    y = model(binary).argmax(1)
    found = greedy_flips(model, x, y, 0.2)
    changed = found != binary
    assert not (changed & ~flippable(x, 0.2)).any()
    fooled = model(found).argmax(1) != y
    assert 20 < fooled.sum() < 180
    for i in fooled.nonzero().squeeze(1)[:20]:  # the last flip was needed
        one_less = [found[i].clone() for _ in range(int(changed[i].sum()))]
        for image, position in zip(one_less, changed[i].nonzero(), strict=True):
            image[tuple(position)] = 1 - image[tuple(position)]
        assert any(model(image[None]).argmax(1).item() == y[i] for image in one_less)


def test_on_a_linear_model_of_two_classes_greedy_finds_what_exhaustive_search_finds():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    x = torch.rand(60, 1, 2, 3)
    y = model((x >= 0.5).float()).argmax(1)
    fooled = margin(model(greedy_flips(model, x, y, 0.25)), y) > 0
    for i in range(len(x)):
        positions = flippable(x[i], 0.25).flatten().nonzero().squeeze(1)
        possible = False
        for bits in product((0, 1), repeat=len(positions)):
            image = (x[i] >= 0.5).float().flatten()
            image[positions] = (image[positions] - torch.tensor(bits, dtype=torch.float32)).abs()
            possible |= bool(margin(model(image.view(1, 1, 2, 3)), y[i : i + 1]) > 0)
        assert bool(fooled[i]) == possible


def test_the_most_promising_flips_are_those_that_raise_a_linear_loss_most():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 0])
    picked = most_promising(model, x, y, 2)
    weight = model[1].weight.detach()
    for image, label, pixels in zip(x.flatten(1), y, picked, strict=True):
        rise = (1 - 2 * image) * (weight[1 - label] - weight[label])
        assert pixels.tolist() == rise.topk(2).indices.tolist()


# ---- what undoes the threshold ----


def test_a_rotation_turns_about_the_centre_and_leaves_the_corners_black():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, :] = 1.0  # a horizontal bar
    assert torch.allclose(rotated(x, 90)[0, 0], x[0, 0].T, atol=1e-5)
    assert torch.allclose(rotated(x, 0), x, atol=1e-6)
    turned = rotated(torch.ones(1, 1, 28, 28), 20)
    assert turned[0, 0, 0, 0] == 0, "black corners"
    assert turned[0, 0, 14, 14] == pytest.approx(1)
    assert 0 <= turned.min() <= turned.max() <= 1


def test_random_pixels_are_distinct_repeatable_and_inverted_exactly():
    x = torch.rand(4, 1, 3, 3)
    picked = random_pixels(x, 5)
    assert picked.shape == (4, 5)
    assert all(len(set(line.tolist())) == 5 for line in picked)
    assert torch.equal(picked, random_pixels(x, 5))
    assert not torch.equal(picked, random_pixels(x, 5, seed=1))
    changed = inverted(x, picked)
    moved = (changed != x).flatten(1)
    assert all(
        set(line.nonzero().flatten().tolist()) <= set(one.tolist())
        for line, one in zip(moved, picked, strict=True)
    )
    torch.testing.assert_close(inverted(changed, picked), x)


def test_the_two_bounds_enclose_the_errors_that_flips_can_cause():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    x = torch.rand(60, 1, 2, 3)
    y = model(binary(x)).argmax(1)
    images = Dataset("flips", "test", x, y, ("a", "b"), "f" * 64)
    lower, upper = errors_by_flips(model, images, 0.25), unverified(model, images, 0.25)
    assert not (lower & ~upper).any(), "what is fooled cannot be verified"
    assert torch.equal(lower, upper), "both are exact on a linear model"
    assert 0 < lower.sum() < 60
