"""The blockwise input gradient against autograd's own."""

from itertools import product

import pytest
import torch
from torch import nn

from robustutils.input_gradients import FastInputGradients, _FirstLayer


def input_gradient(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf).square().sum(), leaf)
    return gradient


def used(monkeypatch) -> list[tuple[int, ...]]:
    """The input shapes of the convolutions that take the fast way from now on."""
    shapes, apply = [], _FirstLayer.apply
    monkeypatch.setattr(
        _FirstLayer, "apply", lambda x, *rest: shapes.append(tuple(x.shape)) or apply(x, *rest)
    )
    return shapes


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "size"),
    [
        *product((1, 2, 3, 4), ((5, 5), (3, 3), (1, 1)), ((0, 0),), ((28, 28), (9, 11))),
        (1, (5, 5), (2, 2), (28, 28)),
        (1, (8, 3), (3, 1), (10, 13)),
        (3, (3, 3), (1, 1), (32, 32)),
        (1, (4, 4), (3, 0), (7, 6)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_and_outputs_are_those_of_autograd(channels, kernel, padding, size, bias, monkeypatch):
    shapes = used(monkeypatch)
    torch.manual_seed(0)
    model = nn.Conv2d(channels, 6, kernel, padding=padding, bias=bias).double()
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    expected = input_gradient(model, x)
    with FastInputGradients():
        found = input_gradient(model, x)
        assert torch.equal(model(x), nn.functional.conv2d(x, model.weight, model.bias, padding=padding))
    assert shapes == [tuple(x.shape)], "the convolution did not take the fast way"
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(8, 4, 3), 8),
        (nn.Conv2d(1, 4, 3, stride=2), 1),
        (nn.Conv2d(1, 4, 3, dilation=2), 1),
        (nn.Conv2d(2, 4, 3, groups=2), 2),
        (nn.Conv2d(1, 4, 3, padding=3), 1),
        (nn.Conv2d(1, 4, 3, padding="same"), 1),
        (nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), 1),
    ],
    ids=["channels", "stride", "dilation", "groups", "wide padding", "same", "reflect"],
)
def test_other_convolutions_are_left_alone_or_right(layer, channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 12, 12)
    expected = input_gradient(layer, x)
    with FastInputGradients():
        torch.testing.assert_close(input_gradient(layer, x), expected)


def test_bfloat16_is_as_close_to_float32_as_autograd_is():
    torch.manual_seed(0)
    model, x = nn.Conv2d(1, 32, 5, padding=2), torch.rand(8, 1, 28, 28)
    exact = input_gradient(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        usual = input_gradient(model, x)
        with FastInputGradients():
            fast = input_gradient(model, x)
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() <= 1.2 * (usual - exact).norm() + 1e-6


def test_outside_of_it_weights_have_their_gradients():
    model = nn.Conv2d(1, 2, 3)
    with FastInputGradients():
        input_gradient(model, torch.rand(1, 1, 8, 8))
    model(torch.rand(1, 1, 8, 8, requires_grad=True)).sum().backward()
    assert model.weight.grad is not None
    assert model.bias.grad is not None
