"""Distances, embeddings and densities against scikit-learn, scipy and cases whose answer is known."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import nn

from robustutils import models
from robustutils.artifacts import later
from robustutils.papers.blind_spot.feature_distance import (
    VARIANTS,
    density,
    distances,
    divergence,
    divergences,
    embed,
    features,
    neighbour_distances,
    normalised_distance,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- features ----


def test_features_are_the_units_after_the_relu_or_before_it():
    torch.manual_seed(0)
    net = models.madry_mnist()
    images = torch.rand(7, 1, 28, 28)
    before, after = features(net, images, drop=2), features(net, images)
    assert before.shape == after.shape == (7, 1024)
    assert before.dtype == after.dtype == torch.float32
    assert (before < 0).any(), "drop=2 stops before the ReLU"
    torch.testing.assert_close(after, before.relu(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(net[-1](after), net(images))


def test_features_are_flat_and_do_not_depend_on_the_batch_size(tiny_data, tiny_net):
    net = tiny_net()
    whole = features(net, tiny_data.images, drop=2)
    assert whole.shape == (50, 4 * 36)
    maps = features(net, tiny_data.images, drop=4)
    assert maps.shape == (50, 4 * 36), "feature maps are flattened"
    torch.testing.assert_close(features(net, tiny_data.images, drop=2, batch_size=7), whole)


def test_features_are_taken_in_evaluation_mode_without_gradients_and_leave_the_mode(tiny_data, tiny_net):
    net = tiny_net(dropout=0.9).train()
    found = features(net, tiny_data.images)
    torch.testing.assert_close(found, features(net.eval(), tiny_data.images))
    assert not found.requires_grad
    net.train()
    features(net, tiny_data.images)
    assert all(part.training for part in net.modules()), "training mode is restored"


@pytest.mark.parametrize("drop", [-1, 0, 5, 6])
def test_a_network_must_have_more_layers_than_are_dropped(drop, tiny_data, tiny_net):
    with pytest.raises(ValueError, match=f"drop={drop}.* 5 layers"):
        features(tiny_net(), tiny_data.images, drop=drop)


def test_a_network_that_is_no_sequential_is_refused(tiny_data):
    with pytest.raises(ValueError, match="Linear"):
        features(nn.Linear(64, 3), tiny_data.images)


# ---- distances ----


@pytest.mark.parametrize("block", [7, 60, 500])
def test_neighbour_distances_equal_scikit_learns(block):
    test, train = normal(60, 20, seed=1), normal(300, 20, seed=2)
    found = neighbour_distances(test, train, [5, 1, 300, 50], block=block)
    assert list(found) == [5, 1, 300, 50]
    theirs, _ = (
        NearestNeighbors(n_neighbors=300).fit(train.double().numpy()).kneighbors(test.double().numpy())
    )
    for k, means in found.items():
        assert means.shape == (60,)
        np.testing.assert_allclose(means, theirs[:, :k].mean(1), rtol=1e-9, err_msg=f"k={k}")


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_training_point_is_at_no_distance_from_itself(offset):
    train = normal(200, 64) + offset
    train[100:] = train[:100] + 1e-2  # neighbours at 0.08, which single precision confuses at an offset
    found = neighbour_distances(train[:50], train, [1, 2])
    norms = (train[:50] - train.mean(0)).norm(dim=1)
    assert (found[1] / norms < 1e-6).all()
    exact = (train[100:150].double() - train[:50].double()).norm(dim=1) / 2
    np.testing.assert_allclose(found[2], exact, rtol=1e-3)


def test_no_test_row_gives_no_distance():
    assert neighbour_distances(torch.zeros(0, 3), normal(5, 3), [2])[2].shape == (0,)


@pytest.mark.parametrize("ks", [[0], [-1, 3], [3, 11], []])
def test_an_impossible_number_of_neighbours_is_refused_with_the_size(ks):
    with pytest.raises(ValueError, match=r"ks=\[.* 10 ") as caught:
        neighbour_distances(normal(4, 3), normal(10, 3), ks)
    assert str(list(ks)) in str(caught.value)


def test_other_widths_are_refused():
    for measure in (lambda a, b: neighbour_distances(a, b, [1]), lambda a, b: normalised_distance(a, b, k=1)):
        with pytest.raises(ValueError, match=r"\[4, 3\] and \[10, 2\]"):
            measure(normal(4, 3), normal(10, 2))


def test_values_that_are_not_finite_are_refused_on_either_side():
    good, bad = normal(10, 3), normal(10, 3)
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"test .*not finite"):
        neighbour_distances(bad, good, [1])
    with pytest.raises(ValueError, match=r"training .*not finite"):
        neighbour_distances(good, bad, [1])


def test_the_normalised_distance_is_that_of_standardised_features():
    train = normal(200, 6, seed=3) * torch.tensor([1.0, 2.0, 0.01, 50.0, 1.0, 1.0]) + 3
    test = normal(40, 6, seed=4) * 2
    train[:, 4] = 0.1  # constant, not exactly representable, and not constant over the test rows
    kept = [0, 1, 2, 3, 5]
    scaler = StandardScaler().fit(train[:, kept].double().numpy())
    nearest = NearestNeighbors(n_neighbors=5).fit(scaler.transform(train[:, kept].double().numpy()))
    theirs, _ = nearest.kneighbors(scaler.transform(test[:, kept].double().numpy()))
    np.testing.assert_allclose(
        normalised_distance(test, train), theirs.mean(1) / math.sqrt(5), rtol=1e-6, err_msg="5 features of 6"
    )
    np.testing.assert_allclose(
        normalised_distance(test, train, k=2), theirs[:, :2].mean(1) / math.sqrt(5), rtol=1e-6
    )


def test_the_normalised_distance_does_not_depend_on_units():
    train, test = normal(100, 5, seed=5), normal(20, 5, seed=6)
    scale, shift = torch.tensor([1e-3, 1.0, 7.0, 100.0, 0.5]), torch.tensor([0.0, 1.0, -2.0, 30.0, 0.0])
    found = normalised_distance(test * scale + shift, train * scale + shift)
    np.testing.assert_allclose(found, normalised_distance(test, train), rtol=1e-4)


def test_constant_features_alone_are_refused():
    with pytest.raises(ValueError, match=r"all 3 features.* 10"):
        normalised_distance(normal(4, 3), torch.full((10, 3), 0.1))


# ---- embedding ----


def clusters(count: int, seed: int) -> torch.Tensor:
    """Rows of 60 features around two centres in turn."""
    return normal(count, 60, seed=seed) + 20 * (torch.arange(count) % 2)[:, None]


def test_an_embedding_keeps_clusters_together_and_apart_and_is_cached(cache):
    train, test = clusters(50, 1), clusters(30, 2)
    ours, theirs = embed(train, test, seed=0, perplexity=10)
    assert ours.shape == (50, 2)
    assert theirs.shape == (30, 2)
    assert ours.dtype == torch.float32
    centres = torch.stack([ours[0::2].mean(0), ours[1::2].mean(0)])
    nearer = torch.cdist(theirs, centres).argmin(1)
    assert nearer.tolist() == [0, 1] * 15, "test rows lie with the training rows of their cluster"
    (kept,) = cache.glob("embed-*.safetensors")
    written = kept.stat().st_mtime_ns
    again = embed(train, test, seed=0, perplexity=10)
    assert torch.equal(again[0], ours)
    assert torch.equal(again[1], theirs)
    assert kept.stat().st_mtime_ns == written, "the second call reads the cache"
    kept.unlink()
    assert torch.equal(embed(train, test, seed=0, perplexity=10)[1], theirs), "the same seed, the same points"


def test_what_an_embedding_depends_on_is_in_its_key(monkeypatch, cache):
    seen = []

    def fit(self: TSNE, rows: np.ndarray) -> np.ndarray:
        warnings.warn("t-SNE warns", stacklevel=1)
        seen.append((rows.shape, self.random_state, self.perplexity, self.init))
        return np.zeros((len(rows), 2))

    monkeypatch.setattr(TSNE, "fit_transform", fit)
    train, test = clusters(50, 1), clusters(30, 2)
    embed(train, test, seed=0)  # its warning does not escape: warnings are errors here
    embed(train, test, seed=0)
    embed(train, test, seed=1)
    embed(train, test, seed=0, perplexity=5)
    embed(train, test, seed=0, components=3)
    embed(train, clusters(30, 3), seed=0)
    embed(train[:20], test[:10], seed=0, perplexity=5)
    assert seen == [
        ((80, 50), 0, 30.0, "pca"),
        ((80, 50), 1, 30.0, "pca"),
        ((80, 50), 0, 5, "pca"),
        ((80, 3), 0, 30.0, "pca"),
        ((80, 50), 0, 30.0, "pca"),
        ((30, 30), 0, 5, "pca"),
    ]
    assert len(list(cache.glob("embed-*.safetensors"))) == 6


def test_the_main_axes_come_first(monkeypatch):
    seen = []
    monkeypatch.setattr(
        TSNE, "fit_transform", lambda self, rows: seen.append(rows) or np.zeros((len(rows), 2))
    )
    rows = normal(80, 6) * torch.tensor([0.1, 5.0, 0.2, 1.0, 0.1, 0.1]) + 7
    embed(rows[:50], rows[50:], seed=0, components=2)
    projected = seen[0]
    centred = (rows - rows.mean(0)).double().numpy()
    main = np.linalg.svd(centred)[1][:2]
    np.testing.assert_allclose(np.linalg.norm(projected, axis=0), main, rtol=1e-5)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (clusters(20, 1), {}, "perplexity=30.0.* 30"),
        (clusters(20, 1), {"perplexity": 30}, "perplexity=30 "),
        (clusters(20, 1), {"perplexity": 0}, "perplexity=0 "),
        (clusters(20, 1), {"perplexity": 5, "components": 1}, "components=1 .* 60"),
        (clusters(20, 1)[:, :1], {"perplexity": 5}, "rows of 1"),
        (torch.ones(20, 4), {"perplexity": 5}, "all 30 rows"),
    ],
)
def test_what_cannot_be_embedded_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        embed(rows, rows[:10], seed=0, **options)


# ---- densities ----


@pytest.mark.parametrize("count", [3, 40, 500])
def test_densities_equal_scipys(count):
    mix = torch.tensor([[3.0, 0.0], [2.5, 0.4]])
    points = normal(count, 2, seed=count) @ mix + torch.tensor([10.0, -4.0])
    places = torch.cat([points[:20], normal(80, 2) * 8 + torch.tensor([10.0, -4.0]), 1e3 * torch.ones(2, 2)])
    ours = density(points, places)
    theirs = gaussian_kde(points.double().numpy().T)(places.double().numpy().T)
    assert ours is not None
    assert theirs[: min(count, 20)].min() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-250)
    assert ours[-1] == 0, "nothing is left far away"


@pytest.mark.parametrize(
    "points",
    [
        torch.zeros(0, 2),
        normal(2, 2),
        torch.ones(10, 2),
        torch.arange(10.0)[:, None] * torch.tensor([1.0, 0.1]) + 5,
        torch.arange(10.0)[:, None] * torch.tensor([0.0, 1.0]),
    ],
    ids=["none", "two", "one place", "oblique line", "vertical line"],
)
def test_points_without_an_area_have_no_density(points):
    assert density(points, normal(5, 2)) is None


# ---- divergence ----


def reference(train, test, train_labels, test_labels, grid):
    """Equation 3 with scipy's density: the truncated and the renormalised mean."""
    both = torch.cat([train, test]).double().numpy()
    low, high = both.min(0), both.max(0)
    x, y = ((np.arange(grid) + 0.5) / grid * (high[i] - low[i]) + low[i] for i in (0, 1))
    cells = np.stack([axis.ravel() for axis in np.meshgrid(x, y)])
    area = (high - low).prod() / grid**2
    truncated, renormalised = [], []
    for label in np.unique(train_labels):
        p = gaussian_kde(train[train_labels == label].double().numpy().T)(cells)
        q = gaussian_kde(test[test_labels == label].double().numpy().T)(cells)
        truncated.append((p * np.log(p / q)).sum() * area)
        renormalised.append((p / p.sum() * np.log(p / p.sum() / (q / q.sum()))).sum())
    return np.mean(truncated), np.mean(renormalised)


def test_the_divergence_is_equation_3_with_scipys_densities():
    train_labels, test_labels = torch.arange(300) % 3, torch.arange(120) % 3
    train = normal(300, 2, seed=1) * 3 + train_labels[:, None] * 4
    test = normal(120, 2, seed=2) * 2.5 + test_labels[:, None] * 4
    found = divergence(train, test, train_labels, test_labels, grid=40)
    expected = reference(train, test, train_labels, test_labels, 40)
    assert found[2] == []
    assert found[:2] == pytest.approx(expected, rel=1e-6)
    assert found[1] != pytest.approx(found[0], rel=1e-3)


def test_it_approaches_the_divergence_of_two_normal_distributions():
    labels = torch.zeros(4000, dtype=torch.int64)
    train, test = normal(4000, 2, seed=1), normal(4000, 2, seed=2) * 2
    closed = math.log(4) + 1 / 4 - 1  # between N(0, I) and N(0, 4 I) in the plane
    found = divergence(train, test, labels, labels, grid=60)
    assert found[0] == pytest.approx(closed, rel=0.1)
    backward = divergence(test, train, labels, labels, grid=60)
    assert backward[0] > 1.5 * closed, "the divergence is of test from training density, not the reverse"


@given(seed=st.integers(0, 2**32), count=st.integers(3, 30), spread=st.floats(0.1, 10))
@settings(max_examples=25)
def test_the_renormalised_value_is_never_negative(seed, count, spread):
    train, test = normal(20, 2, seed=seed), normal(count, 2, seed=seed + 1) * spread
    found = divergence(train, test, torch.zeros(20), torch.zeros(count), grid=15)
    assert found[1] >= -1e-12
    assert math.isfinite(found[0])


def test_the_truncated_value_can_be_negative():
    # Both are spread evenly over the box, but the fewer training points have the wider density: more of its mass
    # lies outside.
    few, many = torch.linspace(0, 1, 4), torch.linspace(0, 1, 30)
    train, test = torch.cartesian_prod(few, few), torch.cartesian_prod(many, many)
    found = divergence(train, test, torch.zeros(16), torch.zeros(900), grid=50)
    assert found[0] < -0.1
    assert 0 < found[1] < 0.1


def test_the_same_points_have_no_divergence_and_far_points_a_finite_one():
    labels = torch.arange(60) % 2
    points = normal(60, 2)
    same = divergence(points, points, labels, labels, grid=30)
    assert same[:2] == (0, 0)
    apart = divergence(points, points + 1000, labels, labels, grid=500)
    assert 100 < apart[1] < 1000, "where the test density underflows, its logarithm is bounded"


def test_classes_without_a_density_are_left_out_and_named():
    train, test = normal(60, 2, seed=1), normal(60, 2, seed=2)
    labels = torch.arange(60) // 10
    train_labels, test_labels = labels.clone(), labels.clone()
    train_labels[10:18] = 0  # class 1 keeps two training points
    test_labels[20:29] = 0  # class 2 one test point
    train[labels == 3] = 1.0  # class 3 lies in one place
    test_labels[40:50] = 7  # class 4 has no test point, class 7 no training point
    *values, left_out = divergence(train, test, train_labels, test_labels, grid=20)
    assert left_out == [1, 2, 3, 4, 7]
    for labels, other in ((train_labels, 8), (test_labels, 9)):
        labels[~torch.isin(labels, torch.tensor([0, 5]))] = other
    assert divergence(train, test, train_labels, test_labels, grid=20) == (*values, [8, 9])


def test_no_class_with_a_density_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\] has a density"):
        divergence(normal(4, 2), normal(4, 2), torch.arange(4) % 2, torch.arange(4) % 2)


@pytest.mark.parametrize(
    ("width", "labels", "grid", "message"),
    [(4, 10, 20, "coordinates.* 4"), (2, 9, 20, r"\[9\] labels.* 10 points"), (2, 10, 0, "grid=0")],
)
def test_points_off_the_plane_and_labels_that_do_not_fit_are_refused(width, labels, grid, message):
    points = normal(10, width)
    with pytest.raises(ValueError, match=message):
        divergence(points, points, torch.zeros(10), torch.zeros(labels), grid=grid)


# ---- of a network and two data sets ----


def test_distances_of_images_are_those_of_their_features(tiny_data, tiny_net):
    net, test, train = tiny_net(), tiny_data.first(10), tiny_data.take(torch.arange(10, 50))
    found = distances(net, test, train, [1, 5], drop=2)
    seen, near = (features(net, part.images, drop=2) for part in (test, train))
    expected = neighbour_distances(seen, near, [1, 5])
    assert found.keys() == {"1", "5", "normalised"}
    for k in (1, 5):
        torch.testing.assert_close(found[str(k)], expected[k])
    torch.testing.assert_close(found["normalised"], normalised_distance(seen, near))


def test_divergences_are_of_the_test_set_and_of_one_half_of_the_training_set(digits, digits_net):
    test, train = digits.first(150), digits.take(torch.arange(len(digits) - 200, len(digits)))
    found = divergences(digits_net, test, train, 80, 0)
    assert found.keys() == {"truncated", "renormalised", "itself", "left_out"}
    assert found["renormalised"].item() > 0
    again = divergences(digits_net, test, train, 80, 0)
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert divergences(digits_net, test, train, 80, 1)["truncated"] != found["truncated"]


@pytest.fixture(scope="module")
def usual(digits, digits_net):
    """What a divergence is taken of, and the divergences by the rule."""
    where = (digits_net, digits.first(150), digits.take(torch.arange(len(digits) - 300, len(digits))), 150, 0)
    return where, divergences(*where)


@pytest.mark.parametrize("changed", list(VARIANTS)[1:])
def test_each_choice_that_the_paper_leaves_open_moves_the_divergence(changed, usual):
    where, usual = usual
    found = divergences(*where, **VARIANTS[changed])
    assert found.keys() == usual.keys()
    assert all(torch.isfinite(found[kind]).all() for kind in found)
    assert found["renormalised"].item() >= 0
    assert found["truncated"].item() != usual["truncated"].item()


def test_a_variant_that_changes_nothing_has_the_name_of_the_rule(digits, digits_net):
    where = (digits_net, digits.first(50), digits.first(100), 50, 0)
    names = {later(divergences, *where, **choices).name for choices in VARIANTS.values()}
    assert later(divergences, *where).name == later(divergences, *where, **VARIANTS["nothing"]).name
    assert len(names) == len(VARIANTS)


def test_a_density_has_the_bandwidth_it_is_told():
    points, places = normal(50, 2, seed=1), normal(20, 2, seed=2)
    kernel = gaussian_kde(points.double().numpy().T)
    kernel.set_bandwidth(2 * kernel.factor)
    assert density(points, places, 2.0).numpy() == pytest.approx(kernel(places.double().numpy().T))


def test_a_density_on_a_line_has_one_coordinate():
    found = density(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [9.0]]))
    assert found[0] > found[1]
    assert density(torch.ones(3, 1), torch.ones(1, 1)) is None
