"""The alignment search against brute force, and mapped images against scipy's."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from robustutils import artifacts
from robustutils.artifacts import kept
from robustutils.data import Dataset
from robustutils.papers.invariance.alignment import PAPER_GRID, UNITS, Grid, _Best, _canvases, search

GRID = Grid(rotations=(-15, 0, 10), shears=(0, 0.2), scales=(0.6, 1, 1.3), shift=2)


@pytest.fixture(scope="module")
def thin(digits: Dataset) -> Dataset:
    """Digits whose strokes are as thin as MNIST's, so that bounds prune and ink leaves the frame."""
    pixels = digits.images
    return digits.changed((pixels - 0.6).clamp(0) / 0.4)


@pytest.fixture(scope="module")
def train(thin: Dataset) -> Dataset:
    return thin.take(torch.arange(8, 128))


@pytest.fixture(scope="module")
def expected(thin: Dataset, train: Dataset) -> dict[str, Tensor]:
    return brute_force(thin.images[:8], thin.labels[:8], train, GRID)


def mapped_by_scipy(image: Tensor, matrix: np.ndarray, offset: np.ndarray, side: int) -> np.ndarray:
    """The image at ``matrix @ (row, column) + offset``."""
    return ndimage.affine_transform(
        image.double().numpy(), matrix, offset, (side, side), order=1, mode="grid-constant", prefilter=False
    )


def linear_by_scipy(image: Tensor, parameters: Tensor, side: int) -> np.ndarray:
    """Rotation, shear, scale about the centre, then the shift."""
    rotation, shear, scale, down, right = parameters.double().tolist()
    angle = math.radians(rotation)
    # In (row, column): a column moves right by the shear for each row, then both turn clockwise.
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.array([[1, 0], [shear, 1]]) * scale)
    centre = np.full(2, (image.shape[-1] - 1) / 2)
    middle = (side - 1) / 2 + np.array([down, right])
    return mapped_by_scipy(image, inverse, centre - inverse @ middle, side)


def brute_force(queries: Tensor, labels: Tensor, train: Dataset, grid: Grid) -> dict[str, Tensor]:
    """What the search returns, by counting every distance; without ``examined``."""
    side, ink = queries.shape[-1], queries[:, 0] > 0.5
    best = _Best(len(queries), train, grid, queries.device)
    for index, linear in enumerate(grid.linear_maps()):
        canvases = _canvases(train.images, linear, grid.shift)
        total = canvases.sum((1, 2))
        for position, (down, right) in enumerate(grid.shifts()):
            top, left = grid.shift - down, grid.shift - right
            mapped = canvases[:, top : top + side, left : left + side]
            fits = (mapped.sum((1, 2)) >= grid.keep * total) & (total > 0)
            for query in range(len(queries)):
                places = (fits & (train.labels != labels[query])).nonzero().squeeze(1)
                distance = ((mapped[places] > UNITS / 2) ^ ink[query]).sum((1, 2))
                best.offer(torch.full_like(places, query), distance, index, places, position)
    return best.result()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), f"another {name}"


# ---- grids and mapped images ----


def test_the_papers_grid_has_135_linear_maps_and_169_shifts():
    maps = PAPER_GRID.linear_maps()
    assert (len(maps), len(set(maps)), len(set(PAPER_GRID.shifts()))) == (135, 135, 169)
    assert maps[0] == (0, 0, 1), "the mildest is not first"
    assert str(PAPER_GRID) == "9 rotations x 3 shears x 5 scales x 169 shifts = 22,815 maps"
    assert artifacts.describe(PAPER_GRID)["is"] == "Grid"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotations": ()}, r"rotations=\(\)"),
        ({"shears": (0, math.nan)}, r"shears=\(0, nan\)"),
        ({"scales": (1, 1)}, r"scales=\(1, 1\)"),
        ({"scales": (0, 1)}, r"scales=\(0, 1\)"),
        ({"shift": -1}, "shift=-1"),
        ({"keep": 1.1}, "keep=1.1"),
    ],
)
def test_a_grid_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GRID, **change)


@pytest.mark.parametrize(
    "linear", [(0, 0, 1), (20, 0, 1), (0, 0.2, 1), (0, 0, 0.5), (-15, -0.2, 1.5)], ids=str
)
def test_canvases_are_the_images_of_scipy(thin, linear):
    canvases = _canvases(thin.images[:3], linear, 6)
    assert torch.equal(canvases, canvases.round())
    for image, canvas in zip(thin.images[:3, 0], canvases, strict=True):
        oracle = linear_by_scipy(image, torch.tensor([*linear, 0, 0]), 40)
        np.testing.assert_allclose(canvas / UNITS, oracle, atol=1e-3)


# ---- the search ----


@pytest.mark.parametrize(
    "settings",
    [{}, {"batch_size": 7, "directions": 3}, {"batch_size": 1000, "directions": 5000}],
    ids=["defaults", "small blocks", "all directions"],
)
def test_the_search_finds_what_brute_force_finds(thin, train, expected, settings):
    found = search(thin.images[:8], thin.labels[:8], train, GRID, **settings)
    same(found, expected)
    share = found["examined"] / (len(train) * len(GRID.linear_maps()) * len(GRID.shifts()))
    assert (share > 0).all()
    assert settings or (share < 0.1).all(), "the bound prunes too little"


@pytest.mark.parametrize("change", [{"shift": 0}, {"keep": 0.0}, {"keep": 1.0}, {"rotations": (5,)}], ids=str)
def test_other_grids(thin, train, change):
    grid = dataclasses.replace(GRID, **change)
    arguments = thin.images[:4], thin.labels[:4], train.first(60), grid
    same(search(*arguments), brute_force(*arguments))


def test_a_good_match_outside_the_pilot_is_found(thin, train, expected, monkeypatch):
    monkeypatch.setattr("robustutils.papers.invariance.alignment.PILOT", 1)
    same(search(thin.images[:8], thin.labels[:8], train, GRID), expected)


def test_the_result_is_what_its_numbers_say(thin, train, expected):
    shares = []
    for query in range(8):
        place = expected["place"][query]
        image, parameters = train.images[place, 0], expected["map"][query]
        found = expected["images"][query, 0]
        np.testing.assert_allclose(found, linear_by_scipy(image, parameters, 28), atol=1e-3)
        assert expected["distance"][query] == ((found > 0.5) ^ (thin.images[query, 0] > 0.5)).sum()
        assert expected["label"][query] == train.labels[place] != thin.labels[query]
        canvas = linear_by_scipy(image, parameters * torch.tensor([1, 1, 1, 0, 0]), 32)
        shares.append(float(found.sum()) / canvas.sum())
    assert min(shares) > 0.849, "too much ink left the frame"


def test_too_much_ink_outside_the_frame_is_not_admissible():
    images = torch.zeros(1, 1, 8, 8)
    images[..., 6:, :] = 1  # a shift by one pixel down loses half of it
    train = Dataset("bars", "train", images, torch.tensor([1]), ("a", "b"), "")
    query = torch.zeros(1, 1, 8, 8)
    query[..., 7:, :] = 1
    shifts = Grid(rotations=(0,), shears=(0,), scales=(1,), shift=1, keep=0.5)
    for keep, distance in ((0.5, 0), (0.51, 8)):
        found = search(query, torch.tensor([0]), train, dataclasses.replace(shifts, keep=keep))
        assert found["distance"].item() == distance


@pytest.mark.parametrize("sign", [1, -1], ids=["more ink", "less ink"])
def test_ink_counts_rule_out_nothing_that_is_nearer(sign, monkeypatch):
    monkeypatch.setattr("robustutils.papers.invariance.alignment.PILOT", 1)
    pixels = torch.arange(64)
    images = torch.stack([pixels < 32 + sign * more for more in (6, 5)]).float().view(2, 1, 8, 8)
    train = Dataset("bars", "train", images, torch.tensor([1, 1]), ("a", "b"), "")
    query = (pixels < 32).float().view(1, 1, 8, 8)
    grid = Grid(rotations=(0,), shears=(0,), scales=(1,), shift=0)
    found = search(query, torch.tensor([0]), train, grid, batch_size=1)
    assert (found["distance"].item(), found["place"].item()) == (5, 1)


def test_ties_go_to_the_first_image(thin, train, expected):
    twice = train.take(torch.arange(240) % 120)
    for batch_size in (16, 500):
        found = search(thin.images[:8], thin.labels[:8], twice, GRID, batch_size=batch_size)
        assert torch.equal(found["place"], expected["place"])


def test_queries_in_pieces_find_the_same(thin, train, expected):
    parts = [search(thin.images[i:j], thin.labels[i:j], train, GRID) for i, j in ((0, 5), (5, 8))]
    same({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, expected)


def test_a_query_without_candidate_is_told(thin, train):
    label = int(thin.labels[0])
    alone = train.take((train.labels == label).nonzero().squeeze(1))
    labels = torch.tensor([label, (label + 1) % 10])
    found = search(thin.images[:2], labels, alone, GRID)
    for name in ("distance", "place", "label"):
        assert found[name][0] == -1
        assert found[name][1] >= 0
    assert not found["images"][0].any()
    assert not found["map"][0].any()
    assert found["examined"][0] == 0
    same(found, brute_force(thin.images[:2], labels, alone, GRID))


def test_black_images(thin, train):
    black = torch.zeros(1, 1, 28, 28)
    with_black = train.changed(torch.cat([black, train.images[1:]]))
    arguments = torch.cat([black, thin.images[:1]]), torch.tensor([10, 11]), with_black, GRID
    found = search(*arguments)
    assert (found["place"] > 0).all(), "an image without ink was chosen"
    assert found["distance"][0] == (found["images"][0] > 0.5).sum()
    same(found, brute_force(*arguments))


def test_a_finished_search_is_kept(thin, train, cache: Path):
    arguments = thin.images[:1], thin.labels[:1], train.first(20), GRID
    first = kept(search, *arguments)
    files = list(cache.iterdir())
    same(kept(search, *arguments), first)
    assert list(cache.iterdir()) == files
    assert len(files) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": torch.zeros(2, 28, 28)}, r"queries \(2, 28, 28\)"),
        ({"labels": torch.zeros(3)}, r"labels \(3,\)"),
        ({"queries": torch.full((2, 1, 28, 28), 2.0)}, "pixels"),
        ({"queries": torch.zeros(0, 1, 28, 28), "labels": torch.zeros(0)}, "0 queries"),
        ({"queries": torch.zeros(2, 1, 8, 8)}, r"\(1, 28, 28\).*\(1, 8, 8\)"),
        ({"grid": dataclasses.replace(GRID, shift=19)}, "shifts of 19.* 64"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"directions": 0}, "directions=0"),
    ],
)
def test_the_search_refuses(train, change, message):
    arguments = {"queries": torch.zeros(2, 1, 28, 28), "labels": torch.zeros(2), "train": train, "grid": GRID}
    with pytest.raises(ValueError, match=message):
        search(**arguments | change)
