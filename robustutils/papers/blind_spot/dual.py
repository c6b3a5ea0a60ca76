"""The dual bound of Wong & Kolter (2018), which BS attacks beside its intervals (Table 4).

It is one of the verified bounds of :mod:`robustutils.bounds`, and like them differentiable in the weights.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.bounds import Bounds, back, check_box, interval_bounds, layers, margin_rows, times


def dual_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by the dual network of Wong & Kolter (2018), [N, K]; zero at j = y.

    A ReLU whose input lies in [l, u] with l < 0 < u is replaced by the parallel lines d z and d (z - l), d = u / (u - l).
    Bounds of each layer are the exact minima and maxima of the linear functions of the image that this makes: those of
    the first layer are its intervals, those behind it mostly much tighter ones (BS, Table 4). They can be looser, too:
    intervals know that a ReLU's output is not negative, the lower line does not.

    Raises:
        ValueError: see :func:`robustutils.bounds.interval_bounds`; also where the model does not end in a Linear layer.
    """
    check_box(low, high)
    *body, last = layers(model)
    for layer in body:
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is None:
            raise ValueError(f"the dual bound needs a bias, there is none in {layer}")
    rows, bias = margin_rows(last, y)
    relaxed: list[Bounds] = []  # slope d and offset -d l of the upper line, for each ReLU so far
    for position, layer in enumerate(body):
        if isinstance(layer, nn.ReLU):
            lower, upper = _pre_activations(body[:position], relaxed, low, high)
            unstable = (lower < 0) & (upper > 0)
            slope = torch.where(
                unstable, upper / (upper - lower).clamp_min(1e-12), (lower >= 0).to(upper.dtype)
            )
            relaxed.append((slope, torch.where(unstable, -slope * lower, 0.0)))
    return _backward(body, relaxed, low, high, rows, bias)[0]


def _pre_activations(
    body: Sequence[nn.Module], relaxed: Sequence[Bounds], low: Tensor, high: Tensor
) -> Bounds:
    """Bounds of the output of ``body``, which ends in an affine layer, for every unit."""
    if not relaxed:
        return interval_bounds(nn.Sequential(*body), low, high)
    if len(relaxed) == 1 and len(body) == 3:
        first, _, second = body
        if _square(first) and _square(second):
            return _second_convolution(first, second, relaxed[0], low, high)
    *before, layer = body
    if isinstance(layer, nn.Linear):
        return _backward(before, relaxed, low, high, layer.weight.expand(len(low), -1, -1), layer.bias)
    with torch.no_grad():
        shape = nn.Sequential(*body)(low[:1]).shape[1:]
    units = (
        torch.eye(shape.numel(), dtype=low.dtype, device=low.device)
        .view(-1, *shape)
        .expand(len(low), -1, *shape)
    )
    lower, upper = _backward(body, relaxed, low, high, units, 0.0)
    return lower.view(-1, *shape), upper.view(-1, *shape)


def _backward(
    body: Sequence[nn.Module],
    relaxed: Sequence[Bounds],
    low: Tensor,
    high: Tensor,
    rows: Tensor,
    constant: Tensor | float,
) -> Bounds:
    """Minima and maxima of rows * body(x) + constant over the box: [N, M] each, for ``rows`` [N, M, ...].

    The rows are carried back through the layers; a ReLU scales them by d and, where they are negative, adds the offset
    of the upper line to the minimum (where positive, to the maximum). Both lines have the same slope, so that one pass
    serves both ends.
    """
    shapes = [low.shape[1:]]
    with torch.no_grad():
        probe = low[:1]
        for layer in body:
            probe = layer(probe)
            shapes.append(probe.shape[1:])
    below = above = rows.new_zeros(rows.shape[:2]) + constant
    left = list(relaxed)
    for layer, shape in zip(reversed(body), reversed(shapes[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            slope, offset = left.pop()
            negative = times(rows.clamp_max(0), offset)
            below, above = below + negative, above + times(rows, offset) - negative
            rows = rows * slope[:, None]
        else:
            rows, shift = back(layer, rows, shape)
            below, above = below + shift, above + shift
    middle, spread = times(rows, (low + high) / 2), times(rows.abs(), (high - low) / 2)
    return below + middle - spread, above + middle + spread


def _square(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether :func:`_second_convolution` knows the layer: the same in both directions, not dilated, one group."""
    if not isinstance(layer, nn.Conv2d):
        return False
    sides = (layer.kernel_size, layer.stride, layer.padding)
    return all(side[0] == side[1] for side in sides) and (layer.dilation, layer.groups) == ((1, 1), 1)


def _second_convolution(
    first: nn.Conv2d, second: nn.Conv2d, relaxed: Bounds, low: Tensor, high: Tensor
) -> Bounds:
    """:func:`_backward` for every unit of the second convolution, on its receptive field alone.

    A unit sees a patch of hidden units, these a patch of pixels, and the way from one to the other is the same matrix at
    every place: a product of matrices in place of as many transposed convolutions of whole images as there are units.
    """
    assert first.bias is not None
    assert second.bias is not None
    size, stride, pad = second.kernel_size[0], second.stride[0], int(second.padding[0])
    own, step, edge = first.kernel_size[0], first.stride[0], int(first.padding[0])
    field = own + step * (size - 1)  # pixels on a side that a unit sees

    def patches(images: Tensor, kernel: int, padding: int, step: int) -> Tensor:
        return F.unfold(images, kernel, padding=padding, stride=step).transpose(1, 2)

    slope, offset = (patches(part, size, pad, stride) for part in relaxed)  # [N, places, hidden]
    weights = second.weight.flatten(1)  # [units, hidden]
    hidden = torch.eye(weights.shape[1], dtype=low.dtype, device=low.device).view(
        -1, first.out_channels, size, size
    )
    back = F.conv_transpose2d(hidden, first.weight, stride=step).flatten(1)  # [hidden, pixels]
    rows = slope[:, :, None] * weights  # [N, places, units, hidden]
    bias = rows @ first.bias.repeat_interleave(size * size) + second.bias
    below = bias + offset @ weights.clamp_max(0).T
    above = bias + offset @ weights.clamp_min(0).T
    rows = rows @ back
    margin = pad * step + edge
    centre, radius = (
        patches(part, field, margin, step * stride)[..., None]
        for part in ((low + high) / 2, (high - low) / 2)
    )
    middle, spread = (rows @ centre).squeeze(-1), (rows.abs() @ radius).squeeze(-1)
    with torch.no_grad():
        shape = second(first(low[:1])).shape[2:]
    return tuple(
        bound.transpose(1, 2).reshape(len(low), -1, *shape)
        for bound in (below + middle - spread, above + middle + spread)
    )  # type: ignore[return-value]
