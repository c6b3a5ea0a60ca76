"""Invariance examples: strokes exchanged whole, pixels moved by no more than eps, and the published ones made again."""

import numpy as np
import pytest
import torch

from robustutils import artifacts, data, models
from robustutils.papers.invariance import alignment, examples
from robustutils.papers.invariance.examples import (
    candidates,
    clusters,
    interpolated,
    laid_over,
    linf_examples,
    moved,
    nearest_targets,
)


def blank(*filled: tuple[slice, slice]) -> torch.Tensor:
    image = torch.zeros(1, 28, 28)
    for rows, columns in filled:
        image[0, rows, columns] = 1
    return image


STROKE = (slice(2, 12), slice(3, 5))
BAR = (slice(20, 23), slice(5, 20))
DOT = (slice(8, 9), slice(25, 27))  # too small for a cluster


@pytest.fixture(scope="module")
def published() -> dict[str, examples.Labelled]:
    try:
        return examples.published()
    except data.DataError as reason:
        pytest.skip(str(reason))


def test_a_mask_falls_into_its_strokes_largest_first():
    groups = clusters(blank(STROKE, BAR, DOT)[0] > 0)
    assert [int(group.sum()) for group in groups] == [45, 20], "the dot of two pixels is noise"
    assert torch.equal(groups[0], blank(BAR)[0] > 0)


def test_spectral_clustering_leaves_no_pixel_out():
    mask = blank(STROKE, BAR, DOT)[0] > 0
    groups = clusters(mask, method="spectral")
    assert len(groups) == 2
    assert torch.equal(torch.stack(groups).any(0), mask)
    with pytest.raises(ValueError, match=r"method='kmeans'.*'dbscan' or 'spectral'"):
        clusters(mask, method="kmeans")


def test_candidates_are_all_choices_and_differ_inside_chosen_clusters_only():
    x, target = blank(STROKE)[None], blank(BAR)[None] * 0.9
    found = candidates(x, target)
    assert found.clusters.tolist() == [2]
    assert sorted(found.pixels.tolist()) == [20, 45, 65]
    for image, pixels in zip(found.images, found.pixels, strict=True):
        changed = (image != x[0])[0]
        assert int(changed.sum()) == pixels
        assert torch.equal(image[0][changed], target[0, 0][changed])
    whole = found.images[found.whole()[0]]
    assert torch.equal(whole, target[0])


def test_queries_without_a_cluster_and_with_very_many_are_told(monkeypatch):
    same, dots = blank(STROKE), blank(STROKE, DOT)
    many = blank(*((slice(4 * r, 4 * r + 2), slice(6 * c, 6 * c + 3)) for r in range(4) for c in range(4)))
    monkeypatch.setattr(examples, "MOST_CLUSTERS", 3)
    found = candidates(torch.stack([same, same, torch.zeros_like(same)]), torch.stack([same, dots, many]))
    assert found.clusters.tolist() == [0, 0, 16], "the true numbers are told"
    assert found.query.tolist() == [2] * 7
    assert found.whole()[:2].tolist() == [-1, -1]
    none = candidates(same[None], same[None])
    assert none.images.shape == (0, 1, 28, 28)
    assert none.best(torch.zeros(0)).tolist() == [-1]


def test_the_best_candidate_is_chosen_within_its_query():
    found = candidates(torch.stack([blank(STROKE)] * 2), torch.stack([blank(BAR)] * 2))
    scores = torch.arange(6.0)
    scores[4] = -1
    assert found.best(scores).tolist() == [0, 4]
    places = found.best(scores.masked_fill(found.query == 0, torch.inf))
    assert places.tolist() == [-1, 4], "a query whose scores are all infinite has no candidate"
    x = torch.stack([blank(STROKE)] * 2)
    assert torch.equal(found.taken(x, places), torch.stack([x[0], found.images[4]]))


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4, 1.0])
def test_interpolation_stays_within_eps_and_stops_at_the_target(eps, digits):
    x, target = digits.images[:30], digits.images[30:60]
    made = interpolated(x, target, eps)
    assert (made - x).abs().max() <= eps + 1e-6
    assert (made - target).abs().le((x - target).abs() + 1e-6).all(), "a pixel went away from its target"
    background = (x == 0) & (target <= eps)
    assert (made[background] == 0).all(), "black pixels stay black where the target is at most eps"


def test_a_radius_that_is_none_is_refused(digits):
    with pytest.raises(ValueError, match=r"eps=1\.5"):
        interpolated(digits.images[:1], digits.images[1:2], 1.5)


def test_moving_there_and_back_is_the_identity_inside(digits):
    x = torch.nn.functional.avg_pool2d(
        digits.images[:20], 5, stride=1, padding=2
    )  # smooth, so that resampling is mild
    rows, columns, degrees = (torch.full((20,), value) for value in (1.5, -3.0, 20.0))
    there = moved(x, rows, columns, degrees)
    assert (there - x).abs().max() > 0.3
    again = moved(there, rows, columns, degrees, back=True)
    assert (again - x)[:, :, 8:20, 8:20].abs().max() < 0.06


def test_images_shift_along_the_axes_that_are_named():
    image = blank((slice(10, 12), slice(10, 12)))[None]
    zero, two = torch.zeros(1), torch.full((1,), 2.0)
    assert torch.allclose(
        moved(image, two, zero, zero), blank((slice(12, 14), slice(10, 12)))[None], atol=1e-5
    )
    assert torch.allclose(
        moved(image, zero, two, zero), blank((slice(10, 12), slice(12, 14)))[None], atol=1e-5
    )


def test_neighbours_are_the_nearest_of_each_target_class_over_all_views(digits, monkeypatch):
    views = ((0.0, 0.0, 0.0), (1.5, 0.0, 0.0), (0.0, -3.0, 10.0))
    monkeypatch.setattr(examples, "VIEWS", views)
    x, labels, train = digits.images[:4], digits.labels[:4], digits.first(200)
    found = nearest_targets(x, labels, train, batch_size=2)
    asked = {(q, t) for q, label in enumerate(labels.tolist()) for t in examples.TARGETS[label]}
    assert set(zip(found["query"].tolist(), found["target"].tolist(), strict=True)) == asked
    assert torch.equal(train.labels[found["place"]], found["target"])
    images = laid_over(train, found)
    for image, query, target in zip(images, found["query"], found["target"], strict=True):
        pool = train.images[train.labels == target]
        gaps = []
        for view in views:
            seen = moved(x[query][None], *torch.tensor([view]).T, back=True)
            gaps += [(float((seen - other).square().sum()), view, other) for other in pool]
        _, view, other = min(gaps, key=lambda gap: gap[0])
        assert torch.allclose(image[None], moved(other[None], *torch.tensor([view]).T), atol=1e-5)


def test_examples_remove_the_least_ink_and_those_without_a_target_stay(digits):
    x = digits.images[:2]
    two = torch.stack([torch.zeros_like(x[0]), x[0] * 0.9])
    made, classes = linf_examples(x, two, torch.tensor([0, 0]), torch.tensor([4, 6]), 0.3)
    assert classes.tolist() == [6, -1]
    assert torch.equal(made[1], x[1])
    sevens = digits.take((digits.labels == 7).nonzero().squeeze(1))
    nothing = nearest_targets(x, digits.labels[:2], sevens, targets={})
    over = laid_over(sevens, nothing), nothing["query"], nothing["target"]
    assert linf_examples(x, *over, 0.3)[1].tolist() == [-1, -1]


def test_the_published_examples_and_how_often_people_saw_another_digit(published):
    changed = {name: int(found.changed.sum()) for name, found in published.items()}
    assert changed == {"l0": 55, "linf 0.3": 21, "linf 0.4": 37, "by hand": 44}
    far = {name: (found.images - found.clean.images).abs().max().item() for name, found in published.items()}
    assert far["linf 0.3"] == pytest.approx(0.3, abs=1e-6)
    assert far["linf 0.4"] == pytest.approx(103 / 255, abs=1e-6), "rounded to eight bits"


def test_from_the_published_neighbours_our_rule_makes_the_published_examples(published):
    folder = data.find_root() / "invariance" / "linf"
    images, classes = (np.load(folder / f"{name}.npy") for name in ("all_nns", "all_y_nns"))
    known = published["linf 0.3"]
    asked = [
        (query, place)
        for query, label in enumerate(known.clean.labels.tolist())
        for place, cls in enumerate(classes[query])
        if cls in examples.TARGETS[label]
    ]
    query, place = torch.tensor(asked).T
    over = torch.from_numpy(images[query, place]).float().div(255)[:, None]
    targets = torch.from_numpy(classes[query, place]).long()
    made, _ = linf_examples(known.clean.images, over, query, targets, 0.3)
    assert torch.allclose(made, known.images, atol=1e-6)


def test_a_candidate_is_laid_back_to_where_the_training_image_was(digits):
    grid = alignment.Grid(rotations=(-10, 15), shears=(0.2,), scales=(0.9, 1.1), shift=2)
    train = digits.take(torch.arange(100, 160))
    assert artifacts.later(examples.aligned, digits.first(10), train, grid, "cpu").name.startswith("aligned-")
    found = examples.aligned(digits.first(10), train, grid)
    assert found["seconds"].shape == (10,)
    assert (found["seconds"] > 0).all()
    usable = found["distance"] >= 0
    back = examples.laid_back(found["images"], found["map"])[usable]
    wrong = (back - train.images[found["place"][usable]]).abs().flatten(1).mean(1)
    forth = (found["images"][usable] - train.images[found["place"][usable]]).abs().flatten(1).mean(1)
    assert wrong.max() < 0.06, "more than two bilinear interpolations and ink outside the frame"
    assert wrong.mean() < forth.mean() / 3, "hardly nearer than without going back"


def test_typicality_is_the_probability_of_the_label(digits):
    model = models.build("small_cnn", seed=0)
    found = examples.typicality(model, digits.first(600))
    model.eval()
    expected = model(digits.images[:600]).softmax(1)[torch.arange(600), digits.labels[:600]]
    torch.testing.assert_close(found, expected.detach())


def test_the_nearest_image_of_another_class(digits):
    images, others = digits.first(12), digits.take(torch.arange(12, 200))
    found = examples.nearest_of_another_class(images, others)
    gaps = torch.cdist(images.images.flatten(1), others.images.flatten(1))
    gaps[images.labels[:, None] == others.labels] = torch.inf
    assert torch.equal(found["place"], gaps.argmin(1))
    torch.testing.assert_close(found["distance"], gaps.amin(1), atol=1e-4, rtol=0)


def test_brightening_by_a_distance(digits):
    images = 0.5 * digits.images[:4]
    distances = torch.tensor([0.0, 1.0, 5.0, 1000.0])
    made = examples.brightened(images, distances)
    far = (made - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(far[:3], distances[:3], atol=1e-3, rtol=0)
    assert (made >= images).all()
    assert (made[3] == 1).all(), "not as far as white allows"
