"""Blind spots: test images scaled and shifted by a little, and the attack that succeeds there (BS, sections 3.3, 4.4, 6.4).

The paper's transformation acts on pixels in [-0.5, 0.5]; images here lie in [0, 1], so that x' - 1/2 is
alpha (x - 1/2) + beta. Success has two thresholds: eps, and the stricter alpha eps, which scales with the contrast.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from robustutils import flags
from robustutils.artifacts import Call, kept, later
from robustutils.attacks import PGD, ascend, guarded, margin
from robustutils.data import Dataset
from robustutils.evaluation import AttackResult, Model, adversarial, correct, evaluate
from robustutils.outcomes import Outcomes
from robustutils.papers.blind_spot.carlini import CarliniL2, CarliniLinf, Nearest, all_distances, batches
from robustutils.speed import ONCE_FLOAT32
from robustutils.square import Square
from robustutils.statistics import Rate
from robustutils.storage import Tensors
from robustutils.threats import ThreatSet


def check_scale_shift(alpha: float, beta: float) -> None:
    """Refuse a scale and shift that leave the pixel range.

    Raises:
        ValueError: names ``alpha`` and ``beta`` and what is allowed.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}: the scale must lie in (0, 1]")
    room = (1 - alpha) / 2
    if not abs(beta) <= room + 1e-9:
        raise ValueError(
            f"beta={beta} with alpha={alpha}: pixels would leave [0, 1]; "
            f"the shift must lie within (1 - alpha) / 2 = {room:.4g} of 0"
        )


def scale_shift(images: Tensor, alpha: float, beta: float) -> Tensor:
    """x' = alpha x + beta + (1 - alpha) / 2 for pixels in [0, 1], like ``images``.

    Raises:
        ValueError: pixels would leave [0, 1]; see :func:`check_scale_shift`.
    """
    check_scale_shift(alpha, beta)
    if (alpha, beta) == (1, 0):
        return images
    return (alpha * images + (beta + (1 - alpha) / 2)).clamp(0, 1)


def transformed(dataset: Dataset, alpha: float, beta: float) -> Dataset:
    """A data set with every image scaled and shifted; itself at alpha = 1, beta = 0."""
    images = scale_shift(dataset.images, alpha, beta)
    return dataset if images is dataset.images else dataset.changed(images)


@dataclass(frozen=True, kw_only=True)
class FixedRadius:
    """Is there an adversarial example within eps? Margin ascent from the paper's two starts and from random ones.

    The starts are x + N(0, 0.2^2) and the mid-grey image, both projected into the threat set, then ``restarts`` random
    points of it; each is followed for ``steps`` steps of eps / 10, and an image leaves at its first success.
    A cheaper substitute of full C&W where only "distance below the threshold" counts (BS, section 4.1).
    """

    threat: ThreatSet
    steps: int = 100
    restarts: int = 5
    noise: float = 0.2
    dtype: torch.dtype = field(default=torch.bfloat16, metadata=ONCE_FLOAT32)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 0 or not self.noise >= 0:
            raise ValueError(
                f"steps={self.steps}, restarts={self.restarts}, noise={self.noise}: "
                "at least 1 step, and no negative number"
            )

    def start(self, x: Tensor, attempt: int, generator: torch.Generator) -> Tensor:
        """Where an attempt on images begins, as a change of them: the paper's two starts first, then random points."""
        if attempt == 0:
            noise = self.noise * torch.randn(x.shape, generator=generator).to(x.device)
            return self.threat.project(x, noise)
        if attempt == 1:
            return self.threat.project(x, 0.5 - x)
        return self.threat.start(x, generator)

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Every start on what is left; an image that withstands all keeps the last attempt."""
        result, left = x.clone(), torch.arange(len(x), device=x.device)
        for attempt in range(2 + self.restarts):
            result[left] = ascend(
                model,
                x[left],
                y[left],
                threat=self.threat,
                delta=self.start(x[left], attempt, generator),
                steps=self.steps,
                step_size=self.threat.eps / 10,
                loss=margin,
                drop_fooled=True,
                keep_best=False,
                dtype=self.dtype,
            )
            with torch.no_grad():
                left = left[model(result[left]).argmax(1) == y[left]]
            if len(left) == 0:
                break
        return result


@dataclass(frozen=True, eq=False)
class Cell:
    """One (alpha, beta) of a model: a cell of the paper's Tables 2-5.

    ``correct`` is bool [N] over all images; ``attacked`` holds the indices [n] of the images that were attacked, and
    ``at_eps``, ``at_alpha_eps`` bool [n] say for which of them an adversarial example lies within the threshold. ``flags``
    say what speaks against its rates (:mod:`robustutils.flags`).
    """

    alpha: float
    beta: float
    correct: Tensor
    attacked: Tensor
    at_eps: Tensor
    at_alpha_eps: Tensor
    flags: tuple[str, ...] = ()

    def accuracy(self) -> Rate:
        """Correctly classified images over all images."""
        return Rate(int(self.correct.sum()), len(self.correct), self.flags)

    def success(self, *, strict: bool = False) -> Rate:
        """Successes over the attacked images, at eps or, ``strict``, at alpha eps."""
        hits = self.at_alpha_eps if strict else self.at_eps
        return Rate(int(hits.sum()), len(hits), self.flags)

    def outcomes(self, quantity: str, seeds: Sequence[int], dataset: str) -> Outcomes:
        """``accuracy`` over all images, or ``success at eps`` or ``success at alpha eps`` over those attacked."""
        if quantity == "accuracy":
            return Outcomes(self.correct, seeds, dataset=dataset)
        hits = {"success at eps": self.at_eps, "success at alpha eps": self.at_alpha_eps}[quantity]
        return Outcomes(hits, seeds, self.attacked, dataset)


def attack_cell(
    model: Model, attack: FixedRadius, dataset: Dataset, *, alpha: float, beta: float, n: int
) -> Cell:
    """Scale and shift a data set and attack the first ``n`` images that are still classified correctly.

    The ball of radius alpha eps lies inside that of eps: only what falls at eps is attacked again at alpha eps. Finished
    verdicts are kept in the artifact cache.

    Raises:
        ValueError: pixels would leave [0, 1], or no image is classified correctly.
    """
    images = transformed(dataset, alpha, beta)
    right = kept(correct, model, images.images, images.labels)
    attacked = right.nonzero().squeeze(1)[:n]
    if len(attacked) == 0:
        raise ValueError(
            f"none of the {len(dataset)} images is classified correctly at alpha={alpha}, beta={beta}"
        )

    raised = dict.fromkeys(flags.sentences({}, right, len(dataset.classes)))

    def successes(attack: FixedRadius, chosen: Tensor) -> Tensor:
        moved = transformed(dataset.take(chosen), alpha, beta)
        found = evaluate(model, attack, moved)
        raised.update(dict.fromkeys(found.flags))
        return ~found.attacked

    at_eps = successes(attack, attacked)
    at_alpha_eps = at_eps.clone()
    if alpha < 1 and at_eps.any():
        threat = dataclasses.replace(attack.threat, eps=alpha * attack.threat.eps)  # type: ignore[type-var]
        stricter = dataclasses.replace(attack, threat=threat)
        at_alpha_eps[at_eps] = successes(stricter, attacked[at_eps])
    return Cell(alpha, beta, right, attacked, at_eps, at_alpha_eps, tuple(raised))


def knowing_less(model: Model, twin: Model, attack: FixedRadius, dataset: Dataset) -> dict[str, AttackResult]:
    """Attacks that should find no more than an attack at a fixed radius does, by name.

    They are the attack with twice the steps, one without gradients, and PGD on an undefended ``twin``, the whole way and
    not to the first success on it, carried over.
    """
    threat, steps = attack.threat, attack.steps
    carried = PGD(
        threat=threat,
        steps=steps,
        step_size=threat.eps / 10,
        loss=margin,
        drop_fooled=False,
        dtype=attack.dtype,
    )
    made = later(adversarial, twin, carried, dataset)
    clean = kept(correct, model, dataset.images, dataset.labels)
    stands = kept(correct, model, made, dataset.labels)
    return {
        "twice the steps": evaluate(model, dataclasses.replace(attack, steps=2 * steps), dataset),
        "gradient-free (Square)": evaluate(model, Square(eps=threat.eps, queries=10 * steps), dataset),
        "carried over from the natural network": AttackResult(clean, stands),
    }


def plane(
    model: Model,
    attack: FixedRadius,
    dataset: Dataset,
    *,
    scales: Sequence[float],
    shares: Sequence[float],
    n: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Success on ``n`` images and accuracy in percent over scale and shift: two arrays [shares, scales].

    A shift is given as a share, from -1 to 1, of the largest possible one, (1 - alpha) / 2. Both arrays are NaN where
    alpha = 1 leaves no room for a shift, success also where more than half of the images are misclassified.
    """
    success, accuracy = np.full((2, len(shares), len(scales)), np.nan)
    for column, alpha in enumerate(scales):
        for line, share in enumerate(shares):
            if alpha == 1 and share != 0:
                continue
            beta = share * (1 - alpha) / 2
            moved = transformed(dataset, alpha, beta)
            right = kept(correct, model, moved.images, moved.labels)
            accuracy[line, column] = 100 * right.float().mean().item()
            if accuracy[line, column] >= 50:
                cell = attack_cell(model, attack, dataset, alpha=alpha, beta=beta, n=n)
                success[line, column] = cell.success().percent
    return success, accuracy


def nearest_in_cells(
    model: Model,
    attack: CarliniLinf | CarliniL2,
    dataset: Dataset,
    cells: Sequence[tuple[float, float]],
    *,
    n: int,
    n_moved: int,
) -> tuple[Tensor, list[Nearest], list[Call]]:
    """The nearest adversarial examples of the same images in several (alpha, beta), as in the paper's galleries.

    The images are the first ``n`` that are classified correctly in every cell, those of a cell other than (1, 0) the first
    ``n_moved`` of these. Returns their places in the data set; for each cell the distances of all and the images of its
    first ``n_moved``; and the batches of :func:`.carlini.batches` with all images, cell after cell.

    Raises:
        ValueError: fewer than 4 images are classified correctly in every cell.
    """
    moved = [transformed(dataset, alpha, beta) for alpha, beta in cells]
    stays = [kept(correct, model, part.images, part.labels) for part in moved]
    places = torch.stack(stays).all(0).nonzero().squeeze(1)[:n]
    if len(places) < 4:
        raise ValueError(f"{len(places)} images stay correctly classified in {list(cells)}: at least 4 must")
    chosen = [places if cell == (1, 0) else places[:n_moved] for cell in cells]
    images = torch.cat([part.images[some] for part, some in zip(moved, chosen, strict=True)])
    together = dataset.take(torch.cat(chosen)).changed(images)
    parts = batches(model, attack, together, batch_size=60)
    sizes = [len(some) for some in chosen]
    found = kept(_first_of_each, parts, sizes, n_moved)
    drawn = [min(size, n_moved) for size in sizes]
    split = zip(found["images"].split(drawn), found["distances"].split(sizes), strict=True)
    return places, [Nearest(*cell) for cell in split], parts


def _first_of_each(parts: Sequence[Tensors], sizes: Sequence[int], n: int) -> Tensors:
    """Of batches that hold groups of some sizes: all distances, and the images of the first n of each group."""
    groups = torch.cat([part["images"] for part in parts]).split(list(sizes))
    return {"images": torch.cat([group[:n] for group in groups]), "distances": all_distances(parts)}
