"""In which precision do the passes of a network run?

bfloat16 makes a pass two to four times as fast on a processor that multiplies in it. On one that does not, each product
is emulated, and the pass takes more than ten times as long as in float32: there passes stay in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies in it (GPUs from capability 8.0, CPUs with AVX-512), else float32."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def effective(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The precision that passes in ``dtype`` really run in: float32 where the device would have to emulate bfloat16."""
    return fast_dtype(device) if dtype == torch.bfloat16 else dtype


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Passes in ``dtype`` within it; in float32 where that is bfloat16 and the device would have to emulate it."""
    return torch.autocast(device.type, dtype=dtype, enabled=effective(device, dtype) != torch.float32)


@contextmanager
def exact(x: Tensor) -> Iterator[None]:
    """No gradients, and full precision on ``x``'s device even where the caller runs under autocast."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield
