"""How far is an image from the manifold of the data, and how does its change stand to it? (DIS, section 3.1, Figure 3)

A perturbed image is projected on FONTS by a search over theta, and elsewhere on the span of its nearest training images.
Its distance is compared with the l2 length of the change: a ratio near 1 says that the change is orthogonal to the manifold.
So is noise, in 784 dimensions: what counts is the difference to :func:`controls`.

The projections return tensors by name, on the device of the images, and for each of N examples float64 [N]: ``distance`` to
the manifold, ``length`` of the change, their ``ratio``, and the ``cosine`` between change and residual. Where nothing
changed, or nothing is left, ratio and cosine are 0.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.data import Dataset
from robustutils.outcomes import Outcomes
from robustutils.papers.disentangling import fonts
from robustutils.papers.disentangling.attempts import examples
from robustutils.papers.disentangling.fonts import FontsDataset
from robustutils.papers.disentangling.latent import Ascent, Coded

BATCH = 200
"""Images that are projected at a time; it does not change the result."""
# Directions whose squared length is this share of the longest one's are rounding, not neighbours.
_LEAST_SQUARE = 1e-10


def _measured(perturbed: Tensor, clean: Tensor, projected: Tensor) -> dict[str, Tensor]:
    delta, residual = ((perturbed - part).flatten(1).double() for part in (clean, projected))
    length, distance = delta.norm(dim=1), residual.norm(dim=1)
    return {
        "distance": distance,
        "length": length,
        "ratio": torch.where(length > 0, distance / length, 0),
        "cosine": F.cosine_similarity(delta, residual, eps=1e-12),
    }


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _check_pairs(perturbed: Tensor, clean: Tensor, what: str = "clean images") -> None:
    if perturbed.ndim != 4 or perturbed.shape != clean.shape:
        raise ValueError(
            f"perturbed images and {what} need one shape [N, C, H, W], "
            f"got {list(perturbed.shape)} and {list(clean.shape)}"
        )
    if not perturbed.isfinite().all():
        raise ValueError("the perturbed images have values that are not finite")


# ---- projections ----


def onto_affine(
    images: Tensor, glyphs: Tensor, thetas: Tensor, ranges: str = "hard", steps: int = 100
) -> dict[str, Tensor]:
    """Projection of perturbed images on the images of their own glyphs, by :func:`nearest_theta`.

    The released code leaves the search out (DIS, section 3.1 and appendix), so that there the ratio is 1 whatever the images
    are.

    Args:
        images: perturbed images, float32 [N, 1, H, W].
        glyphs: the glyph of each, float32 [N, 1, H, W].
        thetas: of the clean images ``render(glyphs, thetas)``, float32 [N, 6].
        ranges: a name in :data:`.fonts.RANGES`.
        steps: of the search.

    Returns:
        The numbers; ``thetas`` [N, 6] of the nearest images, and these ``images``.

    Raises:
        ValueError: the shapes differ, a theta lies outside of its ranges, or a setting is out of range.
    """
    _check_pairs(images, glyphs, "glyphs")
    if steps < 0:
        raise ValueError(f"steps={steps}: must not be negative")
    bounds = fonts.theta_bounds(ranges)
    low, high = (bound.to(images.device) for bound in bounds)
    if thetas.shape == (len(images), 6) and not ((thetas >= low) & (thetas <= high)).all():
        row = int(((thetas < low) | (thetas > high)).any(1).nonzero()[0])
        raise ValueError(f"theta {row} is {thetas[row].tolist()}: outside of the {ranges!r} ranges")
    found = []
    for x, glyph, theta in zip(*(part.split(BATCH) for part in (images, glyphs, thetas)), strict=True):
        nearest = nearest_theta(x, glyph, theta, bounds, steps)
        projected = fonts.render(glyph, nearest)
        numbers = _measured(x, fonts.render(glyph, theta), projected)
        found.append(numbers | {"thetas": nearest, "images": projected})
    return _joined(found)


def nearest_theta(
    images: Tensor, glyphs: Tensor, thetas: Tensor, bounds: tuple[Tensor, Tensor], steps: int
) -> Tensor:
    """The theta [N, 6] of min ||x~ - dec(theta)||_2, the nearest image of a glyph, as a search finds it.

    Adam from the theta of the clean image on the mean squared error, with a learning rate of 0.09, times 0.95 every 10
    steps, and theta clipped to its bounds; the nearest of the ``steps`` + 1 points counts.
    """
    low, high = (bound.to(thetas) for bound in bounds)
    theta = thetas.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([theta], lr=0.09)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=10, gamma=0.95)
    best, least = thetas.detach().clone(), torch.full_like(thetas[:, 0], torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            error = (fonts.render(glyphs, theta) - images).square().flatten(1).mean(1)
            total = error.sum()  # no example's step depends on its batch
        nearer = error.detach() < least
        best[nearer], least[nearer] = theta.detach()[nearer], error.detach()[nearer]
        if step < steps:
            (theta.grad,) = torch.autograd.grad(total, theta)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                theta.copy_(theta.clamp(low, high))
    return best


def onto_neighbours(
    perturbed: Tensor, clean: Tensor, train_images: Tensor, k: int = 50, components: int = 40
) -> dict[str, Tensor]:
    """Projection of perturbed images on the span of their ``k`` nearest training images, from the clean image.

    Neighbours are those of x~ on the first ``components`` principal axes of all training images; the clean image so lies on
    the manifold, as in the paper. See :func:`onto_span`.

    Args:
        perturbed: float32 [N, C, H, W].
        clean: the images that were perturbed, of the same shape.
        train_images: float32 [M, C, H, W].
        k: number of neighbours.
        components: number of principal axes.

    Returns:
        The numbers, and the projected ``images``.

    Raises:
        ValueError: the shapes differ, or there are fewer than ``k`` training images or ``components`` axes.
    """
    _check_pairs(perturbed, clean)
    if train_images.shape[1:] != perturbed.shape[1:]:
        raise ValueError(
            f"training images are {list(train_images.shape)}, the others {list(perturbed.shape)}"
        )
    train = train_images.to(perturbed.device).flatten(1)
    for name, value, most in (("k", k, len(train)), ("components", components, min(train.shape))):
        if not 1 <= value <= most:
            raise ValueError(f"{name}={value}: from 1 to {most}")
    axes = _principal_axes(train, components)
    places = train @ axes
    squares = places.square().sum(1)
    found = []
    for x, origin in zip(perturbed.split(BATCH), clean.split(BATCH), strict=True):
        # the squared length of x itself does not change the order
        apart = torch.addmm(squares, x.flatten(1) @ axes, places.T, alpha=-2)
        neighbours = train[apart.topk(k, largest=False, sorted=False).indices]
        parts = (part.double() for part in (x.flatten(1), origin.flatten(1), neighbours))
        projected = onto_span(*parts).view_as(x)
        found.append(_measured(x, origin, projected) | {"images": projected.float()})
    return _joined(found)


def onto_span(x: Tensor, origin: Tensor, neighbours: Tensor) -> Tensor:
    """o + P (x - o), where P projects on the span of neighbours - o by least squares: [n, D].

    ``x`` and ``origin`` o are float64 [n, D], ``neighbours`` [n, k, D], which may depend on each other: directions that they
    do not have are left out.
    """
    rows, target = neighbours - origin[:, None], x - origin
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    real = values > _LEAST_SQUARE * values[:, -1:]
    inverse = torch.where(real, 1 / torch.where(real, values, 1), 0)
    weights = inverse * (vectors.mT @ (rows @ target[:, :, None])).squeeze(2)
    return origin + ((vectors @ weights[:, :, None]).mT @ rows).squeeze(1)


def _principal_axes(rows: Tensor, components: int) -> Tensor:
    """The first principal axes of float32 rows [M, D]: float32 [D, components]."""
    mean = rows.mean(0, dtype=torch.float64)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for some in rows.split(5000):
        centred = some - mean.float()
        covariance += centred.T @ centred
    return torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :components].float()


# ---- controls ----


def sign_noise(perturbed: Tensor, clean: Tensor, *, seed: int = 0) -> Tensor:
    """The clean images with noise of the l2 length of each change, the same size and a random sign at every pixel.

    A sign is turned where the pixel would leave [0, 1], which adversarial examples must not do either.

    Raises:
        ValueError: the shapes differ, or the noise is above 1/2 a pixel, where neither sign may fit.
    """
    _check_pairs(perturbed, clean)
    size = (perturbed - clean).flatten(1).norm(dim=1) / clean[0].numel() ** 0.5
    if len(size) and size.max() > 0.5:
        raise ValueError(f"noise of {size.max():.3g} a pixel does not fit into [0, 1]: at most 0.5")
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, clean.shape, generator=generator).to(clean.device) * 2 - 1
    noise = size.view(-1, 1, 1, 1) * signs
    moved = clean + noise
    return torch.where((moved < 0) | (moved > 1), clean - noise, moved)


def controls(perturbed: Tensor, clean: Tensor, held_out: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """What is projected beside the perturbed images, each like them: [N, C, H, W].

    "noise" is :func:`sign_noise`, which knows nothing of the manifold. "held-out" is of the clean images ``held_out``
    [M, C, H, W] the one whose distance from the clean image is most like the length of the change: it lies on the manifold.
    The clean images themselves must not be among them.

    Raises:
        ValueError: the shapes differ, there is no held-out image, or the noise does not fit.
    """
    _check_pairs(perturbed, clean)
    if len(held_out) == 0 or held_out.shape[1:] != clean.shape[1:]:
        raise ValueError(f"held-out images are {list(held_out.shape)}, the clean ones {list(clean.shape)}")
    length = (perturbed - clean).flatten(1).norm(dim=1, keepdim=True)
    apart = torch.cdist(clean.flatten(1), held_out.to(clean.device).flatten(1))
    chosen = (apart - length).abs().argmin(1)
    return {"noise": sign_noise(perturbed, clean, seed=seed), "held-out": held_out.to(clean.device)[chosen]}


# ---- numbers ----


def distances(
    model: nn.Module,
    attack: Ascent,
    data: Coded,
    truth: FontsDataset | Dataset,
    black: Tensor,
    *,
    points: int,
    tries: int = 2,
    seed: int = 0,
    with_controls: bool = False,
) -> dict[str, Tensor]:
    """Where the successful examples of an attack lie: the numbers of a projection for each of them, float32 [n].

    Args:
        model: that is attacked.
        attack: on the codes of ``data``.
        data: the test set, in pixels or on a manifold.
        truth: the test set itself where it is FONTS, whose manifold is known; else the training set, whose images are the
            neighbours.
        black: bool [1, 28, 28], the pixels of :func:`background`.
        points, tries, seed: as of :func:`.attempts.examples`.
        with_controls: whether :func:`controls` of a regular attack are projected too; the held-out images, only on
            neighbours, are the test images behind the attacked ones.

    Returns:
        ``place`` int64 [n], the place of each example's image in the test set; ``distance``, ``length``, ``ratio``,
        ``cosine`` and ``background`` (in percent). Those of the controls begin with "noise " and "held-out ".

    Raises:
        ValueError: no attempt succeeds, or what the parts raise.
    """
    found = examples(model, attack, data, points=points, tries=tries, seed=seed)
    places, chances = found["success"].nonzero().unbind(1)
    if not len(places):
        raise ValueError(f"none of {points} points has an example")
    with torch.no_grad():
        bases = data.bases(places)
        images = data.manifold.decode(found["codes"][places, chances], bases)
        clean = data.manifold.decode(data.codes[places], bases)
    projected = {"": images}
    known = isinstance(truth, FontsDataset)
    if with_controls:
        beside = controls(images, clean, data.codes[points : 2 * points], seed=seed)
        projected |= {f"{name} ": part for name, part in beside.items() if not (known and name == "held-out")}
    numbers = {"place": places}
    for name, part in projected.items():
        if isinstance(truth, FontsDataset):
            measured = onto_affine(part, truth.bases(places), truth.thetas[places], truth.ranges)
        else:
            measured = onto_neighbours(part, clean, truth.images)
        measured["background"] = 100 * background(part, clean, black)
        numbers |= {f"{name}{key}": value.float() for key, value in measured.items() if value.ndim == 1}
    return numbers


def outcomes(values: Tensor, images: Tensor, *, dataset: str = "") -> Outcomes:
    """Numbers of attempts [n], n > 0, as outcomes of the images they were made on, int64 [n] with repetitions.

    The attempts on one image are averaged: they are no independent examples.
    """
    places, inverse, counts = np.unique(images.cpu().numpy(), return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=values.detach().double().cpu().numpy())
    return Outcomes(sums / counts, (0,), places, dataset)


def black_pixels(train_images: Tensor) -> Tensor:
    """Which pixels are 0 in at least 99% of the training images: bool [C, H, W].

    All of them would leave no pixel on FONTS, whose letters reach everywhere once in a thousand images.
    """
    return (train_images <= 0).sum(0) >= 0.99 * len(train_images)


def background(perturbed: Tensor, clean: Tensor, black: Tensor) -> Tensor:
    """Share of the squared change that lies on pixels ``black``, bool [C, H, W]: a fraction, float64 [N] (DIS-X5).

    It is 0 where nothing changed. Noise of one size at every pixel has the share of pixels that are black.

    Raises:
        ValueError: the shapes differ.
    """
    _check_pairs(perturbed, clean)
    squares = (perturbed - clean).double().square()
    total = squares.flatten(1).sum(1)
    inside = (squares * black.to(squares.device)).flatten(1).sum(1)
    return torch.where(total > 0, inside / total, 0)
