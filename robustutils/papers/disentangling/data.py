"""FONTS as data sets by name."""

from pathlib import Path

from robustutils.data import Dataset
from robustutils.papers.disentangling import fonts


def _stored(name: str, split: str, root: Path) -> Dataset:
    return fonts.dataset(fonts.load_prototypes(root), fonts.CAPACITY[split], split, name=name)


def _embedded(name: str, split: str, root: Path) -> Dataset:
    return fonts.dataset(fonts.embedded_prototypes(), fonts.CAPACITY[split], split, name=name)


READERS = {"fonts": _stored, "fonts_embedded": _embedded}
