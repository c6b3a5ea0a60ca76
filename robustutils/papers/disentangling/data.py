"""FONTS as data sets by name: all test images, and the first of the training images."""

from pathlib import Path

from robustutils.data import Dataset
from robustutils.papers.disentangling import fonts

COUNTS = {"train": fonts.LOADED, "test": fonts.CAPACITY["test"]}


def _read(name: str, split: str, root: Path) -> Dataset:
    prototypes = fonts.load_prototypes(root) if name == "fonts" else fonts.embedded_prototypes()
    return fonts.dataset(prototypes, COUNTS[split], split, name=name)


READERS = dict.fromkeys(("fonts", "fonts_embedded"), _read)
