"""How far is a test point from the training set, in the features of a network?

Distances to the nearest training points, a two-dimensional embedding of training and test points, and the
divergence of their densities there (BS, section 3.1: equations 2 and 3, Table 1).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from robustutils import artifacts
from robustutils.attacks import evaluation_mode
from robustutils.data import Dataset
from robustutils.speed import device_of

# The least density whose logarithm is taken: far from every point a density is 0 in floating point.
_LEAST_DENSITY = 1e-300
# Points whose variances along their two main axes differ by more than this lie on a line.
_LEAST_VARIANCE = 1e-10


def features(model: nn.Module, images: Tensor, *, drop: int = 1, batch_size: int = 500) -> Tensor:
    """The output of a network without its last ``drop`` layers, flattened: float32 [N, D] on the CPU.

    In evaluation mode and on the model's device. On ``models.madry_mnist`` ``drop=1`` gives the 1024 units after
    their ReLU, ``drop=2`` before it.

    Raises:
        ValueError: the model is not a Sequential or has no more than ``drop`` layers.
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"features are taken from an nn.Sequential, not from a {type(model).__name__}")
    if not 1 <= drop < len(model):
        raise ValueError(f"drop={drop}: of {len(model)} layers at least one is dropped and one is kept")
    device = device_of(model)
    trunk = model[:-drop]
    with evaluation_mode(model), torch.no_grad():
        found = [trunk(x.to(device)).flatten(1).float().cpu() for x in images.split(batch_size)]
    return torch.cat(found)


def neighbour_distances(
    test: Tensor, train: Tensor, ks: Sequence[int], *, block: int = 500
) -> dict[int, Tensor]:
    """Mean l2 distance of each test row [N, D] to its k nearest training rows [M, D], for each k: float64 [N].

    All training rows are compared, ``block`` test rows at a time (BS, equation 2 with p = 2). The squares are
    expanded, ||a - b||^2 = ||a||^2 + ||b||^2 - 2ab, in double precision and about the training rows' mean: a row's
    distance to itself comes out below 1e-6 of its distance to that mean.

    Raises:
        ValueError: a k is below 1 or above M, the widths differ, or a feature is not finite.
    """
    _check_rows(test, train)
    if len(ks) == 0 or min(ks) < 1 or max(ks) > len(train):
        raise ValueError(f"ks={list(ks)}: a number of neighbours is from 1 to the {len(train)} training rows")
    rows = train.to(torch.float64, copy=True)
    centre = rows.mean(0)
    rows -= centre
    squares = torch.linalg.vecdot(rows, rows)
    nearest = []
    for some in test.split(block):
        part = some.double() - centre
        # ||a||^2 does not change the order and is added to the chosen ones only
        apart = torch.addmm(squares, part, rows.T, alpha=-2)
        least = apart.topk(max(ks), largest=False).values
        nearest.append((least + part.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_())
    distances = torch.cat(nearest)
    return {k: distances[:, :k].mean(1) for k in ks}


def normalised_distance(test: Tensor, train: Tensor, *, k: int = 5) -> Tensor:
    """Mean distance to the k nearest training rows in standardised features, over sqrt(features): float64 [N].

    Each feature gets mean 0 and variance 1 over the training rows; features that are constant there are dropped
    (BS, Table 1).

    Raises:
        ValueError: every feature is constant, or as for :func:`neighbour_distances`.
    """
    _check_rows(test, train)
    kept = train.amax(0) > train.amin(0)
    if not kept.any():
        raise ValueError(f"all {train.shape[1]} features are constant over the {len(train)} training rows")
    rows, moved = (part[:, kept].double() for part in (train, test))
    spread, centre = torch.std_mean(rows, dim=0, correction=0)
    for part in (rows, moved):
        part.sub_(centre).div_(spread)
    return neighbour_distances(moved, rows, [k])[k] / math.sqrt(rows.shape[1])


def _check_rows(test: Tensor, train: Tensor) -> None:
    if test.ndim != 2 or train.ndim != 2 or test.shape[1] != train.shape[1]:
        raise ValueError(
            f"test and training rows need one width, got {list(test.shape)} and {list(train.shape)}"
        )
    if len(train) == 0:
        raise ValueError("there is no training row")
    for name, rows in (("test", test), ("training", train)):
        if not rows.isfinite().all():
            raise ValueError(f"the {name} rows have values that are not finite")


def embed(
    train: Tensor,
    test: Tensor,
    *,
    seed: int,
    perplexity: float = 30.0,
    components: int = 50,
    dimension: int = 2,
) -> tuple[Tensor, Tensor]:
    """t-SNE of training [M, D] and test rows [N, D] together: float32 [M, dimension] and [N, dimension], kept in the cache.

    The rows are first projected on their ``components`` main axes, or as many as there are.

    Raises:
        ValueError: ``perplexity`` is not below the number of rows, fewer than two components are asked for or
            there, all rows are the same, or the widths differ.
    """
    _check_rows(test, train)
    count = len(train) + len(test)
    if not 0 < perplexity < count or min(components, train.shape[1]) < 2:
        raise ValueError(
            f"perplexity={perplexity} must be positive and below the number of rows, {count}, and two components be "
            f"there, got components={components} and rows of {train.shape[1]}"
        )
    rows = torch.cat([train, test]).cpu()
    points = artifacts.kept(_embed, rows, seed, float(perplexity), components, dimension)
    return points[: len(train)], points[len(train) :]


def _embed(rows: Tensor, seed: int, perplexity: float, components: int, dimension: int = 2) -> Tensor:
    from sklearn.manifold import TSNE  # here, because its import takes a second

    if bool((rows == rows[0]).all()):
        raise ValueError(f"all {len(rows)} rows are the same: there is nothing to embed")
    centred = rows.double() - rows.double().mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    projected = centred @ axes[:, : min(components, len(rows))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tsne = TSNE(
            dimension,
            perplexity=perplexity,
            init="pca",
            learning_rate="auto",
            random_state=seed,
            n_jobs=torch.get_num_threads(),
        )
        points = tsne.fit_transform(projected.float().numpy())
    return torch.from_numpy(np.asarray(points, dtype=np.float32))


def divergence(
    train: Tensor,
    test: Tensor,
    train_labels: Tensor,
    test_labels: Tensor,
    *,
    grid: int = 200,
    bandwidth: float = 1.0,
    floor: float = _LEAST_DENSITY,
) -> tuple[float, float, list[int]]:
    """The integral of p_train log(p_train / p_test) over V for points [M, d] and [N, d]; BS, equation 3.

    The mean over classes, truncated, of the densities as they are over V, which can be negative, and renormalised, where
    both sum to one over it; then the classes left out, without a density: fewer than 3 points, or all on a line.

    For each class both densities are Gaussian kernel estimates (``bandwidth`` times Scott's), taken at the centres of
    ``grid`` cells a side of the bounding box V of all points of all classes, and at least ``floor``.

    Raises:
        ValueError: no class has two densities, or the points and labels do not fit together.
    """
    _check_rows(test, train)
    dimension = train.shape[1]
    if not 1 <= dimension <= 3 or grid < 1:
        raise ValueError(f"needs points of 1 to 3 coordinates and grid >= 1, got {dimension}, {grid=}")
    for points, labels in ((train, train_labels), (test, test_labels)):
        if labels.shape != points.shape[:1]:
            raise ValueError(f"{list(labels.shape)} labels do not fit {len(points)} points")
    both = torch.cat([train, test]).double().cpu()
    low, high = both.amin(0), both.amax(0)
    steps = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    cells = torch.cartesian_prod(*[steps] * dimension).view(-1, dimension) * (high - low) + low
    area = float((high - low).prod()) / grid**dimension
    truncated, renormalised, left_out = [], [], []
    for label in torch.cat([train_labels, test_labels]).unique().tolist():
        p = density(train[train_labels == label], cells, bandwidth)
        q = density(test[test_labels == label], cells, bandwidth)
        if p is None or q is None:
            left_out.append(label)
            continue
        truncated.append(area * _relative_entropy(p, q, floor))
        renormalised.append(_relative_entropy(p / p.sum(), q / q.sum(), floor))
    if not truncated:
        raise ValueError(f"none of the classes {left_out} has a density: 3 points or more, not on a line")
    count = len(truncated)
    return sum(truncated) / count, sum(renormalised) / count, left_out


def _relative_entropy(p: Tensor, q: Tensor, floor: float) -> float:
    ratio = p.clamp(min=floor).log() - q.clamp(min=floor).log()
    return float((p * ratio).sum())


def density(points: Tensor, places: Tensor, bandwidth: float = 1.0) -> Tensor | None:
    """Gaussian kernel estimate of the density of ``points`` [n, d] at ``places`` [m, d]: float64 [m].

    The kernel has ``bandwidth`` times Scott's width. None where there is no density: fewer than 3 points, or, in the
    plane, all on a line.
    """
    if len(points) < 3:
        return None
    points, places = points.double().cpu(), places.double().cpu()
    spread = torch.linalg.eigvalsh(torch.atleast_2d((points - points.mean(0)).T.cov()))
    if spread[0] <= _LEAST_VARIANCE * spread[-1]:
        return None
    kernel = stats.gaussian_kde(points.T.numpy())
    if bandwidth != 1:
        kernel.set_bandwidth(kernel.factor * bandwidth)
    return torch.from_numpy(kernel(places.T.numpy()))


def distances(
    model: nn.Module, test: Dataset, train: Dataset, ks: Sequence[int], *, drop: int = 1
) -> dict[str, Tensor]:
    """Distances of test images to training images in a network's features, by the name of their kind: float64 [N].

    ``"5"`` is the mean distance to the 5 nearest for a 5 in ``ks``, ``"normalised"`` :func:`normalised_distance`.
    """
    seen, trained_on = (features(model, part.images, drop=drop) for part in (test, train))
    found = neighbour_distances(seen, trained_on, ks)
    return {str(k): far for k, far in found.items()} | {"normalised": normalised_distance(seen, trained_on)}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "perplexity 10, not 30": {"perplexity": 10.0},
    "perplexity 100": {"perplexity": 100.0},
    "10 principal components, not 50": {"components": 10},
    "embedded on a line": {"dimension": 1},
    "embedded in space, 40 cells a side": {"dimension": 3, "grid": 40},
    "each class embedded by itself": {"apart": True},
    "half of Scott's bandwidth": {"bandwidth": 0.5},
    "twice Scott's bandwidth": {"bandwidth": 2.0},
    "50 cells a side, not 200": {"grid": 50},
    "densities at least 1e-12, not 1e-300": {"floor": 1e-12},
    "densities at least 1e-6": {"floor": 1e-6},
    "a third of the points": {"share": 1 / 3},
}
"""What the paper leaves open about :func:`divergences`: by name, one choice changed at a time."""


def divergences(
    model: nn.Module,
    test: Dataset,
    train: Dataset,
    n: int,
    seed: int,
    *,
    perplexity: float = 30.0,
    components: int = 50,
    dimension: int = 2,
    apart: bool = False,
    bandwidth: float = 1.0,
    grid: int = 200,
    floor: float = _LEAST_DENSITY,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Divergence of test from training points in one embedding of a network's features (BS, Table 1).

    ``n`` test images, or a ``share`` of them, and twice as many training images are drawn by the seed and embedded
    together, all classes in one, or each class ``apart``. ``truncated`` and ``renormalised`` are of the test points,
    ``itself`` is the truncated divergence of one half of the training points from the other, and ``left_out`` holds the
    classes without a density. The other choices are those of :func:`embed` and :func:`divergence`.
    """
    n = int(share * min(n, len(test), len(train) // 2))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(train), generator=generator)[: 2 * n]
    held = test.take(torch.randperm(len(test), generator=generator)[:n])
    mine, others = train.take(drawn[:n]), train.take(drawn[n:])
    seen = features(model, torch.cat([mine.images, others.images]))
    parts = [*seen.split(n), features(model, held.images)]
    labels = [part.labels for part in (mine, others, held)]
    groups = mine.labels.unique().tolist() if apart else [None]
    found: dict[str, list[float]] = {"truncated": [], "renormalised": [], "itself": []}
    left_out: list[int] = []
    for group in groups:
        rows = [part if group is None else part[of == group] for part, of in zip(parts, labels, strict=True)]
        known = [of if group is None else of[of == group] for of in labels]
        if min(map(len, rows)) < 3:
            left_out.append(int(group or 0))
            continue
        together, far = embed(
            torch.cat(rows[:2]),
            rows[2],
            seed=seed,
            perplexity=min(perplexity, len(rows[2]) / 4),
            components=components,
            dimension=dimension,
        )
        near, others_near = together[: len(rows[0])], together[len(rows[0]) :]
        how = {"grid": grid, "bandwidth": bandwidth, "floor": floor}
        *ours, without = divergence(near, far, known[0], known[2], **how)  # type: ignore[arg-type]
        itself, *_ = divergence(near, others_near, known[0], known[1], **how)  # type: ignore[arg-type]
        for kind, value in zip(found, (*ours, itself), strict=True):
            found[kind].append(value)
        left_out += without
    means = {
        kind: torch.tensor(values, dtype=torch.float64).mean(0, keepdim=True)
        for kind, values in found.items()
    }
    return means | {"left_out": torch.tensor(left_out, dtype=torch.int64)}
