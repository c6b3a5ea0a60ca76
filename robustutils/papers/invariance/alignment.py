"""Exact search for the training image of another class that an affine map brings nearest to a query (INV, section 4.1).

Distances are counted in the query's frame: the pixels in which the query and the mapped training image, both binarised
at 1/2, differ. :func:`search` tries every map of a :class:`Grid` on every training image of another label and returns
what counting every distance would. Three facts spare it nearly all of the work:

- One canvas, the frame with a margin as wide as the largest shift, serves all shifts: shifting the image by whole pixels
  is shifting the query on the canvas.
- With t the canvas, q the shifted query and P orthonormal directions, the pixels that both have, <t, q>, are at most
  ``<Pt, Pq> + norm(t - Pt) norm(q - Pq)``, by Cauchy and Schwarz. One matrix product bounds the distance from below for
  many images, queries and shifts at a time. It is counted only where the bound does not exceed the best one so far.
- A distance is at least the difference of the ink counts; images sorted by theirs are skipped in whole blocks.

Mapped images are rounded to multiples of 1/4080, so that sums of ink are whole numbers without rounding error: what is
admissible and what is nearest does not depend on the size of batches.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustutils.data import Dataset
from robustutils.speed import exact

UNITS = 16 * 255
"""Mapped images are counted in whole units of 1/4080: fine beside 8 bits, and a canvas sums up exactly in float32."""
SLACK = 0.1
"""Pixels by which a bound may exceed the best distance before it prunes; float32 rounding stays below 0.01."""
PILOT = 3000
"""The first good distances are sought among so many images, evenly spaced over the training set."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Affine maps: rotate(shear(scale(image))) about the centre, then a shift by whole pixels.

    Args:
        rotations: degrees; positive ones turn the picture clockwise.
        shears: columns moved to the right for each row down from the centre.
        scales: factors of both sides.
        shift: all shifts of at most so many pixels along each axis.
        keep: share of the mapped image's ink that the shift must leave in the frame. The ink is the sum of the
            real-valued mapped image over the frame with a margin of ``shift`` pixels on each side; what lies outside the
            margin is not counted. An image without ink is never admissible.

    Raises:
        ValueError: names the argument and what is allowed.
    """

    rotations: tuple[float, ...]
    shears: tuple[float, ...]
    scales: tuple[float, ...]
    shift: int
    keep: float = 0.85

    def __post_init__(self) -> None:
        for name in ("rotations", "shears", "scales"):
            values = getattr(self, name)
            if not values or not all(map(math.isfinite, values)) or len(set(values)) < len(values):
                raise ValueError(f"{name}={values}: at least one number, all finite and different")
        if min(self.scales) <= 0 or self.shift < 0 or not 0 <= self.keep <= 1:
            given = f"scales={self.scales}, shift={self.shift}, keep={self.keep}"
            raise ValueError(f"{given}: scales above 0, a shift of at least 0 pixels, a share from 0 to 1")

    def linear_maps(self) -> list[tuple[float, float, float]]:
        """(rotation, shear, scale) of each linear map, the mildest first: by scale, then rotation, then shear."""
        maps = itertools.product(self.rotations, self.shears, self.scales)
        return sorted(maps, key=lambda m: (abs(math.log(m[2])), abs(m[0]), abs(m[1])))

    def shifts(self) -> list[tuple[int, int]]:
        """(pixels down, pixels to the right) of each shift."""
        steps = range(self.shift, -self.shift - 1, -1)
        return list(itertools.product(steps, steps))

    def __str__(self) -> str:
        counts = [len(part) for part in (self.rotations, self.shears, self.scales, self.shifts())]
        rotations, shears, scales, shifts = counts
        return f"{rotations} rotations x {shears} shears x {scales} scales x {shifts} shifts = {math.prod(counts):,} maps"


PAPER_GRID = Grid(
    rotations=(-20, -15, -10, -5, 0, 5, 10, 15, 20),
    shears=(-0.2, 0, 0.2),
    scales=(0.5, 0.75, 1, 1.25, 1.5),
    shift=6,
)
"""The ranges of the paper's appendix: 20 degrees, shears of 20%, scales of 50%, shifts of 6 pixels."""


def search(
    queries: Tensor,
    labels: Tensor,
    train: Dataset,
    grid: Grid = PAPER_GRID,
    *,
    device: str = "cpu",
    batch_size: int = 256,
    directions: int = 128,
) -> dict[str, Tensor]:
    """The nearest mapped training image of another label for each query, over all images and all maps.

    Ties go to the mildest linear map in the order of :meth:`Grid.linear_maps`, then to the first training image, then to
    the first shift. Mapping the training set is shared by all queries: 100 at a time cost each little of it.

    Args:
        queries: float32 [Q, 1, H, H] in [0, 1].
        labels: int64 [Q].
        train: images of the same shape.
        device: where it is computed, with float32 products in full precision, which is torch's default; the result is
            the same up to pixels on the verge of rounding.
        batch_size: training images bounded at a time; a few thousand suit a GPU.
        directions: of the bound. They change the time and ``examined``, nothing else.

    Returns:
        ``images`` float32 [Q, 1, H, H], the mapped training image in the query's frame, not binarised; ``distance``,
        ``place`` in the training set and ``label`` int64 [Q]; ``map`` float32 [Q, 5]: rotation, shear, scale, pixels down
        and to the right; ``examined`` int64 [Q], how many candidates had their distance counted. A query without an
        admissible candidate has distance, place and label -1, a black image and a map of zeros.

    Raises:
        ValueError: other shapes, pixels outside [0, 1], a canvas too large for exact sums, or a number below 1.
    """
    _check(queries, labels, train, grid)
    if batch_size < 1 or directions < 1:
        raise ValueError(f"batch_size={batch_size}, directions={directions}: at least 1")
    queries, labels = queries.to(device), labels.to(device)
    with exact(queries):
        run = _Search(queries, labels, train, grid, batch_size, directions)
        run.sweep(_spread(len(train), PILOT).to(device), pilot=True)
        run.sweep(torch.arange(len(train), device=device), pilot=False)
        return {**run.best.result(), "examined": run.examined.cpu()}


def _check(queries: Tensor, labels: Tensor, train: Dataset, grid: Grid) -> None:
    shape, sizes = tuple(queries.shape[1:]), f"queries {tuple(queries.shape)}, labels {tuple(labels.shape)}"
    if queries.ndim != 4 or shape[0] != 1 or shape[1] != shape[2] or labels.shape != queries.shape[:1]:
        raise ValueError(f"{sizes}: [Q, 1, H, H] and [Q] are allowed")
    if len(queries) == 0 or not 0 <= float(queries.min()) <= float(queries.max()) <= 1:
        raise ValueError(f"{len(queries)} queries: at least one, and pixels in [0, 1]")
    if tuple(train.images.shape[1:]) != shape:
        raise ValueError(f"training images {tuple(train.images.shape[1:])}: {shape} as the queries'")
    if (shape[1] + 2 * grid.shift) ** 2 * UNITS > 1 << 24:
        raise ValueError(f"sides of {shape[1]} and shifts of {grid.shift}: a canvas of at most 64 is exact")


def _spread(n: int, most: int) -> Tensor:
    """At most ``most`` of the places 0 to n - 1, evenly spaced: int64."""
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).long()


# ---- mapped images ----


def warped(images: Tensor, maps: Tensor) -> Tensor:
    """Images [N, C, H, W] at the places to which ``maps``, [N, 2, 3] in half sides, take each pixel, bilinearly."""
    places = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, places, align_corners=False)


def turning(angle: Tensor) -> Tensor:
    """The matrices [..., 2, 2] that turn points (x, y) by angles [...] in radians, clockwise where y points down."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _canvases(images: Tensor, linear: tuple[float, float, float], margin: int) -> Tensor:
    """Images [N, 1, H, H] under a linear map about the centre, with a margin, in ``UNITS``: float32 [N, C, C]."""
    rotation, shear, scale = linear
    size = images.shape[-1]
    side = size + 2 * margin
    sheared = torch.tensor([[scale, scale * shear], [0, scale]], dtype=torch.float64)
    inverse = (turning(torch.tensor(math.radians(rotation), dtype=torch.float64)) @ sheared).inverse()
    offset = (size - 1) / 2 - inverse.sum(1) * (side - 1) / 2
    y, x = torch.meshgrid(*2 * (torch.arange(side, dtype=torch.float64),), indexing="ij")
    source = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.cat([inverse, offset[:, None]], 1).T
    places = ((2 * source + 1) / size - 1).float().to(images.device)
    # As channels of one image they share the places and the weights, which takes a sixth of the time.
    sampled = F.grid_sample(images.transpose(0, 1), places[None], align_corners=False)[0]
    return sampled.mul_(UNITS).round_()


# ---- the search ----


class _Best:
    """The best candidate of each query as one whole number, (distance, map, place, shift), so that ties have an order."""

    def __init__(self, n: int, train: Dataset, grid: Grid, device: torch.device) -> None:
        self.train, self.grid, self.maps = train, grid, grid.linear_maps()
        self.sizes = len(self.maps), len(train), len(grid.shifts())
        self.none = train.images[0].numel() + 1
        self.keys = torch.full((n,), self.none * math.prod(self.sizes), device=device)

    def distances(self) -> Tensor:
        """The best distance so far: int64 [Q]; one more than there are pixels where there is none."""
        return self.keys // math.prod(self.sizes)

    def offer(self, query: Tensor, distance: Tensor, linear: int, place: Tensor, shift: Tensor | int) -> None:
        """Candidates of some queries, all int64 [M]."""
        _, images, shifts = self.sizes
        keys = ((distance * self.sizes[0] + linear) * images + place) * shifts + shift
        self.keys.scatter_reduce_(0, query, keys, "amin")

    def result(self) -> dict[str, Tensor]:
        """The candidates themselves, on the CPU, as :func:`search` returns them."""
        maps, images, shifts = self.sizes
        side, margin = self.train.images.shape[-1], self.grid.shift
        n = len(self.keys)
        mapped, parameters = torch.zeros(n, 1, side, side), torch.zeros(n, 5)
        numbers = torch.full((3, n), -1)
        for query, key in enumerate(self.keys.tolist()):
            key, shift = divmod(key, shifts)
            key, place = divmod(key, images)
            distance, linear = divmod(key, maps)
            if distance < self.none:
                down, right = self.grid.shifts()[shift]
                canvas = _canvases(self.train.images[place : place + 1], self.maps[linear], margin)[0]
                top, left = margin - down, margin - right
                mapped[query, 0] = canvas[top : top + side, left : left + side] / UNITS
                parameters[query] = torch.tensor([*self.maps[linear], down, right])
                numbers[:, query] = torch.tensor([distance, place, int(self.train.labels[place])])
        distance_, place_, label = numbers
        return {"images": mapped, "distance": distance_, "place": place_, "label": label, "map": parameters}


class _Search:
    """The queries' side of :func:`search`, and the best candidates so far."""

    def __init__(
        self, queries: Tensor, labels: Tensor, train: Dataset, grid: Grid, batch_size: int, directions: int
    ) -> None:
        device, side = queries.device, queries.shape[-1]
        self.grid, self.batch_size, self.labels = grid, batch_size, labels
        self.images, self.train_labels = train.images.to(device), train.labels.to(device)
        self.best = _Best(len(queries), train, grid, device)
        self.examined = torch.zeros_like(labels)
        binary = (queries[:, 0] > 0.5).byte()
        self.ink = binary.sum((1, 2)).float()
        steps, canvas = 2 * grid.shift + 1, side + 2 * grid.shift
        shifted = torch.zeros(len(queries), steps, steps, canvas, canvas, dtype=torch.uint8, device=device)
        for top, left in itertools.product(range(steps), repeat=2):
            shifted[:, top, left, top : top + side, left : left + side] = binary
        self.shifted = shifted.flatten(3).flatten(1, 2)
        # canvas @ window sums over the frame's columns at each shift.
        pixels, starts = torch.arange(canvas, device=device)[:, None], torch.arange(steps, device=device)
        self.window = ((pixels >= starts) & (pixels < starts + side)).float()
        self.basis = self._basis(directions)
        self.features = torch.cat([self._features(rows.float())[None] for rows in self.shifted])

    def _basis(self, directions: int) -> Tensor:
        """Directions along which shrunk canvases and shifted queries have most of their ink: float32 [C * C, k].

        Of the images of all scales the bound lets three times as many candidates through: broad strokes take directions
        that do not tell apart what is near.
        """
        some = self.images[_spread(len(self.images), 64).to(self.images.device)]
        maps = self.best.maps
        shrunk = [linear for linear in maps if linear[2] < 1] or maps
        moment = torch.zeros(self.shifted.shape[-1], self.shifted.shape[-1], device=self.images.device)
        for linear in shrunk:
            canvases = (_canvases(some, linear, self.grid.shift) > UNITS / 2).flatten(1).float()
            moment += canvases.T @ canvases * (2 / len(some) / len(shrunk))
        for rows in self.shifted:
            moment += rows.T.float() @ rows.float() / self.shifted[..., 0].numel()
        return torch.linalg.eigh(moment.double()).eigenvectors.flip(1)[:, :directions].float()

    def _features(self, binary: Tensor) -> Tensor:
        """Coordinates along the basis, the length of the rest, and 1: float32 [N, k + 2] of binary canvases [N, C * C]."""
        inner = binary @ self.basis
        rest = (binary.sum(1) - inner.square().sum(1)).clamp(min=0).sqrt()
        return torch.cat([inner, rest[:, None], torch.ones_like(rest)[:, None]], 1)

    def _mapped(self, images: Tensor, linear: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
        """Binary canvases uint8 [N, C * C], their ink in the frame at each shift, infinite if not admissible, features."""
        parts = []
        for part in images.split(self.batch_size):
            canvases = _canvases(part, linear, self.grid.shift)
            total = canvases.sum((1, 2))[:, None]
            kept = self._in_frame(canvases)
            binary = (canvases > UNITS / 2).float()
            fits = (kept >= self.grid.keep * total) & (total > 0)
            ink = self._in_frame(binary).masked_fill(~fits, math.inf)
            parts.append((binary.flatten(1).byte(), ink, self._features(binary.flatten(1))))
        binary, ink, features = map(torch.cat, zip(*parts, strict=True))
        return binary, ink, features

    def _in_frame(self, canvases: Tensor) -> Tensor:
        """Sums over the frame at each shift: [N, S]."""
        return (self.window.T @ (canvases @ self.window)).flatten(1)

    def sweep(self, places: Tensor, *, pilot: bool) -> None:
        """All maps of the training images at ``places``: of each block all that may be best or, as a pilot, one."""
        images, labels = self.images[places], self.train_labels[places]
        groups = [(label, (labels == label).nonzero().squeeze(1)) for label in labels.unique()]
        for index, linear in enumerate(self.best.maps):
            binary, ink, features = self._mapped(images, linear)
            features[:, :-1] *= 2
            least = ink.amin(1)
            for label, group in groups:
                rows = group[least[group].isfinite()]
                for block in rows[least[rows].argsort()].split(self.batch_size):
                    if len(block) == 0 or len(chosen := self._within_reach(label, ink[block])) == 0:
                        continue
                    row, query, shift = self._candidates(features[block], ink[block], chosen, pilot)
                    row = block[row]
                    for part in torch.arange(len(row), device=row.device).split(1 << 14):
                        r, q, s = row[part], chosen[query[part]], shift[part]
                        common = (binary[r] & self.shifted[q, s]).sum(1, dtype=torch.int32)
                        distance = (ink[r, s] + self.ink[q]).long() - 2 * common
                        self.best.offer(q, distance, index, places[r], s)
                        self.examined += torch.bincount(q, minlength=len(self.examined))

    def _within_reach(self, label: Tensor, ink: Tensor) -> Tensor:
        """The queries of another label whose ink count does not rule out a whole block: int64."""
        limit = self.best.distances()
        most = ink.masked_fill(ink.isinf(), 0).amax()
        reach = (self.ink >= ink.amin() - limit) & (self.ink <= most + limit)
        return (reach & (self.labels != label)).nonzero().squeeze(1)

    def _candidates(self, features: Tensor, ink: Tensor, chosen: Tensor, pilot: bool) -> tuple[Tensor, ...]:
        """Row, query among the chosen and shift, int64, of what has to be counted in a block."""
        queries = self.features[chosen]
        queries[..., -1] = (self.best.distances() - self.ink + SLACK)[chosen, None]
        upper = (features @ queries.flatten(0, 1).T).view(len(features), *queries.shape[:2])
        if not pilot:
            return _true(upper >= ink[:, None])
        value, flat = (upper - ink[:, None]).transpose(0, 1).flatten(1).max(1)
        query = value.isfinite().nonzero().squeeze(1)
        shifts = ink.shape[1]
        return flat[query] // shifts, query, flat[query] % shifts


def _true(mask: Tensor) -> tuple[Tensor, ...]:
    """The indices along each axis, int64, of what is true, where that is little: eight at a time are passed over."""
    flat = mask.flatten()
    eights = F.pad(flat, (0, -len(flat) % 8)).view(torch.int64).nonzero().squeeze(1)
    places = (8 * eights[:, None] + torch.arange(8, device=mask.device)).flatten()
    places = places[places < len(flat)]
    return torch.unravel_index(places[flat[places]], mask.shape)
