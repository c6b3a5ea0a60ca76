"""Invariance examples: a small change, another class for people, the same one for the model (INV, sections 4 and 5).

An image is drawn towards one of another class that has been laid over it. In l0 whole strokes are exchanged: the pixels in
which the two differ fall into clusters, and some of the clusters are taken over. In linf every pixel goes part of the way.
Images are float32 [N, 1, 28, 28] in [0, 1].
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, product
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import DBSCAN, SpectralClustering
from torch import Tensor, nn

from robustutils import data
from robustutils.attacks import evaluation_mode
from robustutils.data import Dataset, require, verify
from robustutils.papers.invariance.alignment import Grid, search, turning, warped
from robustutils.speed import device_of

MOST_CLUSTERS = 12
"""Of more clusters the largest so many are used: 4,095 ways to choose among them."""
TARGETS: Mapping[int, Sequence[int]] = {
    0: (4, 6, 8, 9), 1: (4, 6, 7, 9), 2: (8,), 3: (8,), 4: (8, 9), 5: (3, 8), 6: (0,), 7: (2, 3), 8: (3,), 9: (3, 4, 5),
}  # fmt: skip
"""The classes that the authors' linf attack draws an image of each class towards."""
_SHIFTS = (-3.0, -1.5, 0.0, 1.5, 3.0)
VIEWS = tuple(product(_SHIFTS, _SHIFTS, map(float, range(-30, 31, 2))))
"""Its grid: shifts along rows and columns in pixels, and rotations in degrees."""
_PUBLISHED = {
    "l0": ("l0/automated", "indexs"),
    "linf 0.3": ("linf/automated_eps03", "indexs"),
    "linf 0.4": ("linf/automated_eps04", "indexs"),
    "by hand": ("linf/manual_eps04", "linf/manual_indexs"),
}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Examples that people have labelled: ``images`` made from ``clean`` test images, whose labels are the original ones.

    ``human`` are the labels that people gave, int64 [N]; ``places`` those of the originals in the test set.
    """

    images: Tensor
    human: Tensor
    clean: Dataset
    places: Tensor

    @property
    def changed(self) -> Tensor:
        """Where people see another class than the original one: bool [N]."""
        return self.human != self.clean.labels


def published(root: str | Path | None = None) -> dict[str, Labelled]:
    """The examples of the authors' study by set: 100 each in l0 and in linf at 0.3 and 0.4, 50 made by hand at 0.4.

    Raises:
        robustutils.data.DataError: they or MNIST are absent or damaged; the message says how to get them.
    """
    folder = data.find_root(root)
    require("invariance", folder)
    verify("invariance", folder)
    test = data.load("mnist", "test", root=root)
    found = {}
    for name, (file, places) in _PUBLISHED.items():
        arrays = [
            np.load(folder / "invariance" / "invariance_examples" / f"{part}.npy", allow_pickle=False)
            for part in (file, f"{file}_labels", places)
        ]
        images, human, where = (torch.from_numpy(array) for array in arrays)
        found[name] = Labelled(images.float().div(255)[:, None], human.long(), test.take(where), where)
    return found


# ---- l0: which strokes? ----


def aligned(queries: Dataset, train: Dataset, grid: Grid, device: str = "cpu") -> dict[str, Tensor]:
    """:func:`.alignment.search` for a data set, with the ``seconds`` a query that it took, float64 [Q]."""
    start = time.perf_counter()
    found = search(queries.images, queries.labels, train, grid, device=device)
    each = (time.perf_counter() - start) / len(queries)
    return found | {"seconds": torch.full((len(queries),), each, dtype=torch.float64)}


def laid_back(images: Tensor, maps: Tensor) -> Tensor:
    """Images in a query's frame, mapped to where the training image lay: like ``images``, bilinearly.

    ``maps`` are those of :func:`.alignment.search`, float32 [N, 5]: rotation in degrees, shear, scale, pixels
    down and to the right.
    """
    angle, shear, scale, down, right = maps.double().T
    sheared = torch.stack([torch.stack([scale, scale * shear], 1), torch.stack([0 * scale, scale], 1)], 1)
    offset = torch.stack([right, down], 1)[..., None] * (2 / images.shape[-1])
    return warped(images, torch.cat([turning(angle.deg2rad()) @ sheared, offset], 2).float())


def typicality(model: nn.Module, dataset: Dataset) -> Tensor:
    """How sure a model is of the label of each image, [N]: its probability of that class (INV, appendix on l0)."""
    device = device_of(model)
    with evaluation_mode(model), torch.no_grad():
        sure = torch.cat([model(x.to(device)).softmax(1).cpu() for x in dataset.images.split(500)])
    return sure.gather(1, dataset.labels[:, None]).squeeze(1)


def clusters(mask: Tensor, *, method: str = "dbscan") -> list[Tensor]:
    """The connected groups of pixels of a mask, bool [28, 28], largest first: a list of such masks.

    ``dbscan`` is the authors' code: a radius of 2 pixels, 5 of them at least, and what belongs to no group is left out.
    ``spectral`` is their text: every pixel belongs to one of as many groups as DBSCAN finds.

    Raises:
        ValueError: an unknown method.
    """
    if method not in ("dbscan", "spectral"):
        raise ValueError(f"method={method!r}: a mask is clustered by 'dbscan' or 'spectral'")
    pixels = mask.nonzero().numpy()
    if not len(pixels):
        return []
    groups = DBSCAN(eps=2, min_samples=5).fit_predict(pixels)
    count = groups.max() + 1
    if method == "spectral" and count > 1:
        groups = SpectralClustering(count, gamma=0.1, random_state=0).fit_predict(pixels)
    labels = torch.full(mask.shape, -1)
    labels[mask] = torch.from_numpy(groups).long()
    return sorted((labels == group for group in range(count)), key=lambda one: -int(one.sum()))


@dataclass(frozen=True, eq=False)
class Candidates:
    """All ways to take over some clusters, for several queries one after the other.

    Attributes:
        images: the candidates, float32 [M, 1, 28, 28].
        query: which query each belongs to, int64 [M], ascending.
        pixels: how many pixels each exchanges, int64 [M].
        clusters: how many clusters each query has, int64 [Q]; with none a query has no candidate.
    """

    images: Tensor
    query: Tensor
    pixels: Tensor
    clusters: Tensor

    def best(self, scores: Tensor) -> Tensor:
        """The place of each query's candidate with the lowest score, int64 [Q]; -1 for a query without a finite one."""
        found = torch.full((len(self.clusters),), -1)
        for query in self.query[scores.isfinite()].unique().tolist():
            places = (self.query == query).nonzero().squeeze(1)
            found[query] = places[scores[places].argmin()]
        return found

    def taken(self, x: Tensor, places: Tensor) -> Tensor:
        """The candidates at some places, as :meth:`best` gives them; at -1 the query itself, of ``x``, like ``x``."""
        made = x.clone()
        made[places >= 0] = self.images[places[places >= 0]]
        return made

    def whole(self) -> Tensor:
        """The place of each query's candidate that takes over all clusters, int64 [Q]; -1 for a query without any."""
        return self.best(-self.pixels.double())


def candidates(x: Tensor, targets: Tensor, *, method: str = "dbscan") -> Candidates:
    """Every non-empty choice of the clusters in which images and the targets laid over them differ by more than 0.5.

    A candidate is the target inside the chosen clusters and the image everywhere else. Of more than
    ``MOST_CLUSTERS`` the largest are used; :attr:`Candidates.clusters` tells their true number.
    """
    images, query, pixels, counts = [x[:0]], [], [], []
    for place, (image, target) in enumerate(zip(x, targets, strict=True)):
        groups = clusters(((image - target).abs() > 0.5)[0], method=method)
        counts.append(len(groups))
        used = groups[:MOST_CLUSTERS]
        for choice in product((False, True), repeat=len(used)):
            if any(choice):
                inside = torch.stack(list(compress(used, choice))).any(0)
                images.append(torch.where(inside, target, image)[None])
                query.append(place)
                pixels.append(int(inside.sum()))
    numbers = (torch.tensor(values, dtype=torch.int64) for values in (query, pixels, counts))
    return Candidates(torch.cat(images), *numbers)


def differing(x: Tensor, made: Tensor) -> Tensor:
    """How many pixels of binarised images differ: int64 [N]."""
    return ((x > 0.5) ^ (made > 0.5)).flatten(1).sum(1)


# ---- linf: how far? ----


def interpolated(x: Tensor, targets: Tensor, eps: float) -> Tensor:
    """Images drawn towards targets by at most ``eps`` a pixel: like ``x``.

    A pixel that would arrive becomes the target's where there is ink, others go ``eps`` of the way. So a black pixel whose
    target is at most ``eps`` stays black, as in the authors' code.

    Raises:
        ValueError: ``eps`` is not within [0, 1].
    """
    if not 0 <= eps <= 1:
        raise ValueError(f"eps={eps}: a linf radius for pixels in [0, 1] must lie in [0, 1]")
    gap = targets - x
    near = torch.where(x > 0, targets, x)
    return torch.where(gap.abs() <= eps, near, x + eps * gap.sign()).clamp(0, 1)


def removed_ink(x: Tensor, made: Tensor) -> Tensor:
    """How much ink an image has lost, [N]; with the images exchanged, how much it has gained."""
    return (x - made).clamp_min(0).flatten(1).sum(1)


def moved(images: Tensor, rows: Tensor, columns: Tensor, degrees: Tensor, *, back: bool = False) -> Tensor:
    """Images rotated about their centre and then shifted by so many pixels, [N] each, bilinearly; ``back`` undoes it."""
    turn = turning(-torch.deg2rad(degrees.float()))
    shift = torch.stack([columns, rows], 1)[..., None].float() * (2 / images.shape[-1])
    matrix, offset = (turn.mT, shift) if back else (turn, -(turn @ shift))
    return warped(images, torch.cat([matrix, offset], 2))


def nearest_targets(
    x: Tensor,
    labels: Tensor,
    train: Dataset,
    *,
    targets: Mapping[int, Sequence[int]] = TARGETS,
    batch_size: int = 8,
) -> dict[str, Tensor]:
    """For each image and target class the training image that is nearest in l2 to one of its views (INV, appendix on linf).

    The views are those of the authors' grid, 775 shifts and rotations of the image.

    Returns:
        ``place`` in the training set and ``view``, of :data:`VIEWS`, and for each the ``query`` and the ``target`` class:
        int64 [M]. A query whose target classes have no training image has none.
    """
    rows, columns, degrees = torch.tensor(VIEWS).T
    count = len(VIEWS)
    found: list[list[Tensor]] = []
    for cls in sorted({t for row in targets.values() for t in row}):
        pool = (train.labels == cls).nonzero().squeeze(1)
        asked = [row for row, label in enumerate(labels.tolist()) if cls in targets.get(label, ())]
        if not len(pool):
            continue
        flat = train.images[pool].flatten(1)
        norms = flat.square().sum(1)
        for start in range(0, len(asked), batch_size):
            some = asked[start : start + batch_size]
            grid = [part.repeat(len(some)) for part in (rows, columns, degrees)]
            views = moved(x[some].repeat_interleave(count, 0), *grid, back=True).flatten(1)
            gaps, places = (norms - 2 * views @ flat.T + views.square().sum(1, keepdim=True)).min(1)
            view = gaps.view(len(some), count).argmin(1)
            chosen = places.view(len(some), count).gather(1, view[:, None]).squeeze(1)
            found.append([pool[chosen], view, torch.tensor(some), torch.full_like(view, cls)])
    columns = map(torch.cat, zip(*found, strict=True)) if found else torch.zeros(4, 0, dtype=torch.int64)
    return dict(zip(("place", "view", "query", "target"), columns, strict=True))


def laid_over(train: Dataset, found: Mapping[str, Tensor]) -> Tensor:
    """The training images of :func:`nearest_targets`, each moved back by its view: [M, 1, 28, 28], over their queries."""
    if not len(found["place"]):  # affine_grid takes none
        return train.images[:0]
    return moved(train.images[found["place"]], *torch.tensor(VIEWS)[found["view"]].T)


def linf_examples(
    x: Tensor, images: Tensor, query: Tensor, target: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The linf examples: each image drawn towards that of its targets for which the least ink is removed.

    Args:
        x: float32 [N, 1, 28, 28].
        images, query, target: targets laid over their queries, [M, 1, 28, 28], the place of each query in ``x`` and the
            class, int64 [M].
        eps: radius.

    Returns:
        The examples, like ``x``, and their target classes, int64 [N]; an image without a target stays as it is, and its
        class is -1.
    """
    tried = interpolated(x[query], images, eps)
    ink = removed_ink(x[query], tried)
    made, classes = x.clone(), torch.full((len(x),), -1)
    for row in query.unique().tolist():
        places = (query == row).nonzero().squeeze(1)
        best = places[ink[places].argmin()]
        made[row], classes[row] = tried[best], target[best]
    return made, classes


# ---- l2, on photographs ----


def nearest_of_another_class(images: Dataset, others: Dataset) -> dict[str, Tensor]:
    """For each image the ``place`` of the nearest other one of another class, int64 [N], and its l2 ``distance``, [N]."""
    flat = others.images.flatten(1)
    norms = flat.square().sum(1)
    places = []
    for x, y in zip(images.images.flatten(1).split(50), images.labels.split(50), strict=True):
        gaps = norms - 2 * x @ flat.T
        places.append(gaps.masked_fill(y[:, None] == others.labels, torch.inf).argmin(1))
    place = torch.cat(places)
    return {"place": place, "distance": (images.images - others.images[place]).flatten(1).norm(dim=1)}


def brightened(images: Tensor, distances: Tensor) -> Tensor:
    """Images [N, C, H, W] made brighter by an l2 distance each, [N], as far as white allows."""
    low, high = torch.zeros(len(images)), torch.ones(len(images))
    for _ in range(30):
        middle = (low + high) / 2
        made = (images + middle.view(-1, 1, 1, 1)).clamp_max(1)
        short = (made - images).flatten(1).norm(dim=1) < distances
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return made
