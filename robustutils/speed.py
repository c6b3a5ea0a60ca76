"""Passes that cost less: the precision they run in, memory that is kept, and the gradient of an image on a CPU.

bfloat16 makes a pass two to four times as fast on a processor that multiplies in it. On one that does not, each product
is emulated, and the pass takes more than ten times as long as in float32: there passes stay in float32.

The input gradient of a first layer is a convolution with as few output channels as the image has. CPU kernels
compute 16 output channels at a time, so for a grey image fifteen sixteenths of the work are thrown away. Computed for
blocks of 4 x 4 neighbouring pixels, which become 16 output channels, the same sum takes a quarter of the time.
"""

import ctypes
import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

log = logging.getLogger(__name__)

_without: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def does_without(model: nn.Module, what: str, because: BaseException) -> None:
    """Say once in the log what fails with a model, which runs without it."""
    if what not in _without.setdefault(model, set()):
        _without[model].add(what)
        log.warning("%s runs without %s: %s", type(model).__name__, what, said(because))


def said(error: BaseException) -> str:
    """An exception of a stranger's code in one line: its type, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def own_draws(device: torch.device) -> AbstractContextManager[None]:
    """Within it torch's random numbers can be drawn without a trace on the process or on ``device``."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies in it (GPUs from capability 8.0, CPUs with AVX-512), else float32."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes: the device of its first parameter or buffer with contents, the CPU where it has none."""
    for part in (*model.parameters(), *model.buffers()):
        if not part.is_meta:
            return part.device
    return torch.device("cpu")


def effective(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The precision that passes in ``dtype`` really run in: float32 where the device would have to emulate bfloat16."""
    return fast_dtype(device) if dtype == torch.bfloat16 else dtype


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Passes in ``dtype`` within it; in float32 where that is bfloat16 and the device would have to emulate it."""
    return torch.autocast(device.type, dtype=dtype, enabled=effective(device, dtype) != torch.float32)


ONCE_FLOAT32 = {"unnamed": torch.float32}
"""Metadata of the field of an attack that says in which precision its passes run.

The default is bfloat16, where the device multiplies in it. Names leave float32 out, which was the default once.
"""


@contextmanager
def exact(x: Tensor) -> Iterator[None]:
    """No gradients, and full precision on ``x``'s device even where the caller runs under autocast."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt(3)


@functools.cache
def keep_freed_blocks() -> bool:
    """Let the process keep the memory that it frees; returns whether the C library can (glibc on Linux).

    By default glibc hands blocks of more than 32 MiB back to the system as soon as they are freed. A network's
    activations are such blocks, and every attack step would fetch and clear them again: up to half of its time.
    The process then stays as large as it ever was.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_MMAP_MAX, 0) == 1 and mallopt(_TRIM_THRESHOLD, -1) == 1


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Within it passes of the model cost less: kernels of convolutions lie in channels_last, and freed memory is kept.

    Afterwards the kernels lie as before (a model whose kernels lie so already is not touched); memory goes on being kept,
    see :func:`keep_freed_blocks`. A model that fails in this layout, as one with a ``view`` behind a pooling, or that takes
    no hooks keeps its own.
    """
    keep_freed_blocks()
    kernels = [
        (kernel, kernel.data)
        for kernel in model.parameters()
        if kernel.ndim == 4 and not kernel.is_inference() and kernel.stride() != _channels_last(kernel)
    ]

    def lay_back() -> None:
        for kernel, before in kernels:
            kernel.data = before

    def try_layout(module: nn.Module, given: tuple[Any, ...]) -> None:
        if module in _layouts:
            return
        try:
            with exact(given[0]), own_draws(given[0].device):
                module.forward(*(part[:2].clone() for part in given))
            _layouts[module] = True
        except Exception:
            _layouts[module] = False
            lay_back()

    if not kernels or isinstance(model, torch.jit.ScriptModule) or not _layouts.get(model, True):
        yield
        return
    for kernel, _ in kernels:
        kernel.data = kernel.data.clone(memory_format=torch.channels_last)
    hook = model.register_forward_pre_hook(try_layout)
    try:
        yield
    finally:
        hook.remove()
        lay_back()


_layouts: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Of each model whose kernels were laid anew, whether its passes work in that layout."""


def _channels_last(kernel: Tensor) -> tuple[int, ...]:
    """The strides of a kernel [K, C, R, S] in channels_last."""
    _, channels, rows, columns = kernel.shape
    return channels * rows * columns, 1, columns * channels, channels


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
        """Of the gradient of the output, [N, K, H', W'], that of the image, [N, C, H, W] with C <= 4.

        The kernel of one pixel, shifted to each place of the block, makes one larger kernel that moves on by whole blocks;
        its outputs are then interleaved.
        """
        (weight,), size, padding = ctx.saved_tensors, ctx.size, ctx.padding
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
        return F.pixel_shuffle(blocks, block)[..., : size[0], : size[1]], None, None, None
