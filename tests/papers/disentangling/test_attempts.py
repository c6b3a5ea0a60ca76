"""Attempts on the points of a data set: none depends on the others, what counts is named, and bisection comes near."""

from dataclasses import replace

import pytest
import torch
from coded_data import WEIGHTS, LinearDecoder, TwoClasses, coded, normalised_net, pixels_at
from torch import Tensor

from robustutils.artifacts import kept
from robustutils.data import Dataset
from robustutils.papers.disentangling import attempts as trying
from robustutils.papers.disentangling.attempts import (
    attempts,
    correct_points,
    examples,
    smallest,
    steps,
    steps_to_success,
    success,
    transferred,
)
from robustutils.papers.disentangling.fonts import Affine
from robustutils.papers.disentangling.latent import Ascent, CarliniAscent, InPixels, Pixels

# ---- several attempts ----


@pytest.mark.parametrize(
    ("manifold", "attack"),
    [
        (Pixels(), Ascent(steps=8, eps=0.1)),
        (LinearDecoder(), Ascent(steps=8, eps=0.1)),
        (Affine("hard"), CarliniAscent(steps=8, eps=0.2)),
    ],
    ids=["pixels", "decoder", "affine"],
)
def test_a_point_and_attempt_do_not_depend_on_the_batch(manifold, attack, monkeypatch):
    model = normalised_net()
    data = coded(manifold, model)
    whole = examples(model, attack, data, points=12, tries=3)
    for points, batch in ((4, 1), (12, 7)):
        monkeypatch.setattr(trying, "BATCH", batch)
        part = examples(model, attack, data, points=points, tries=3)
        torch.testing.assert_close(part["codes"], whole["codes"][:points], rtol=0, atol=2e-4)
        for name in ("success", "correct", "steps", "valid"):
            assert torch.equal(part[name], whole[name][:points]), name
    other = examples(model, attack, data, points=12, tries=3, seed=1)
    assert not torch.equal(other["codes"], whole["codes"])
    codes = whole["codes"][0]
    assert not torch.equal(codes[0], codes[1]), "two attempts are the same"


def test_what_does_not_count_is_not_attacked():
    model = normalised_net()
    data = coded(LinearDecoder(), model)
    data.codes[2] = 2.5
    with torch.no_grad():
        data.labels[2] = model(data.manifold.decode(data.codes[2:3], data.images)).argmax()
    found = attempts(model, Ascent(steps=8), data, points=12, tries=2)
    assert all(part.shape == (12, 2) for part in found.values())
    assert found["valid"][:, 0].tolist() == [True, True, False] + [True] * 9
    assert found["correct"][:, 0].tolist() == [True, False] + [True] * 10
    for row in (1, 2):
        assert not found["success"][row].any()
    assert found["success"].any()
    correct = correct_points(model, data)
    assert torch.equal(correct, found["correct"][:, 0])


def test_steps_are_those_of_the_examples():
    model = normalised_net()
    data = coded(LinearDecoder(), model)
    whole = examples(model, Ascent(steps=8), data, points=12, tries=2)
    found = steps(model, Ascent(steps=8), data, points=12, tries=2)
    assert torch.equal(found["success"], whole["success"])
    assert torch.equal(found["steps"].long()[found["success"]], whole["steps"][found["success"]])
    assert (found["steps"][~found["success"]] == -1).all()


def test_where_no_point_counts_nothing_is_attacked():
    model = normalised_net()
    data = coded(Pixels(), model)
    wrong = replace(data, labels=(data.labels + 1) % 3)
    found = attempts(model, Ascent(), wrong, points=3)
    assert not found["correct"].any()
    with pytest.raises(ValueError, match="no example"):
        success([found], [0])
    assert smallest(model, Ascent(), wrong, points=3)["size"].tolist() == [0, 0, 0]


def test_attempts_are_kept_under_their_name(tiny_data, tiny_net, cache):
    data = InPixels(tiny_data)
    first = kept(attempts, tiny_net(), Ascent(steps=2), data, points=4, tries=2)
    again = kept(attempts, tiny_net(), Ascent(steps=2), data, points=4, tries=2)
    assert first.keys() == again.keys()
    assert len(list(cache.glob("attempts-*.safetensors"))) == 1
    kept(attempts, tiny_net(), Ascent(steps=2, eps=0.2), data, points=4, tries=2)
    assert len(list(cache.glob("attempts-*.safetensors"))) == 2


# ---- the smallest change ----


def test_the_smallest_change_of_a_linear_model_is_the_distance_to_the_border():
    distances = torch.linspace(0.02, 0.14, 10)
    data = pixels_at(distances)
    data.labels[3] = 1 - data.labels[3]
    found = smallest(TwoClasses(), Ascent(eps=0.12, steps=60), data, points=10)
    size = found["size"]
    assert size[3] == 0, "wrong before"
    assert torch.equal(size.isinf(), distances > 0.12), "beyond eps"
    reached = size.isfinite() & (size > 0)
    assert (size[reached] >= distances[reached] - 1e-5).all(), "nearer than possible"
    assert (size[reached] <= distances[reached] + 0.12 / 2**9 + 1e-4).all(), f"too far: {size - distances}"
    assert found["valid"].all()


def test_the_smallest_change_is_in_the_norm_of_the_attack():
    distances = torch.linspace(0.02, 0.06, 6)
    exact = distances * WEIGHTS.abs().sum() / WEIGHTS.norm()
    along_signs = distances * 6**0.5  # Adam's first steps go there
    size = smallest(TwoClasses(), Ascent(eps=0.3, norm="l2", steps=60), pixels_at(distances), points=6)[
        "size"
    ]
    assert (size >= exact - 1e-5).all()
    assert (size <= 1.05 * along_signs + 0.005).all(), f"{size} for {along_signs}"


# ---- transfer ----


def test_examples_carry_over_to_the_same_model_and_not_to_its_opposite():
    data, attack = pixels_at(torch.linspace(0.02, 0.1, 8)), Ascent(eps=0.06)
    found = examples(TwoClasses(), attack, data, points=8, tries=2)
    same = transferred(TwoClasses(), TwoClasses(), attack, data, points=8, tries=2)
    assert torch.equal(same["success"], found["success"])
    assert torch.equal(same["correct"], found["correct"])
    assert found["success"].any()
    opposite = transferred(TwoClasses(sign=-1), TwoClasses(), attack, data, points=8, tries=2)
    assert not opposite["correct"].any()
    assert not opposite["success"].any()


# ---- rates ----


def table() -> dict[str, Tensor]:
    """Four points with two attempts: both succeed, one, one that is not valid, one that was wrong before."""
    flags = {
        "success": [[True, True], [True, False], [True, True], [False, False]],
        "correct": [[True, True], [True, True], [True, True], [False, False]],
        "valid": [[True, True], [True, True], [False, False], [True, True]],
    }
    return {name: torch.tensor(part) for name, part in flags.items()}


def test_rates_name_their_denominators():
    found = success([table()], [0]).measured()
    assert found.value == pytest.approx(75), "three of four attempts on points that count"
    assert (found.n, found.seeds) == (2, (0,))
    assert 0 < found.ci95[0] < 75 < found.ci95[1] < 100, "an interval for two points"
    as_coded = success([table()], [0], as_coded=True).measured()
    assert (as_coded.value, as_coded.n) == (pytest.approx(50), 3), "three of six attempts"
    assert success([table()], [0], worst=True).measured().value == 100
    assert success([table()], [0], worst=True, as_coded=True).measured().value == pytest.approx(200 / 3)


def test_more_attempts_do_not_narrow_the_interval():
    found = {name: part[:, :1].repeat(1, 50) for name, part in table().items()}
    few = {name: part[:, :1] for name, part in table().items()}
    assert success([found], [0]).measured().ci95 == success([few], [0]).measured().ci95


def test_steps_count_the_attempts_that_succeed():
    found = {
        "success": torch.tensor([[True, True], [True, False], [False, False]]),
        "steps": torch.tensor([[2, 4], [7, -1], [-1, -1]], dtype=torch.int16),
    }
    measured = steps_to_success([found], [0]).measured()
    assert (measured.value, measured.n) == (5.0, 2), "the means of two points, 3 and 7"


# ---- every complaint ----


def test_points_and_rounds_are_checked(tiny_data: Dataset, tiny_net):
    data = InPixels(tiny_data)
    for points in (0, 51):
        with pytest.raises(ValueError, match=f"points={points}.* 50"):
            attempts(tiny_net(), Ascent(), data, points=points)
    with pytest.raises(ValueError, match="tries=0"):
        attempts(tiny_net(), Ascent(), data, points=2, tries=0)
    with pytest.raises(ValueError, match="rounds=0"):
        smallest(tiny_net(), Ascent(), data, points=2, rounds=0)
