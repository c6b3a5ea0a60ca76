"""Threat sets: projections, starts and directions as properties, and every complaint."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustutils import threats
from robustutils.threats import L2, Linf, ThreatError

SHAPE = (2, 1, 2, 3)
KINDS = pytest.mark.parametrize("kind", [Linf, L2])


def tensors(low: float, high: float) -> st.SearchStrategy[Tensor]:
    elements = st.floats(low, high, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, SHAPE, elements=elements).map(torch.from_numpy)


IMAGES = tensors(0, 1)
MOVES = tensors(-2, 2)
RADII = st.floats(0, 1)


@KINDS
@given(x=IMAGES, delta=MOVES, eps=RADII)
def test_projection_lands_in_the_set_and_in_the_box(kind, x, delta, eps):
    threat = kind(eps=eps)
    moved = threat.perturb(x, threat.project(x, delta))
    assert 0 <= moved.min() <= moved.max() <= 1
    threats.check_inside(threat, x, moved, tolerance=1e-6)


@KINDS
@given(x=IMAGES, delta=MOVES, eps=RADII)
def test_projection_is_idempotent(kind, x, delta, eps):
    threat = kind(eps=eps)
    once = threat.project(x, delta)
    torch.testing.assert_close(threat.project(x, once), once, rtol=0, atol=1e-6)


@KINDS
@given(x=IMAGES, towards=IMAGES, eps=RADII)
def test_projection_leaves_alone_what_is_inside(kind, x, towards, eps):
    # towards - x stays in the box, and the factor brings it inside the ball.
    delta = (towards - x) * min(1.0, eps / math.sqrt(6))
    torch.testing.assert_close(kind(eps=eps).project(x, delta), delta, rtol=0, atol=1e-6)


@KINDS
@given(x=IMAGES, delta=MOVES, radii=st.tuples(RADII, RADII).map(sorted))
def test_balls_grow_with_eps(kind, x, delta, radii):
    small, large = kind(eps=radii[0]), kind(eps=radii[1])
    inner = small.project(x, delta)
    torch.testing.assert_close(large.project(x, inner), inner, rtol=0, atol=1e-6)
    outer = large.project(x, delta)
    assert (large.size(x, x + outer) >= small.size(x, x + inner) - 1e-6).all()


@KINDS
@given(x=IMAGES, eps=RADII, seed=st.integers(0, 2**32))
def test_random_start_lies_in_the_set_and_repeats_with_its_seed(kind, x, eps, seed):
    threat = kind(eps=eps)
    delta = threat.start(x, torch.Generator().manual_seed(seed))
    threats.check_inside(threat, x, threat.perturb(x, delta), tolerance=1e-6)
    assert torch.equal(delta, threat.start(x, torch.Generator().manual_seed(seed)))


@KINDS
def test_start_without_a_generator_is_no_change(kind):
    x = torch.full(SHAPE, 0.5)
    assert torch.equal(kind(eps=0.3).start(x, None), torch.zeros(SHAPE))


@KINDS
def test_start_is_uniform_in_the_ball(kind):
    eps, dimensions = 0.2, 6
    x = torch.full((20_000, 1, 2, 3), 0.5)
    delta = kind(eps=eps).start(x, torch.Generator().manual_seed(0))
    # In a uniform ball, size^d / eps^d is uniform on [0, 1] in every norm.
    volume = (kind(eps=eps).size(x, x + delta) / eps) ** dimensions
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert (volume < quantile).float().mean().item() == pytest.approx(quantile, abs=0.015)
    assert delta.mean(0).abs().max() < 0.005, "the ball is not centred at x"


@pytest.mark.parametrize(("kind", "dual"), [(Linf, 1), (L2, 2)])
@given(gradient=tensors(-5, 5).filter(lambda g: bool((g.flatten(1).norm(dim=1) > 1e-6).all())))
def test_direction_has_unit_size_and_gains_the_dual_norm(kind, dual, gradient):
    direction = kind(eps=0.1).direction(gradient)
    assert (kind(eps=0.1).size(torch.zeros(SHAPE), direction) <= 1 + 1e-6).all()
    gain = (direction * gradient).flatten(1).sum(1)
    torch.testing.assert_close(gain, gradient.flatten(1).norm(p=dual, dim=1))


@KINDS
def test_direction_of_a_zero_gradient_is_zero(kind):
    assert torch.equal(kind(eps=0.1).direction(torch.zeros(SHAPE)), torch.zeros(SHAPE))


@pytest.mark.parametrize(("kind", "size"), [(Linf, [0.3, 0.1]), (L2, [0.5, 0.1 * math.sqrt(6)])])
def test_size_is_the_norm_of_the_change(kind, size):
    x = torch.full(SHAPE, 0.5)
    delta = torch.zeros(SHAPE)
    delta[0, 0, 0, 0], delta[0, 0, 1, 2] = 0.3, -0.3 if kind is Linf else 0.4
    delta[1] = -0.1
    torch.testing.assert_close(kind(eps=1.0).size(x, x + delta), torch.tensor(size))


@pytest.mark.parametrize(
    ("kind", "eps", "message"),
    [
        (Linf, -0.1, r"eps=-0\.1"),
        (Linf, 76.5, r"eps=76\.5"),
        (Linf, math.nan, "eps=nan"),
        (L2, -2.0, r"eps=-2\.0"),
        (L2, math.nan, "eps=nan"),
    ],
)
def test_radius_out_of_range_is_refused(kind, eps, message):
    with pytest.raises(ValueError, match=message):
        kind(eps=eps)


@pytest.mark.parametrize(
    ("threat", "x_adv", "message"),
    [
        (Linf(eps=0.1), torch.full((2, 1, 3, 2), 0.5), r"\(2, 1, 3, 2\).*\(2, 1, 2, 3\)"),
        (Linf(eps=0.1), torch.full(SHAPE, math.nan), "not finite"),
        (Linf(eps=0.1), torch.full(SHAPE, math.inf), "not finite"),
        (Linf(eps=1.0), torch.full(SHAPE, 1.25), r"box.*\[1\.25, 1\.25\]"),
        (Linf(eps=1.0), torch.full(SHAPE, -0.25), r"box.*-0\.25"),
        (Linf(eps=0.1), torch.full(SHAPE, 0.75), r"0\.25 in Linf.* 0\.1"),
        (L2(eps=0.5), torch.full(SHAPE, 0.75), r"0\.612372 in L2.* 0\.5"),
    ],
)
def test_check_names_what_left_the_set(threat, x_adv, message):
    with pytest.raises(ThreatError, match=message):
        threats.check_inside(threat, torch.full(SHAPE, 0.5), x_adv)


def test_check_looks_at_every_image():
    x = torch.full(SHAPE, 0.5)
    x_adv = x.clone()
    x_adv[1, 0, 0, 0] += 0.2
    with pytest.raises(ThreatError, match=r" 0\.2"):
        threats.check_inside(Linf(eps=0.1), x, x_adv)
    threats.check_inside(Linf(eps=0.2), x, x_adv)
