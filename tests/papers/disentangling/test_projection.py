"""Projections on manifolds that are known, rendered letters and a plane in space; controls of known length; sums by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from coded_data import Data
from torch import Tensor, nn

from robustutils.artifacts import kept
from robustutils.data import Dataset
from robustutils.papers.disentangling import fonts, projection
from robustutils.papers.disentangling.latent import Ascent, InPixels
from robustutils.papers.disentangling.projection import (
    background,
    black_pixels,
    controls,
    distances,
    onto_affine,
    onto_neighbours,
)


def points(rows: list[list[float]]) -> Tensor:
    """Points of space as images of three pixels: [N, 1, 1, 3]."""
    return torch.tensor(rows).view(-1, 1, 1, 3)


@pytest.fixture(scope="module")
def letters() -> fonts.FontsDataset:
    return fonts.dataset(fonts.embedded_prototypes(), 20, "test")


@pytest.fixture(scope="module")
def plane() -> Tensor:
    """81 points of the plane z = 0.5 in space, at steps of 0.1."""
    steps = torch.arange(1, 10) / 10
    return torch.cat([torch.cartesian_prod(steps, steps), torch.full((81, 1), 0.5)], 1).view(-1, 1, 1, 3)


# ---- FONTS ----


def test_rendered_letters_are_at_no_distance(letters):
    found = onto_affine(letters.images, letters.glyphs(), letters.thetas, steps=20)
    for name in ("distance", "length", "ratio", "cosine"):
        assert found[name].dtype == torch.float64
        assert torch.equal(found[name], torch.zeros(20, dtype=torch.float64)), f"{name} of a point on it"
    assert torch.equal(found["thetas"], letters.thetas)
    torch.testing.assert_close(found["images"], letters.images)


def test_other_thetas_of_the_same_glyph_are_found(letters):
    glyphs = letters.glyphs()
    low, high = fonts.theta_bounds()
    moved = (letters.thetas + 0.1 * (high - low) * torch.tensor([1.0, -1, 1, -1, 1, -1])).clamp(low, high)
    perturbed = fonts.render(glyphs, moved)
    found = onto_affine(perturbed, glyphs, letters.thetas)
    assert found["ratio"].median() < 0.02, "the search does not find images of the manifold"
    away = onto_affine(perturbed, glyphs, letters.thetas, steps=0)
    torch.testing.assert_close(
        away["ratio"], torch.ones(20, dtype=torch.float64), msg="without steps it stays"
    )
    assert torch.equal(away["thetas"], letters.thetas)


def test_what_the_search_returns_is_the_nearest_point_of_its_path_and_in_the_ranges(letters):
    glyphs = letters.glyphs()
    perturbed = projection.sign_noise((letters.images - 0.2).abs(), letters.images, seed=3)
    low, high = fonts.theta_bounds()
    before = None
    for steps in (0, 1, 5, 30):
        found = onto_affine(perturbed, glyphs, letters.thetas, steps=steps)
        assert ((found["thetas"] >= low) & (found["thetas"] <= high)).all()
        torch.testing.assert_close(found["images"], fonts.render(glyphs, found["thetas"]))
        apart = (perturbed - found["images"]).flatten(1).double().norm(dim=1)
        torch.testing.assert_close(found["distance"], apart)
        if before is not None:
            assert (found["distance"] <= before + 1e-6).all(), f"{steps} steps end further away"
        before = found["distance"]
    delta, residual = ((perturbed - part).flatten(1).double() for part in (letters.images, found["images"]))
    torch.testing.assert_close(found["length"], delta.norm(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(found["ratio"], found["distance"] / found["length"])
    by_hand = (delta * residual).sum(1) / (delta.norm(dim=1) * residual.norm(dim=1))
    torch.testing.assert_close(found["cosine"], by_hand, rtol=1e-5, atol=0)


def test_a_batch_does_not_change_the_search(letters, monkeypatch):
    glyphs = letters.glyphs()
    perturbed = (letters.images + 0.1).clamp(0, 1)
    with torch.no_grad():
        whole = onto_affine(perturbed, glyphs, letters.thetas, steps=15)
    monkeypatch.setattr(projection, "BATCH", 7)
    some = onto_affine(perturbed, glyphs, letters.thetas, steps=15)
    assert some.keys() == whole.keys()
    for name, values in some.items():
        torch.testing.assert_close(values, whole[name], rtol=1e-4, atol=1e-4)
        assert not values.requires_grad


def test_the_learning_rate_falls_every_ten_steps(letters, monkeypatch):
    seen: list[float] = []
    step = torch.optim.Adam.step

    def spied(self: torch.optim.Adam, *args: object) -> object:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    onto_affine(letters.images[:2], letters.glyphs()[:2], letters.thetas[:2], steps=21)
    expected = [0.09] * 10 + [0.09 * 0.95] * 10 + [0.09 * 0.95**2]
    assert seen == pytest.approx(expected)


def test_a_projection_is_kept_by_name(letters, cache):
    arguments = letters.images, letters.glyphs(), letters.thetas
    first = kept(onto_affine, *arguments, steps=2)
    assert len(list(cache.glob("onto_affine-*.safetensors"))) == 1
    second = kept(onto_affine, *arguments, steps=2)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- neighbours ----


def test_a_change_off_a_plane_is_split_into_what_lies_in_it_and_what_does_not(plane):
    clean = points([[0.42, 0.55, 0.5], [0.42, 0.55, 0.5], [0.42, 0.55, 0.5]])
    delta = points([[0.03, 0.0, 0.04], [0.1, -0.05, 0.0], [0.0, 0.0, -0.2]])
    found = onto_neighbours(clean + delta, clean, plane, k=6, components=2)
    expected = {"distance": [0.04, 0, 0.2], "length": [0.05, 0.0125**0.5, 0.2], "ratio": [0.8, 0, 1]}
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], torch.tensor(values, dtype=torch.float64), rtol=1e-4, atol=1e-6, msg=name
        )
    assert found["cosine"][[0, 2]].tolist() == pytest.approx([0.8, 1], abs=1e-4)
    flat = clean + delta * points([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(found["images"], flat, rtol=0, atol=1e-5)


def test_neighbours_are_those_of_the_perturbed_image_on_the_main_axes():
    """Two far lines along x, at y = 0 and 1: the perturbed image is near the second. The third axis is not looked at."""
    steps = torch.linspace(0, 1, 11)
    zeros = torch.zeros(11)
    lines = [torch.stack([steps, zeros + y, zeros + z], 1) for y, z in ((0, 0), (1, 0.4))]
    lines[1] = lines[1] + torch.stack([zeros, zeros, 0.1 * (steps - 0.5)], 1)
    train = torch.cat(lines).view(-1, 1, 1, 3)
    clean, perturbed = points([[0.5, 0.0, 0.0]]), points([[0.5, 0.9, 0.0]])
    found = onto_neighbours(perturbed, clean, train, k=1, components=2)
    to_second = torch.tensor([0.0, 1.0, 0.4], dtype=torch.float64)
    along = to_second * (0.9 / to_second.square().sum())
    left = torch.tensor([0.0, 0.9, 0.0], dtype=torch.float64) - along
    assert found["distance"].item() == pytest.approx(left.norm().item(), abs=1e-4)


def test_least_squares_equal_numpys_and_dependent_neighbours_do_no_harm(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(60, 1, 5, 5, generator=generator)
    train = torch.cat([train, train])  # every neighbour twice
    clean, noise = torch.rand(2, 7, 1, 5, 5, generator=generator)
    perturbed = (clean + 0.2 * (noise - 0.5)).clamp(0, 1)
    clean[0] = train[3]
    monkeypatch.setattr(projection, "BATCH", 3)
    found = onto_neighbours(perturbed, clean, train, k=8, components=25)
    for i in range(7):
        apart = (train - perturbed[i]).flatten(1).norm(dim=1)
        basis = (train[apart.argsort()[:8]] - clean[i]).flatten(1).double().numpy()
        delta = (perturbed[i] - clean[i]).flatten().double().numpy()
        weights = np.linalg.lstsq(basis.T, delta, rcond=1e-6)[0]
        assert found["distance"][i].item() == pytest.approx(
            np.linalg.norm(delta - basis.T @ weights), abs=1e-6
        )


def test_noise_keeps_the_length_that_the_dimensions_leave_it():
    """Off k random directions of D noise keeps sqrt(1 - k / D) of its length."""
    generator = torch.Generator().manual_seed(1)
    train = torch.rand(300, 1, 14, 14, generator=generator)
    clean = torch.rand(200, 1, 14, 14, generator=generator)
    perturbed = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    found = onto_neighbours(perturbed, clean, train, k=50, components=40)
    assert found["ratio"].mean().item() == pytest.approx((1 - 50 / 196) ** 0.5, abs=0.01)
    torch.testing.assert_close(found["cosine"], found["ratio"], msg="no residual of a projection of delta")


# ---- controls ----


@pytest.fixture
def changed() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    clean = torch.rand(30, 1, 8, 8, generator=generator).round(decimals=1)
    return (clean + 0.3 * torch.rand(clean.shape, generator=generator)).clamp(0, 1), clean


def test_noise_has_the_length_of_each_change_and_one_size_at_every_pixel(changed):
    perturbed, clean = changed
    noise = projection.sign_noise(perturbed, clean, seed=1)
    length = (perturbed - clean).flatten(1).norm(dim=1)
    torch.testing.assert_close((noise - clean).flatten(1).norm(dim=1), length)
    torch.testing.assert_close((noise - clean).abs(), (length / 8).view(-1, 1, 1, 1).expand_as(clean))
    assert ((noise >= 0) & (noise <= 1)).all()
    up = (noise > clean)[(clean > 0.3) & (clean < 0.7)].float().mean()
    assert 0.4 < up < 0.6, "the signs are not random"
    assert torch.equal(noise, projection.sign_noise(perturbed, clean, seed=1))
    assert not torch.equal(noise, projection.sign_noise(perturbed, clean, seed=2))


def test_the_held_out_image_is_the_one_at_the_distance_of_the_change():
    clean = points([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    perturbed = points([[0.3, 0.0, 0.0], [0.0, 0.8, 0.0]])
    pool = points([[0.0, 0.0, 0.75], [0.2, 0.2, 0.0], [0.0, 0.0, 0.1]])
    found = controls(perturbed, clean, pool)
    assert found.keys() == {"noise", "held-out"}
    assert torch.equal(found["held-out"], pool[[1, 0]])
    assert torch.equal(found["noise"], projection.sign_noise(perturbed, clean))


# ---- numbers ----


def test_attempts_on_one_image_are_averaged():
    found = projection.outcomes(torch.tensor([1.0, 0.5, 0.6, 0.9]), torch.tensor([4, 2, 4, 7]))
    assert found.measured().value == pytest.approx(np.mean([0.5, 0.8, 0.9]))
    assert found.images.tolist() == [2, 4, 7]


class Upper(nn.Module):
    """Is there more ink in the upper half?"""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        ink = x.flatten(2).mean(1)
        return self.scale * torch.stack([ink[:, :392].sum(1), ink[:, 392:].sum(1)], 1)


@pytest.mark.parametrize("known", [True, False])
def test_examples_on_the_manifold_are_at_no_distance_and_regular_ones_are(letters, known):
    with torch.no_grad():
        labels = Upper()(letters.images).argmax(1)
    test = replace(letters, labels=labels)
    truth = letters
    if not known:
        train = fonts.dataset(fonts.embedded_prototypes(), 200)
        pixels = (255 * train.images).round().to(torch.uint8)
        truth = Dataset.from_pixels("letters", "train", pixels, train.labels, train.classes)
    black = torch.zeros(1, 28, 28, dtype=torch.bool)
    black[:, 0] = True
    attack, how = Ascent(steps=20, learning_rate=0.05), {"points": 10, "tries": 2}
    regular = distances(Upper(), attack, InPixels(test), truth, black, with_controls=True, **how)
    assert (regular["ratio"] > 0.3).all()
    assert ("held-out ratio" in regular) == (not known)
    torch.testing.assert_close(regular["noise length"], regular["length"], rtol=1e-3, atol=1e-3)
    assert ((regular["background"] >= 0) & (regular["background"] <= 100)).all()
    if known:
        codes = Data(letters.manifold, letters.thetas, labels, letters.glyphs())
        moved = distances(Upper(), attack, codes, truth, black, **how)
        assert moved["ratio"].mean() < 0.5 * regular["ratio"].mean()


def test_without_examples_there_is_nothing_to_project(letters):
    black = torch.zeros(1, 28, 28, dtype=torch.bool)
    with pytest.raises(ValueError, match="none of 10"):
        distances(Upper(), Ascent(eps=0.0, steps=1), InPixels(letters), letters, black, points=10)


def test_black_pixels_and_the_share_of_the_change_on_them():
    train = torch.zeros(100, 1, 1, 3)
    train[:, 0, 0, 1] = 0.7
    train[:2, 0, 0, 2] = 0.02
    assert black_pixels(train).flatten().tolist() == [True, False, False]
    assert black_pixels(train[1:]).flatten().tolist() == [True, False, False], "1 of 99 is more than 1%"
    assert black_pixels(train[:1].repeat(2, 1, 1, 1) * 0).all()
    clean = points([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    perturbed = points([[0.3, 0.9, 0.5], [0.0, 0.6, 0.5], [0.0, 0.5, 0.5]])
    shares = background(perturbed, clean, black_pixels(train))
    assert shares.tolist() == pytest.approx([0.36, 0, 0], abs=1e-6)
    noise = projection.sign_noise(perturbed, clean)
    assert background(noise, clean, black_pixels(train))[0].item() == pytest.approx(1 / 3, abs=1e-6)


# ---- every complaint ----

ONE = points([[0.0, 0.5, 1.0]])
TWO = torch.cat([ONE, ONE])
IDENTITY = torch.tensor([fonts.IDENTITY])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: onto_affine(ONE, TWO, IDENTITY), "[1, 1, 1, 3] and [2, 1, 1, 3]"),
        (lambda: onto_affine(ONE, ONE, IDENTITY[:, :5]), "theta is [1, 5]"),
        (lambda: onto_affine(ONE, ONE, IDENTITY, steps=-1), "steps=-1"),
        (lambda: onto_affine(ONE, ONE, IDENTITY, "far"), "'far'"),
        (lambda: onto_affine(TWO, TWO, torch.cat([IDENTITY, IDENTITY + 0.3])), "theta 1 is [0.3"),
        (lambda: onto_affine(ONE / 0, ONE, IDENTITY), "not finite"),
        (lambda: onto_neighbours(ONE, TWO, TWO, k=1, components=1), "need one shape"),
        (lambda: onto_neighbours(ONE, ONE, TWO, k=3, components=1), "k=3"),
        (lambda: onto_neighbours(ONE, ONE, TWO, k=0, components=1), "k=0"),
        (lambda: onto_neighbours(ONE, ONE, TWO, k=1, components=3), "components=3"),
        (lambda: onto_neighbours(ONE, ONE, TWO[..., :2], k=1), "[2, 1, 1, 2]"),
        (lambda: projection.sign_noise(ONE + 0.6, ONE), "noise of 0.6 a pixel"),
        (lambda: controls(ONE, ONE, TWO[:0]), "[0, 1, 1, 3]"),
    ],
)
def test_wrong_input_is_refused_by_its_value(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
