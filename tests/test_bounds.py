"""Interval bounds enclose what the network does, and are exact where they can be."""

import pytest
import torch
from torch import nn

from robustutils.bounds import interval_bounds, verified


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(2, 4, 3, stride=2, padding=1)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(36, 3),
    ).eval()


def test_every_point_of_the_box_lies_within_the_bounds():
    model, x = net(), torch.rand(5, 2, 6, 6)
    low, high = (x - 0.1).clamp(0, 1), (x + 0.2).clamp(0, 1)
    lower, upper = interval_bounds(model, low, high)
    for _ in range(200):
        logits = model(low + torch.rand_like(low).round() * (high - low))
        assert (lower <= logits + 1e-5).all()
        assert (logits <= upper + 1e-5).all()


def test_a_box_of_one_point_has_the_network_s_output_as_bounds():
    model, x = net(), torch.rand(5, 2, 6, 6)
    for end in interval_bounds(model, x, x):
        torch.testing.assert_close(end, model(x), rtol=1e-4, atol=1e-5)


def test_bounds_of_one_layer_are_attained():
    layer, x = nn.Linear(4, 2), torch.rand(3, 4)
    lower, upper = interval_bounds(layer, x - 0.1, x + 0.1)
    reach = 0.1 * layer.weight.abs().sum(1)
    torch.testing.assert_close(upper, layer(x) + reach)
    torch.testing.assert_close(lower, layer(x) - reach)


def test_verified_means_that_no_input_of_the_box_changes_the_class():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [-1.0]])
    low, high = torch.tensor([[0.1], [-0.1], [-0.3]]), torch.tensor([[0.3], [0.3], [-0.1]])
    assert verified(layer, low, high, torch.zeros(3, dtype=torch.int64)).tolist() == [True, False, False]
    assert verified(layer, low, high, torch.ones(3, dtype=torch.int64)).tolist() == [False, False, True]


def test_what_has_no_bound_is_told_clearly():
    x = torch.rand(1, 3)
    with pytest.raises(ValueError, match=r"no interval bound for the layer Tanh\(\)"):
        interval_bounds(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), x, x)
    with pytest.raises(ValueError, match="must be at most high"):
        interval_bounds(nn.Linear(3, 2), x + 1, x)
