"""Verified bounds: what a network's logits can be, whatever an adversary does inside a box of pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def interval_bounds(model: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Interval bounds of the output over all inputs between ``low`` and ``high`` (Gowal et al. 2018).

    Args:
        model: a Sequential of Conv2d, Linear, ReLU, Flatten and Dropout layers, bounded as in evaluation mode.
        low, high: elementwise ends of the box, [N, C, H, W].

    Returns:
        Elementwise lower and upper bounds of the output.

    Raises:
        ValueError: an end of the box is empty, or a layer has no bound here; the message names it.
    """
    if low.shape != high.shape or (low > high).any():
        raise ValueError(
            f"low {tuple(low.shape)} must be at most high {tuple(high.shape)}, element by element"
        )
    with torch.no_grad():
        for layer in model if isinstance(model, nn.Sequential) else [model]:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                centre, radius = layer((low + high) / 2), (high - low) / 2
                if isinstance(layer, nn.Linear):
                    spread = F.linear(radius, layer.weight.abs())
                else:
                    spread = F.conv2d(
                        radius,
                        layer.weight.abs(),
                        stride=layer.stride,
                        padding=layer.padding,
                        dilation=layer.dilation,
                        groups=layer.groups,
                    )
                low, high = centre - spread, centre + spread
            elif isinstance(layer, nn.ReLU):
                low, high = low.relu(), high.relu()
            elif isinstance(layer, nn.Flatten):
                low, high = layer(low), layer(high)
            elif isinstance(layer, nn.Sequential):
                low, high = interval_bounds(layer, low, high)
            elif not isinstance(layer, nn.Dropout):
                raise ValueError(f"no interval bound for the layer {layer}")
    return low, high


def verified(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Whether the class ``y`` wins for every input of the box, by interval bounds: bool [N]."""
    lower, upper = interval_bounds(model, low, high)
    rivals = upper.scatter(1, y[:, None], -torch.inf).amax(1)
    return lower.gather(1, y[:, None]).squeeze(1) > rivals
