"""The one type in which every data set of the book is handed over."""

import hashlib
from dataclasses import InitVar, dataclass, field, replace
from typing import Self

import torch
from torch import Tensor


def sha256(*tensors: Tensor) -> str:
    """SHA-256, as hex digits, of the bytes of some tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().reshape(-1).data)
    return digest.hexdigest()


def _content(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of the 8-bit pixels and the labels; of the exact values where the images are not of 8 bits."""
    parts = images.split(1024)
    pixels = [(part * 255).round().to(torch.uint8) for part in parts]
    eight_bits = all(
        torch.equal(few.float().div_(255), part) for few, part in zip(pixels, parts, strict=True)
    )
    return sha256(*(pixels if eight_bits else [images]), labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images that fit into memory.

    Attributes:
        name: the name that :func:`robustutils.data.load` knows it by.
        split: ``train``, ``test`` or ``val``.
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N], indices into ``classes``.
        classes: the name of each class.
        fingerprint: SHA-256 of the 8-bit pixels and the labels, or of the codes that generate them. Results are kept under
            it, so the one of a data set made by hand is computed, whatever is given.
        known: the fingerprint is that of these images and labels already, and is not computed.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    fingerprint: str
    known: InitVar[bool] = field(default=False, kw_only=True)

    def __post_init__(self, known: bool) -> None:
        if not known:
            object.__setattr__(self, "fingerprint", _content(self.images, self.labels))

    @classmethod
    def from_pixels(
        cls, name: str, split: str, pixels: Tensor, labels: Tensor, classes: tuple[str, ...]
    ) -> Self:
        """The data set of uint8 pixels [N, C, H, W] and labels [N]."""
        pixels, labels = pixels.contiguous(), labels.to(torch.int64)
        fingerprint = sha256(pixels, labels)
        return cls(name, split, pixels.float().div_(255), labels, classes, fingerprint, known=True)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Self:
        """The first ``n`` examples, in order, with the fingerprint of just these.

        Raises:
            ValueError: ``n`` is below 1 or above the number of examples.
        """
        if not 1 <= n <= len(self):
            raise ValueError(
                f"n = {n}: {self.name} ({self.split}) has {len(self)} examples, so 1 to {len(self)}"
            )
        return self.take(torch.arange(n))

    def take(self, chosen: Tensor) -> Self:
        """The examples at the indices ``chosen``, int64 [n], with the fingerprint of just these."""
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def changed(self, images: Tensor) -> Self:
        """The same labels with other images, float32 [N, C, H, W] in [0, 1], and a fingerprint of their exact values."""
        if len(images) != len(self):
            raise ValueError(f"{len(images)} images for the {len(self)} labels of {self.name} ({self.split})")
        return replace(self, images=images, fingerprint=sha256(images, self.labels), known=True)
