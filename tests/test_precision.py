"""Passes run in bfloat16 where the device multiplies in it, and in float32 everywhere else."""

import pytest
import torch

from robustutils import precision

CPU = torch.device("cpu")
WEIGHT = torch.ones(2, 2)


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a matrix product of float32 numbers within ``autocast``."""
    with precision.autocast(CPU, dtype):
        return (WEIGHT @ WEIGHT).dtype


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_has_bfloat16_from_capability_8(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.fast_dtype(torch.device("cuda")) == expected


def test_a_cpu_has_bfloat16_where_its_kernels_say_so(monkeypatch):
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert precision.fast_dtype(CPU) == (torch.bfloat16 if native else torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.fast_dtype(CPU) == torch.float32, "there are no kernels to ask"


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_bfloat16_is_not_emulated(monkeypatch, fast):
    monkeypatch.setattr(precision, "fast_dtype", lambda device: fast)
    assert product_dtype(torch.bfloat16) == precision.effective(CPU, torch.bfloat16) == fast
    assert product_dtype(torch.float32) == precision.effective(CPU, torch.float32) == torch.float32


def test_the_effective_precision_of_a_gpu_is_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.effective(torch.device("cuda"), torch.bfloat16) == torch.bfloat16
    assert precision.effective(CPU, torch.bfloat16) == torch.float32


def test_the_inner_precision_counts():
    """An attack that asks for float32 gets it within a training step in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype(torch.float32) == torch.float32
        with precision.exact(WEIGHT):
            assert (WEIGHT @ WEIGHT).dtype == torch.float32
            assert not torch.is_grad_enabled()
        assert (WEIGHT @ WEIGHT).dtype == torch.bfloat16
