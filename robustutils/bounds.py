"""Verified bounds: what a network's outputs can be, whatever an adversary does inside a box of pixels.

A model is a Sequential of Conv2d, Linear, ReLU, Flatten and Dropout layers, bounded as in evaluation mode. A box is
given by its elementwise ends ``low`` and ``high``, [N, C, H, W]. All bounds are differentiable in the weights.
"""

from collections.abc import Callable

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
    check_box(low, high)
    for layer in layers(model):
        low, high = _interval(layer, low, high)
    return low, high


def interval_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by intervals, [N, K]; zero at j = y."""
    *body, last = layers(model)
    rows, bias = margin_rows(last, y)
    return _least(rows, *interval_bounds(nn.Sequential(*body), low, high)) + bias


def verified(
    model: nn.Module, low: Tensor, high: Tensor, y: Tensor, margins: Margins = interval_margins
) -> Tensor:
    """Whether the class ``y`` wins for every input of the box, by some bounds: bool [N] on the device of y."""
    device = device_of(model)
    with torch.no_grad():
        least = margins(model, low.to(device), high.to(device), y.to(device)).to(y.device)
    return (least.scatter(1, y[:, None], torch.inf) > 0).all(1)


def crown_ibp_margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of z_y - z_j over the box by CROWN-IBP (Zhang et al. 2020), [N, K]; zero at j = y.

    The inputs of each ReLU lie in their intervals [l, u]; where l < 0 < u it is at most u (z - l) / (u - l) and at least
    z or, if u <= -l, 0. The bound is the minimum of the linear function of the image that the margin becomes with the
    one line or the other, by the sign of its weight.

    Raises:
        ValueError: see :func:`interval_bounds`; also where the model does not end in a Linear layer.
    """
    check_box(low, high)
    *body, last = layers(model)
    boxes = [(low, high)]
    for layer in body:
        boxes.append(_interval(layer, *boxes[-1]))
    rows, least = margin_rows(last, y)
    for layer, (lower, upper) in zip(reversed(body), reversed(boxes[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            lower, upper = lower.contiguous(), upper.contiguous()  # the layout of the rows
            below, above = (-lower).relu(), upper.relu()
            slope = above / (above + below).clamp_min(1e-12)  # 1 where always on, 0 where always off
            floor = (upper > -lower).to(rows.dtype)
            negative = (-rows).relu()  # where() would take three times as long
            least = least - times(negative, slope * below)
            rows = torch.addcmul(rows * floor[:, None], negative, (floor - slope)[:, None])
        else:
            rows, shift = back(layer, rows, lower.shape[1:])
            least = least + shift
    return least + _least(rows, low, high)


def check_box(low: Tensor, high: Tensor) -> None:
    """Raises: ValueError where an end of the box is empty."""
    if low.shape != high.shape or (low > high).any():
        raise ValueError(
            f"low {tuple(low.shape)} must be at most high {tuple(high.shape)}, element by element"
        )


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers in order; Dropout is the identity in evaluation mode."""
    if isinstance(model, nn.Sequential):
        return [layer for part in model for layer in layers(part)]
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
    return times(rows, (low + high) / 2) - times(rows.abs(), (high - low) / 2)


def margin_rows(last: nn.Module, y: Tensor) -> tuple[Tensor, Tensor | float]:
    """The margins z_y - z_j as functions of the last layer's inputs: rows [N, K, D] and constants [N, K]."""
    if not isinstance(last, nn.Linear):
        raise ValueError(f"margins need a Linear layer at the end, got {last}")
    bias = 0.0 if last.bias is None else last.bias[y][:, None] - last.bias
    return last.weight[y][:, None] - last.weight, bias


def back(layer: nn.Module, rows: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor | float]:
    """Rows [N, M, ...] on a layer's outputs as rows on its inputs, of ``shape``, and the constants [N, M] of its bias."""
    if isinstance(layer, nn.Flatten):
        return rows.view(*rows.shape[:2], *shape), 0.0
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    shift: Tensor | float = 0.0
    if layer.bias is not None:
        places = rows[0, 0].numel() // len(layer.bias)
        shift = rows.flatten(2) @ layer.bias.repeat_interleave(places)
    return rows @ layer.weight if isinstance(layer, nn.Linear) else _transposed(layer, rows, shape), shift


def times(rows: Tensor, vector: Tensor) -> Tensor:
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
