"""Verified bounds: what a network's outputs can be, whatever an adversary does inside a box of pixels.

A model is a Sequential of Conv2d, Linear, ReLU, Flatten and Dropout layers, bounded as in evaluation mode. A box is
given by its elementwise ends ``low`` and ``high``, [N, C, H, W]. All bounds are differentiable in the weights.
"""

from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.speed import device_of

Bounds = tuple[Tensor, Tensor]
Margins = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def interval_bounds(model: nn.Module, low: Tensor, high: Tensor) -> Bounds:
    """Interval bounds of the output over all inputs between ``low`` and ``high`` (Gowal et al. 2018).

    Returns:
        Elementwise lower and upper bounds of the output.

    Raises:
        ValueError: an end of the box is empty, or a layer has no bound here; the message names it.
    """
    _check_box(low, high)
    for layer in _layers(model):
        low, high = _interval(layer, low, high)
    return low, high


def interval_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by intervals, [N, K]; zero at j = y."""
    *body, last = _layers(model)
    rows, bias = _margin_rows(last, y)
    return _least(rows, *interval_bounds(nn.Sequential(*body), low, high)) + bias


def verified(
    model: nn.Module, low: Tensor, high: Tensor, y: Tensor, margins: Margins = interval_margins
) -> Tensor:
    """Whether the class ``y`` wins for every input of the box, by some bounds: bool [N] on the device of y."""
    device = device_of(model)
    with torch.no_grad():
        least = margins(model, low.to(device), high.to(device), y.to(device)).to(y.device)
    return (least.scatter(1, y[:, None], torch.inf) > 0).all(1)


def dual_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by the dual network of Wong & Kolter (2018), [N, K]; zero at j = y.

    A ReLU whose input lies in [l, u] with l < 0 < u is replaced by the parallel lines d z and d (z - l), d = u / (u - l).
    Bounds of each layer are the exact minima and maxima of the linear functions of the image that this makes: those of
    the first layer are its intervals, those behind it mostly much tighter ones (BS, Table 4). They can be looser, too:
    intervals know that a ReLU's output is not negative, the lower line does not.

    Raises:
        ValueError: see :func:`interval_bounds`; also where the model does not end in a Linear layer.
    """
    _check_box(low, high)
    *body, last = _layers(model)
    for layer in body:
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is None:
            raise ValueError(f"the dual bound needs a bias, there is none in {layer}")
    rows, bias = _margin_rows(last, y)
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


def crown_ibp_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by CROWN-IBP (Zhang et al. 2020), [N, K]; zero at j = y.

    The inputs of each ReLU lie in their intervals [l, u]; where l < 0 < u it is at most u (z - l) / (u - l) and at least
    z or, if u <= -l, 0. The bound is the minimum of the linear function of the image that the margin becomes with the
    one line or the other, by the sign of its weight.

    Raises:
        ValueError: see :func:`interval_bounds`; also where the model does not end in a Linear layer.
    """
    _check_box(low, high)
    *body, last = _layers(model)
    boxes = [(low, high)]
    for layer in body:
        boxes.append(_interval(layer, *boxes[-1]))
    rows, least = _margin_rows(last, y)
    for layer, (lower, upper) in zip(reversed(body), reversed(boxes[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            lower, upper = lower.contiguous(), upper.contiguous()  # the layout of the rows
            below, above = (-lower).relu(), upper.relu()
            slope = above / (above + below).clamp_min(1e-12)  # 1 where always on, 0 where always off
            floor = (upper > -lower).to(rows.dtype)
            negative = (-rows).relu()  # where() would take three times as long
            least = least - _times(negative, slope * below)
            rows = torch.addcmul(rows * floor[:, None], negative, (floor - slope)[:, None])
        else:
            rows, shift = _back(layer, rows, lower.shape[1:])
            least = least + shift
    return least + _least(rows, low, high)


def _check_box(low: Tensor, high: Tensor) -> None:
    if low.shape != high.shape or (low > high).any():
        raise ValueError(
            f"low {tuple(low.shape)} must be at most high {tuple(high.shape)}, element by element"
        )


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers in order; Dropout is the identity in evaluation mode."""
    if isinstance(model, nn.Sequential):
        return [layer for part in model for layer in _layers(part)]
    if isinstance(model, nn.Dropout):
        return []
    if isinstance(model, nn.Conv2d):
        known = model.padding_mode == "zeros" and not isinstance(model.padding, str)
    else:
        known = isinstance(model, (nn.Linear, nn.ReLU, nn.Flatten))
    if not known:
        raise ValueError(f"no verified bound for the layer {model}")
    return [model]


def _interval(layer: nn.Module, low: Tensor, high: Tensor) -> Bounds:
    """The exact range of each output of a layer over a box."""
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        return layer(low), layer(high)
    centre, radius, weight = layer((low + high) / 2), (high - low) / 2, layer.weight.abs()
    if isinstance(layer, nn.Linear):
        spread = F.linear(radius, weight)
    else:
        spread = F.conv2d(radius, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return centre - spread, centre + spread


def _least(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The exact minima of rows * x over a box, [N, M]."""
    return _times(rows, (low + high) / 2) - _times(rows.abs(), (high - low) / 2)


def _margin_rows(last: nn.Module, y: Tensor) -> tuple[Tensor, Tensor | float]:
    """The margins z_y - z_j as functions of the last layer's inputs: rows [N, K, D] and constants [N, K]."""
    if not isinstance(last, nn.Linear):
        raise ValueError(f"margins need a Linear layer at the end, got {last}")
    bias = 0.0 if last.bias is None else last.bias[y][:, None] - last.bias
    return last.weight[y][:, None] - last.weight, bias


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
            negative = _times(rows.clamp_max(0), offset)
            below, above = below + negative, above + _times(rows, offset) - negative
            rows = rows * slope[:, None]
        else:
            rows, shift = _back(layer, rows, shape)
            below, above = below + shift, above + shift
    middle, spread = _times(rows, (low + high) / 2), _times(rows.abs(), (high - low) / 2)
    return below + middle - spread, above + middle + spread


def _back(layer: nn.Module, rows: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor | float]:
    """Rows [N, M, ...] on a layer's outputs as rows on its inputs, of ``shape``, and the constants [N, M] of its bias."""
    if isinstance(layer, nn.Flatten):
        return rows.view(*rows.shape[:2], *shape), 0.0
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    shift: Tensor | float = 0.0
    if layer.bias is not None:
        places = rows[0, 0].numel() // len(layer.bias)
        shift = rows.flatten(2) @ layer.bias.repeat_interleave(places)
    return rows @ layer.weight if isinstance(layer, nn.Linear) else _transposed(layer, rows, shape), shift


def _times(rows: Tensor, vector: Tensor) -> Tensor:
    """The product of rows [N, M, ...] with one vector [N, ...] for each example: [N, M]."""
    return (rows.flatten(2) @ vector.flatten(1)[..., None]).squeeze(-1)


def _transposed(layer: nn.Conv2d, rows: Tensor, shape: torch.Size) -> Tensor:
    """A convolution's transpose, for rows [N, M, K, H', W']: [N, M, *shape].

    The rows keep the layout in which they are flattened without a copy, whatever the layout of the weights.
    """
    flat = nn.grad.conv2d_input(  # type: ignore[attr-defined]
        (rows.shape[0] * rows.shape[1], *shape),
        layer.weight.clone(memory_format=torch.contiguous_format),
        rows.flatten(0, 1),
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    return flat.view(*rows.shape[:2], *shape)


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
