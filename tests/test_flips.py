"""Flips of thresholded pixels against exhaustive search."""

from itertools import product

import pytest
import torch
from torch import nn

from robustutils.attacks import margin
from robustutils.flips import flippable, greedy_flips, most_promising

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
    picked = most_promising(model, x, y, 2, batch_size=2)
    weight = model[1].weight.detach()
    for image, label, pixels in zip(x.flatten(1), y, picked, strict=True):
        rise = (1 - 2 * image) * (weight[1 - label] - weight[label])
        assert pixels.tolist() == rise.topk(2).indices.tolist()
