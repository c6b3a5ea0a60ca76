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


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_has_bfloat16_from_capability_8(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.native_bfloat16(torch.device("cuda")) is native


def test_a_cpu_has_bfloat16_where_its_kernels_say_so(monkeypatch):
    expected = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    assert precision.native_bfloat16(CPU) is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.native_bfloat16(CPU) is False, "there are no kernels to ask"


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_not_emulated(monkeypatch, native, expected):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: native)
    assert product_dtype(torch.bfloat16) == expected
    assert product_dtype(torch.float32) == torch.float32


@pytest.mark.parametrize("native", [True, False])
def test_the_inner_precision_counts(monkeypatch, native):
    """An attack that asks for float32 gets it within a training step in bfloat16."""
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: native)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype(torch.float32) == torch.float32
        with precision.exact(WEIGHT):
            assert (WEIGHT @ WEIGHT).dtype == torch.float32
            assert not torch.is_grad_enabled()
        assert (WEIGHT @ WEIGHT).dtype == torch.bfloat16
