"""Regular Hadamard matrices and aligned directions: lemmas 6 and 7 of EAT, exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robustutils.data import Dataset
from robustutils.papers.ensemble import subspaces
from robustutils.papers.ensemble.subspaces import (
    ORDERS,
    aligned_directions,
    count_adversarial_directions,
    least_cosine,
    regular_hadamard,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("order", ORDERS)
def test_the_matrix_is_hadamard_and_regular(order):
    matrix = regular_hadamard(order)
    assert matrix.shape == (order, order)
    assert matrix.dtype == torch.float64
    assert set(matrix.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.float64))
    root = round(order**0.5)
    assert root**2 == order, "a regular Hadamard matrix has a square order"
    assert matrix.sum(1).tolist() == [root] * order
    # H H^T = k I and H 1 = sqrt(k) 1 give H^T 1 = sqrt(k) 1: the columns are regular, too.
    assert matrix.sum(0).tolist() == [root] * order


@pytest.mark.parametrize("order", [0, 1, 2, 8, 12, 25, 144, -4])
def test_other_orders_are_refused_with_those_there_are(order):
    with pytest.raises(ValueError, match=rf"order={order}.*\(4, 16, 36, 64, 100\)"):
        regular_hadamard(order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [784, 100, 101, 2 * 100 + 99])
def test_directions_are_orthogonal_signs_on_as_many_coordinates_as_order_divides(order, size):
    gradient = torch.randn(size, generator=seeded(1), dtype=torch.float64)
    directions = aligned_directions(gradient, order, seeded())
    used = size // order * order
    assert directions.shape == (order, size)
    assert directions.dtype == torch.float64
    assert set(directions.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(directions @ directions.T, used * torch.eye(order, dtype=torch.float64))
    unused = (directions == 0).all(0)
    assert int(unused.sum()) == size - used
    assert (directions != 0).all(0).sum() == used, "a coordinate is used by every direction or by none"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [784, 500])
def test_every_direction_has_exactly_the_cosine_of_lemma_7(order, size):
    gradient = torch.randn(size, generator=seeded(2))
    directions = aligned_directions(gradient, order, seeded())
    sign = gradient.double().sign() * (directions != 0).any(0)
    cosines = directions @ sign / (directions.norm(dim=1) * sign.norm())
    torch.testing.assert_close(
        cosines, torch.full((order,), order**-0.5, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert least_cosine(directions, sign) == pytest.approx(order**-0.5, abs=1e-14)


@pytest.mark.parametrize("order", [4, 36])
def test_along_every_direction_a_linear_loss_climbs_by_the_same_share(order):
    # Against the gradient itself, not its sign: the inner product is what a step of size eps gains. Gradients of
    # constant magnitude make it exact.
    gradient = 0.01 * torch.randn(360, generator=seeded(3), dtype=torch.float64).sign()
    gains = aligned_directions(gradient, order, seeded()) @ gradient
    torch.testing.assert_close(gains, torch.full_like(gains, 0.01 * 360 * order**-0.5))


def test_images_are_flattened_and_zero_gradients_get_a_random_sign():
    gradient = torch.zeros(1, 28, 28)
    gradient[0, 14:] = 1.0
    directions = aligned_directions(gradient, 16, seeded())
    assert directions.shape == (16, 784)
    assert (directions != 0).all(), "784 is a multiple of 16: zero gradients are used like the others"
    assert torch.equal(directions @ directions.T, 784 * torch.eye(16, dtype=torch.float64))
    followed = directions.mean(0)  # the columns of a regular matrix sum to sqrt(k), so their mean is k^(-1/2)
    assert (followed[392:] == 0.25).all(), "where there is a gradient, directions follow its sign"
    assert set(followed[:392].tolist()) == {-0.25, 0.25}, "where there is none, they follow a coin"
    assert abs(followed[:392].sign().mean().item()) < 0.2
    assert not torch.equal(directions, aligned_directions(gradient, 16, seeded(1)))
    assert torch.equal(directions, aligned_directions(gradient, 16, seeded()))


@pytest.mark.parametrize(("size", "order"), [(3, 4), (99, 100), (0, 4)])
def test_too_few_coordinates_are_refused(size, order):
    with pytest.raises(ValueError, match=f"order={order}.* {size} "):
        aligned_directions(torch.ones(size), order, seeded())


def test_an_order_without_a_matrix_is_refused():
    with pytest.raises(ValueError, match="order=9"):
        aligned_directions(torch.ones(784), 9, seeded())


def test_the_least_cosine_is_the_smallest():
    directions = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    assert least_cosine(directions, torch.tensor([0.0, 3.0])) == pytest.approx(-1)
    assert least_cosine(directions[:2], torch.tensor([3.0, 0.0])) == pytest.approx(0.5**0.5)


@given(
    k=st.integers(1, 40),
    extra=st.integers(0, 60),
    noise=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 2**32),
)
def test_no_orthogonal_set_beats_the_bound_of_lemma_6(k, extra, noise, seed):
    """Orthogonal sets from hopeless (noise alone) to optimal: a rotation that spreads the vector evenly over them."""
    generator = seeded(seed)
    size = k + extra
    vector = torch.randn(size, generator=generator, dtype=torch.float64)
    vector /= vector.norm()
    # Orthonormal columns q_1..q_k; reflect so that (q_1 + ... + q_k) / sqrt(k) becomes the vector: the optimal set.
    basis = torch.linalg.qr(torch.randn(size, k, generator=generator, dtype=torch.float64)).Q
    axis = basis.sum(1) / k**0.5 - vector
    if axis.norm() > 1e-9:
        basis = basis - 2 * torch.outer(axis, axis @ basis) / axis.square().sum()
    moved = basis + noise * torch.randn(size, k, generator=generator, dtype=torch.float64) / size**0.5
    triangular = torch.linalg.qr(moved)
    orthogonal = triangular.Q * triangular.R.diagonal().sign()
    least = least_cosine(orthogonal.T, vector)
    assert least <= k**-0.5 + 1e-12
    if noise == 0:
        assert least == pytest.approx(k**-0.5, abs=1e-9), "the reflected set attains the bound"


class Towards(nn.Module):
    """Two classes by the sum of the pixels: every direction aligned with the gradient leads across."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x):
        score = x.flatten(1).sum(1) - self.threshold
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # 144 grey pixels of 0.5: eps 0.1 along one of k directions adds 144 * 0.1 / sqrt(k)
    [(72 + 14.3, 1), (72 + 7.1, 4), (72 + 3.5, 16), (72 + 2.3, 36), (72.0 + 20, 0)],
)
def test_directions_are_counted_where_they_all_lead_across(threshold, expected):
    images, labels = torch.full((2, 1, 12, 12), 0.5), torch.zeros(2, dtype=torch.int64)
    points = Dataset("grey", "test", images, labels, ("dark", "light"), "")
    counts = count_adversarial_directions(Towards(threshold), points, 0.1, orders=(4, 16, 36))
    assert counts.tolist() == [expected, expected]


@pytest.mark.parametrize("order", [4, 16])
def test_no_orthonormal_set_beats_the_bound_and_a_set_that_is_none_does(order):
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(64, generator=generator, dtype=torch.float64).sign()
    directions = subspaces.aligned_directions(vector, order, generator)
    assert subspaces.violations(vector, directions, generator, sets=20) == 0


def test_a_violation_of_the_bound_would_be_counted(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    vector = torch.ones(16, dtype=torch.float64)
    directions = subspaces.aligned_directions(vector, 4, generator)

    class Same:
        Q = (torch.ones(16, 4, dtype=torch.float64)) / 4  # four times the vector itself: not orthogonal

    monkeypatch.setattr(torch.linalg, "qr", lambda matrix: Same)
    assert subspaces.violations(vector, directions, generator, sets=10) == 10
