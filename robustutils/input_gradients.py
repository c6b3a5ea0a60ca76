"""The gradient with respect to an image, without the convolution that a CPU computes slowest.

The input gradient of a first layer is a convolution with as few output channels as the image has. CPU kernels
compute 16 output channels at a time, so for a grey image fifteen sixteenths of the work are thrown away. Computed for
blocks of 4 x 4 neighbouring pixels, which become 16 output channels, the same sum takes a quarter of the time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

BLOCK = {1: 4, 2: 2, 3: 2, 4: 2}
"""Side of the pixel block for each number of image channels; with more channels the usual kernel is as fast."""


class FastInputGradients(TorchFunctionMode):
    """Within it, first-layer convolutions on the CPU give input gradients faster, and no gradients of weights.

    It changes convolutions with stride 1, without dilation and groups, of images with at most 4 channels; outputs
    are the same, gradients equal up to rounding.

    >>> with FastInputGradients():  # doctest: +SKIP
    ...     (gradient,) = torch.autograd.grad(loss(model(x)), x)
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.conv2d and not kwargs and len(args) == 7:
            x, weight, bias, stride, padding, dilation, groups = args
            if (
                x.device.type == "cpu"
                and x.requires_grad
                and x.ndim == 4
                and weight.shape[1] in BLOCK
                and (stride, dilation, groups) == ((1, 1), (1, 1), 1)
                and isinstance(padding, tuple)
                and all(pad < size for pad, size in zip(padding, weight.shape[2:], strict=True))
            ):
                return _FirstLayer.apply(x, weight, bias, padding)
        return function(*args, **(kwargs or {}))


class _FirstLayer(torch.autograd.Function):
    """A convolution whose backward pass computes the input gradient alone, block by block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.padding = x.shape[2:], padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return blockwise_input_gradient(gradient, weight, ctx.padding, ctx.size), None, None, None


def blockwise_input_gradient(
    gradient: Tensor, weight: Tensor, padding: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Input gradient [N, C, H, W] of a convolution with stride 1, for images of ``size`` (H, W) with C <= 4.

    ``gradient`` [N, K, H', W'] is that of the output, ``weight`` is [K, C, R, S]. The kernel of one pixel, shifted to
    each place of the block, makes one larger kernel that moves on by whole blocks; its outputs are then interleaved.
    """
    outputs, channels, rows, columns = weight.shape
    block = BLOCK[channels]
    kernel = weight.new_zeros(channels, block, block, outputs, rows + block - 1, columns + block - 1)
    flipped = weight.flip(2, 3).transpose(0, 1)
    for i in range(block):
        for j in range(block):
            kernel[:, i, j, :, i : i + rows, j : j + columns] = flipped
    kernel = kernel.flatten(0, 2).to(gradient.dtype).contiguous(memory_format=torch.channels_last)
    missing = [-length % block for length in size]
    blocks = F.conv2d(
        F.pad(gradient, (0, missing[1], 0, missing[0])),
        kernel,
        stride=block,
        padding=(rows - 1 - padding[0], columns - 1 - padding[1]),
    )
    return F.pixel_shuffle(blocks, block)[..., : size[0], : size[1]]
