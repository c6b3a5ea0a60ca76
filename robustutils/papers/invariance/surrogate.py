"""A surrogate for the labels of fresh invariance examples: networks and neighbours vote, and abstain where they disagree.

It is a model like others and says nothing about what people see; :func:`validation` tells how far it agrees with them on
examples that people have labelled (INV, section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustutils.data import Dataset
from robustutils.evaluation import predicted
from robustutils.papers.invariance.examples import moved

VIEWS = tuple(
    (rows, columns, degrees)
    for rows, columns in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    for degrees in (-10, 0, 10)
)
"""Shifts in pixels and rotations in degrees under which each network votes."""
ABSTAINS = -1


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Votes of ``models`` on small affine views and of the ``neighbours`` nearest of ``train``, half the weight each.

    Neighbours are compared after each image has been shifted so that its ink is centred. A label needs the share
    ``needed`` of the votes.

    Raises:
        ValueError: no models, a number of neighbours that the training set does not have, or a share not in (0.5, 1].
    """

    models: Sequence[nn.Module]
    train: Dataset
    neighbours: int = 5
    needed: float = 0.7

    def __post_init__(self) -> None:
        if not self.models or not 1 <= self.neighbours <= len(self.train) or not 0.5 < self.needed <= 1:
            raise ValueError(
                f"{len(self.models)} models, neighbours={self.neighbours}, needed={self.needed}: at least one model, "
                f"1 to {len(self.train)} neighbours, and a share above 0.5 and at most 1"
            )

    def labels(self, images: Tensor) -> Tensor:
        """The label of each image, float32 [N, 1, H, W]: int64 [N], ``ABSTAINS`` where the votes are divided."""
        share, label = self.votes(images).max(1)
        return torch.where(share >= self.needed - 1e-6, label, ABSTAINS)

    def votes(self, images: Tensor) -> Tensor:
        """The share of the votes that each class gets: [N, K]."""
        classes = len(self.train.classes)
        n = len(images)
        networks = torch.zeros(n, classes)
        for view in VIEWS:
            seen = moved(images, *(torch.full((n,), float(value)) for value in view))
            for model in self.models:
                networks += nn.functional.one_hot(predicted(model, seen), classes)
        networks /= len(VIEWS) * len(self.models)
        pool = centred(self.train.images).flatten(1)
        norms = pool.square().sum(1)
        nearest = [
            torch.addmm(norms, some, pool.T, alpha=-2).topk(self.neighbours, largest=False).indices
            for some in centred(images).flatten(1).split(100)
        ]
        near = nn.functional.one_hot(self.train.labels[torch.cat(nearest)], classes).float().mean(1)
        return (networks + near) / 2


def centred(images: Tensor) -> Tensor:
    """Images [N, 1, H, W] shifted so that the centre of their ink is that of the frame; a black image stays."""
    side = images.shape[-1]
    places = torch.arange(side, dtype=images.dtype) - (side - 1) / 2
    ink = images.sum((1, 2, 3)).clamp_min(1e-6)
    rows, columns = ((images * axis).sum((1, 2, 3)) / ink for axis in (places[:, None], places))
    return moved(images, -rows, -columns, torch.zeros(len(images)))


def validation(labels: Tensor, human: Tensor, original: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Where a surrogate answers, and where it agrees with people: bool vectors for ``changed`` and ``unchanged`` examples.

    All three are int64 [N]: the surrogate's labels, those of people and the original ones.
    """
    groups = {"changed": human != original, "unchanged": human == original}
    return {name: ((labels != ABSTAINS)[where], (labels == human)[where]) for name, where in groups.items()}
