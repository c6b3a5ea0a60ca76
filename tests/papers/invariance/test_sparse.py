"""The l0-sparse front end: its transform, its projection, and the images that it gets back."""

import pytest
import scipy.fft
import torch
from torch import Tensor

from robustutils.papers.invariance.sparse import SparseFrontEnd, cosine_basis

RANDOM = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def sparse_images(n: int, k: int) -> Tensor:
    """Images of exactly ``k`` frequencies, low ones as in a picture."""
    generator = torch.Generator().manual_seed(1)
    frequencies = torch.zeros(n, 1, 28, 28)
    for image in frequencies:
        places = torch.randperm(100, generator=generator)[:k]
        image[0, places // 10, places % 10] = torch.randn(k, generator=generator).sign() * (
            1 + torch.rand(k, generator=generator)
        )
    basis = cosine_basis(28)
    return basis.T @ frequencies @ basis


@pytest.mark.parametrize("n", [1, 2, 8, 28])
def test_the_basis_is_orthonormal(n):
    basis = cosine_basis(n)
    torch.testing.assert_close(basis @ basis.T, torch.eye(n), rtol=0, atol=1e-6)


def test_frequencies_are_those_of_scipy():
    basis = cosine_basis(28)
    ours = (basis @ RANDOM @ basis.T).numpy()
    assert ours == pytest.approx(scipy.fft.dctn(RANDOM.numpy(), axes=(2, 3), norm="ortho"), abs=1e-5)


@pytest.mark.parametrize("k", [1, 7, 40, 783])
def test_the_projection_keeps_the_k_largest_frequencies(k):
    front = SparseFrontEnd(k=k, t=0)
    before = scipy.fft.dctn(RANDOM.numpy(), axes=(2, 3), norm="ortho")
    after = scipy.fft.dctn(front.projected(RANDOM).numpy(), axes=(2, 3), norm="ortho")
    for x, found in zip(before.reshape(5, -1), after.reshape(5, -1), strict=True):
        kept = abs(x).argsort()[-k:]
        assert found[kept] == pytest.approx(x[kept], abs=1e-5)
        found[kept] = 0
        assert found == pytest.approx(0, abs=1e-5)


def test_the_projection_changes_nothing_twice_and_nothing_with_all_frequencies():
    front = SparseFrontEnd(k=40, t=25)
    once = front.projected(RANDOM)
    torch.testing.assert_close(front.projected(once), once, rtol=0, atol=1e-5)
    everything = SparseFrontEnd(k=784, t=25).eval()
    torch.testing.assert_close(everything(RANDOM), RANDOM, rtol=0, atol=1e-5)


def test_training_only_projects():
    front = SparseFrontEnd(k=20, t=25)
    torch.testing.assert_close(front.train()(RANDOM), front.projected(RANDOM))
    assert not torch.allclose(front.eval()(RANDOM), front.projected(RANDOM), atol=1e-3)
    front.iterations = 1
    torch.testing.assert_close(front(RANDOM), front.projected(RANDOM))


def test_a_sparse_image_comes_back_from_t_changed_pixels():
    images = sparse_images(6, 10)
    generator = torch.Generator().manual_seed(2)
    changed = images.clone()
    for image in changed.flatten(1):
        places = torch.randperm(784, generator=generator)[:15]
        image[places] = 2 * torch.randn(15, generator=generator).sign()
    front = SparseFrontEnd(k=10, t=15, iterations=30).eval()
    assert (front.projected(changed) - images).abs().amax((1, 2, 3)).min() > 0.02, "nothing was corrupted"
    torch.testing.assert_close(front(changed), images, rtol=0, atol=1e-3)
    torch.testing.assert_close(front(images), images, rtol=0, atol=1e-4)


def test_images_and_channels_do_not_touch_each_other():
    front = SparseFrontEnd(k=15, t=20).eval()
    together = front(RANDOM)
    torch.testing.assert_close(torch.cat([front(x) for x in RANDOM.split(1)]), together, rtol=0, atol=1e-5)
    torch.testing.assert_close(front(RANDOM.transpose(0, 1)).transpose(0, 1), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_map_while_its_choices_hold(training):
    front = SparseFrontEnd(k=15, t=20, iterations=3).train(training).double()
    x = RANDOM.double().requires_grad_(True)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((front(x) * weights).sum(), x)
    step = 1e-6 * direction
    with torch.no_grad():
        slope = ((front(x + step) - front(x - step)) * weights).flatten(1).sum(1) / 2e-6
    torch.testing.assert_close(slope, (gradient * direction).flatten(1).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("bfloat16")
def test_mixed_precision_does_not_reach_the_frequencies():
    front = SparseFrontEnd(k=15, t=20).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front(RANDOM), SparseFrontEnd(k=15, t=20).eval()(RANDOM))
    assert front(RANDOM).dtype == torch.float32


def test_the_basis_is_no_weight():
    assert not SparseFrontEnd(k=1, t=0).state_dict()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 0, "t": 1}, "k=0"),
        ({"k": 785, "t": 1}, "k=785"),
        ({"k": 1, "t": -1}, "t=-1"),
        ({"k": 1, "t": 1, "iterations": 0}, "iterations=0"),
    ],
)
def test_settings_out_of_range_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        SparseFrontEnd(**options)
