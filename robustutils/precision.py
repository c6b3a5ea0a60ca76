"""In which precision do the passes of a network run?

bfloat16 makes a pass two to four times as fast on a processor that multiplies in it. On one that does not, each product
is emulated, and the pass takes more than ten times as long as in float32: there passes stay in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 itself: GPUs from compute capability 8.0, CPUs with AVX-512."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Passes in ``dtype`` within it; in float32 where that is bfloat16 and the device would have to emulate it."""
    enabled = dtype != torch.float32 and (dtype != torch.bfloat16 or native_bfloat16(device))
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


@contextmanager
def exact(x: Tensor) -> Iterator[None]:
    """No gradients, and full precision on ``x``'s device even where the caller runs under autocast."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        yield
