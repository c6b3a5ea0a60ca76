"""Passes that cost less: bfloat16 where it is fast, memory that stays, and the input gradient against autograd's."""

import platform
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch import nn

from robustutils import speed
from robustutils.speed import FastInputGradients, _FirstLayer

CPU = torch.device("cpu")
WEIGHT = torch.ones(2, 2)


def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a matrix product of float32 numbers within ``autocast``."""
    with speed.autocast(CPU, dtype):
        return (WEIGHT @ WEIGHT).dtype


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_a_gpu_has_bfloat16_from_capability_8(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert speed.fast_dtype(torch.device("cuda")) == expected


def test_a_cpu_has_bfloat16_where_its_kernels_say_so(monkeypatch):
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert speed.fast_dtype(CPU) == (torch.bfloat16 if native else torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert speed.fast_dtype(CPU) == torch.float32, "there are no kernels to ask"


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_bfloat16_is_not_emulated(monkeypatch, fast):
    monkeypatch.setattr(speed, "fast_dtype", lambda device: fast)
    assert product_dtype(torch.bfloat16) == speed.effective(CPU, torch.bfloat16) == fast
    assert product_dtype(torch.float32) == speed.effective(CPU, torch.float32) == torch.float32


def test_the_effective_precision_of_a_gpu_is_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert speed.effective(torch.device("cuda"), torch.bfloat16) == torch.bfloat16
    assert speed.effective(CPU, torch.bfloat16) == torch.float32


def test_the_inner_precision_counts():
    """An attack that asks for float32 gets it within a training step in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype(torch.float32) == torch.float32
        with speed.exact(WEIGHT):
            assert (WEIGHT @ WEIGHT).dtype == torch.float32
            assert not torch.is_grad_enabled()
        assert (WEIGHT @ WEIGHT).dtype == torch.bfloat16


MEASURE = """
import resource, torch
from robustutils import speed

def faults():
    for _ in range(20):  # until it has what it needs
        torch.ones(16 * 2**20)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
assert speed.keep_freed_blocks()
kept = faults()
assert 10 * kept < returned, (kept, returned)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_are_fetched_once():
    """Ten large tensors that come and go fetch hardly a page anew."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kernels_lie_in_channels_last_within_and_as_before_afterwards():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    before = [(kernel.data_ptr(), kernel.stride()) for kernel in model.parameters()]
    outputs = []
    x = torch.rand(2, 1, 9, 9)
    with speed.prepared(model):
        assert model[2].weight.stride() == (36, 1, 12, 4)
        outputs.append(model(x))
    assert [(kernel.data_ptr(), kernel.stride()) for kernel in model.parameters()] == before
    torch.testing.assert_close(outputs[0], model(x))


def test_kernels_come_back_after_an_exception():
    kernel = nn.Conv2d(4, 2, 3)
    with pytest.raises(RuntimeError, match="stop"), speed.prepared(kernel):
        raise RuntimeError("stop")
    assert kernel.weight.is_contiguous()


def test_what_lies_in_channels_last_is_not_touched():
    model = nn.Conv2d(4, 2, 3).to(memory_format=torch.channels_last)
    place = model.weight.data_ptr()
    with speed.prepared(model):
        assert model.weight.data_ptr() == place


def input_gradient(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf).square().sum(), leaf)
    return gradient


def used(monkeypatch) -> list[tuple[int, ...]]:
    """The input shapes of the convolutions that take the fast way from now on."""
    shapes, apply = [], _FirstLayer.apply
    monkeypatch.setattr(
        _FirstLayer, "apply", lambda x, *rest: shapes.append(tuple(x.shape)) or apply(x, *rest)
    )
    return shapes


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "size"),
    [
        *product((1, 2, 3, 4), ((5, 5), (3, 3), (1, 1)), ((0, 0),), ((28, 28), (9, 11))),
        (1, (5, 5), (2, 2), (28, 28)),
        (1, (8, 3), (3, 1), (10, 13)),
        (3, (3, 3), (1, 1), (32, 32)),
        (1, (4, 4), (3, 0), (7, 6)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_and_outputs_are_those_of_autograd(channels, kernel, padding, size, bias, monkeypatch):
    shapes = used(monkeypatch)
    torch.manual_seed(0)
    model = nn.Conv2d(channels, 6, kernel, padding=padding, bias=bias).double()
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    expected = input_gradient(model, x)
    with FastInputGradients():
        found = input_gradient(model, x)
        assert torch.equal(model(x), nn.functional.conv2d(x, model.weight, model.bias, padding=padding))
    assert shapes == [tuple(x.shape)], "the convolution did not take the fast way"
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (nn.Conv2d(8, 4, 3), 8),
        (nn.Conv2d(1, 4, 3, stride=2), 1),
        (nn.Conv2d(1, 4, 3, dilation=2), 1),
        (nn.Conv2d(2, 4, 3, groups=2), 2),
        (nn.Conv2d(1, 4, 3, padding=3), 1),
        (nn.Conv2d(1, 4, 3, padding="same"), 1),
        (nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), 1),
    ],
    ids=["channels", "stride", "dilation", "groups", "wide padding", "same", "reflect"],
)
def test_other_convolutions_are_left_alone_or_right(layer, channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 12, 12)
    expected = input_gradient(layer, x)
    with FastInputGradients():
        torch.testing.assert_close(input_gradient(layer, x), expected)


def test_bfloat16_is_as_close_to_float32_as_autograd_is():
    torch.manual_seed(0)
    model, x = nn.Conv2d(1, 32, 5, padding=2), torch.rand(8, 1, 28, 28)
    exact = input_gradient(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        usual = input_gradient(model, x)
        with FastInputGradients():
            fast = input_gradient(model, x)
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() <= 1.2 * (usual - exact).norm() + 1e-6


def test_outside_of_it_weights_have_their_gradients():
    model = nn.Conv2d(1, 2, 3)
    with FastInputGradients():
        input_gradient(model, torch.rand(1, 1, 8, 8))
    model(torch.rand(1, 1, 8, 8, requires_grad=True)).sum().backward()
    assert model.weight.grad is not None
    assert model.bias.grad is not None
