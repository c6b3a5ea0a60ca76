"""The spheres: both moves stay where they should, change what they should, and are the shortest of their kind."""

import pytest
import torch

from robustutils.papers.invariance.spheres import Spheres

TASK = Spheres()


@pytest.fixture(scope="module")
def points():
    return TASK.sample(2000, seed=1)


@pytest.fixture(scope="module")
def threshold():
    return TASK.threshold(*TASK.sample(10_000))


def test_points_lie_on_their_spheres_and_the_classifier_knows_them(points, threshold):
    inner, outer = points
    assert torch.allclose(inner.norm(dim=1), torch.tensor(1.0, dtype=torch.float64))
    assert torch.allclose(outer.norm(dim=1), torch.tensor(1.3, dtype=torch.float64))
    assert threshold == pytest.approx(1.126, abs=0.01), "expected by arithmetic"
    assert (TASK.seen(inner) < threshold).all()
    assert (TASK.seen(outer) > threshold).all()


def test_a_perturbed_point_stays_on_its_sphere_and_changes_the_answer(points, threshold):
    outer = points[1]
    moved = TASK.perturbed(outer, threshold)
    assert torch.allclose(moved.norm(dim=1), outer.norm(dim=1))
    assert (TASK.seen(moved) < threshold).all()
    assert (moved - outer).norm(dim=1).median().item() == pytest.approx(0.50, abs=0.02)


def test_an_invariant_point_changes_its_sphere_and_keeps_the_answer(points, threshold):
    inner = points[0]
    moved = TASK.invariant(inner)
    assert torch.allclose(moved.norm(dim=1), torch.tensor(1.3, dtype=torch.float64))
    assert torch.equal(moved[:, :490], inner[:, :490])
    assert (moved - inner).norm(dim=1).median().item() == pytest.approx(0.705, abs=0.02)


def test_the_moves_are_the_shortest(points, threshold):
    outer, inner = points[1][:50], points[0][:50]
    for start, moved in ((outer, TASK.perturbed(outer, threshold)), (inner, TASK.invariant(inner))):
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):  # other points of the same kind: turn the two parts of the moved point a little
            turned = moved + 0.05 * torch.randn(moved.shape, generator=generator, dtype=torch.float64)
            for part in (slice(0, 490), slice(490, 500)):
                turned[:, part] *= (moved[:, part].norm(dim=1) / turned[:, part].norm(dim=1))[:, None]
            assert ((turned - start).norm(dim=1) > (moved - start).norm(dim=1)).all()


def test_each_attack_is_impossible_on_the_other_sphere(points, threshold):
    inner, outer = points
    assert TASK.perturbed(inner, threshold).isnan().all()
    assert TASK.invariant(outer).isnan().all()


@pytest.mark.parametrize(("field", "value"), [("n", 0), ("n", 500), ("inner", 1.3), ("inner", 0.0)])
def test_impossible_tasks_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}"):
        Spheres(**{field: value})


def test_classes_that_overlap_are_refused(points):
    with pytest.raises(ValueError, match="overlap"):
        TASK.threshold(points[1], points[0])
