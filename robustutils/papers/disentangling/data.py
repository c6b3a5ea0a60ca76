"""FONTS as data sets by name: all test images, and the first of the training images."""

from pathlib import Path

from robustutils.data import Dataset
from robustutils.papers.disentangling import fonts

COUNTS = {"train": fonts.LOADED, "test": fonts.CAPACITY["test"]}


def _stored(name: str, split: str, root: Path) -> Dataset:
    return fonts.dataset(fonts.load_prototypes(root), COUNTS[split], split, name=name)


def _embedded(name: str, split: str, root: Path) -> Dataset:
    return fonts.dataset(fonts.embedded_prototypes(), COUNTS[split], split, name=name)


READERS = {"fonts": _stored, "fonts_embedded": _embedded}
