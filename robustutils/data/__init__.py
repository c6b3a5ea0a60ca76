"""Data sets by name: images in [0, 1], labels and a fingerprint.

torchvision's classes read, check and download; this module finds the data root, refuses what is absent,
damaged or not the set that was asked for, and never puts another set in its place.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from robustutils import registry
from robustutils.data._dataset import Dataset, sha256
from robustutils.data._files import FETCHABLE, PUBLIC, DataError, fetch, find_root, missing, require, verify
from robustutils.data._torchvision import datasets
from robustutils.registry import choose

__all__ = [
    "FETCHABLE",
    "NAMES",
    "PUBLIC",
    "DataError",
    "Dataset",
    "fetch",
    "find_root",
    "load",
    "require",
    "sha256",
    "some",
    "splits",
    "verify",
]

IMAGENET_LIMIT = 10_000
"""At most this many validation images, evenly spaced over the classes: as many as the paper attacks."""
_DIGITS = tuple("0123456789")
_HALF_SHA256 = {
    "train": "60158122812c96b5696c59e8daaa06f54720236997078dd99e3e37d8dd4faabd",
    "test": "6ac047d4852ad6a7e18ea0b5e77f65151be07f23a8931f43e4121c681b392215",
}
# torchvision downloads the 26,640 training images of the online competition; 39,209 are in the final archive.
_GTSRB_COUNTS: dict[str, dict[str, tuple[int, ...]]] = {
    "gtsrb": {"train": (26_640, 39_209), "test": (12_630,)},
    "gtsrb_half": {"train": (19_605,), "test": (5_000,)},
}
_UNREADABLE = (RuntimeError, OSError, ValueError, EOFError, AssertionError, KeyError, pickle.UnpicklingError)


def load(
    name: str, split: str = "train", *, root: str | Path | None = None, download: bool = False
) -> Dataset:
    """Read one split of a data set into memory.

    Args:
        name: one of ``NAMES``. "digits" and "fonts_embedded" come with the installed packages; all others are
            files below the data root. "gtsrb_half" is a copy of "gtsrb" with half of the frames.
        split: "train" or "test"; "val" for imagenet.
        root: the data root; see :func:`find_root`.
        download: fetch the set first where it is public and not there yet.

    Returns:
        Images float32 [N, C, H, W] in [0, 1], labels int64 [N] and the fingerprint. Of FONTS' 960,000 training images
        these are the first 40,000; :func:`.fonts.dataset` makes more.

    Raises:
        ValueError: an unknown name or split.
        DataError: the set is absent or damaged, or the root holds another one under this name.
    """
    choose("data set", name, NAMES)
    choose(f"split of {name}", split, splits(name))
    folder = find_root(root)
    if download and name in FETCHABLE and missing(name, folder):
        fetch([name], folder)
    require(name, folder)
    try:
        return registry.find("data", "READERS", name, _READERS, "data set")(name, split, folder)
    except DataError:
        raise
    except _UNREADABLE as error:
        verify(name, folder)
        raise DataError(f"{name} in {folder} cannot be read: {error}") from error


def _read_digits(name: str, split: str, root: Path) -> Dataset:
    """Handwritten digits of scikit-learn, 8x8 in 17 grey levels, resized bilinearly to 28x28.

    The test set is 50 random images of each class.
    """
    from sklearn.datasets import load_digits  # here, because its import takes a second

    digits = load_digits()
    # In integers, so that every machine gets the same pixels: the weights are multiples of 1/14.
    source = np.clip(4 * np.arange(28) - 5, 0, 98)
    lower = np.minimum(source // 14, 6)
    weights = np.zeros((28, 8), dtype=np.int64)
    weights[np.arange(28), lower + 1] = source - 14 * lower
    weights[np.arange(28), lower] = 14 - (source - 14 * lower)
    scaled = weights @ digits.images.astype(np.int64) @ weights.T
    top = 16 * 14 * 14
    pixels = ((255 * scaled + top // 2) // top).astype(np.uint8)

    draw = np.random.RandomState(0)
    test = np.concatenate([draw.permutation(np.flatnonzero(digits.target == d))[:50] for d in range(10)])
    rest = np.setdiff1d(np.arange(len(pixels)), test)
    chosen = draw.permutation(test if split == "test" else rest)
    images = torch.from_numpy(pixels[chosen]).unsqueeze(1)
    return Dataset.from_pixels(name, split, images, torch.from_numpy(digits.target[chosen]), _DIGITS)


def _raw_only(kind: Any) -> Any:
    """``kind`` without its habit to prefer old ``processed`` files, which nothing verifies."""
    return type(kind.__name__, (kind,), {"_check_legacy_exist": lambda self: False})


def _read_mnist(name: str, split: str, root: Path) -> Dataset:
    kind, classes = _MNIST[name]
    verify(name, root)
    source = _raw_only(kind)(root, train=split == "train")
    return Dataset.from_pixels(name, split, source.data.unsqueeze(1), source.targets, classes)


def _read_emnist(name: str, split: str, root: Path) -> Dataset:
    source = _raw_only(datasets.EMNIST)(root, split="digits", train=split == "train")
    # EMNIST stores its images transposed.
    pixels = source.data.transpose(1, 2).unsqueeze(1)
    return Dataset.from_pixels(name, split, pixels, source.targets, _DIGITS)


def _channels_last(name: str, split: str, pixels: np.ndarray, labels: Any, classes: Sequence[str]) -> Dataset:
    """The data set of uint8 pixels [N, H, W, C]."""
    channels_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Dataset.from_pixels(name, split, channels_first, torch.as_tensor(labels), tuple(classes))


def _read_cifar10(name: str, split: str, root: Path) -> Dataset:
    source = datasets.CIFAR10(root, train=split == "train")
    return _channels_last(name, split, source.data, source.targets, source.classes)


def _decode(
    examples: Any, indices: Sequence[int], files: Sequence[str], size: tuple[int, int]
) -> tuple[Any, list]:
    """Decode RGB examples of a torchvision data set to uint8 [N, H, W, 3]; a damaged image names its file."""
    pixels, targets = np.empty((len(indices), *size, 3), dtype=np.uint8), []
    for row, index in enumerate(indices):
        try:
            image, target = examples[index]
        except (OSError, SyntaxError) as error:
            raise DataError(f"{files[index]} cannot be read: {error}") from error
        pixels[row] = np.asarray(image)
        targets.append(target)
    return pixels, targets


def _read_gtsrb(name: str, split: str, root: Path) -> Dataset:
    """Traffic signs, whole images resized bilinearly to 32x32."""
    source = datasets.GTSRB(
        root, split, transform=lambda image: image.resize((32, 32), Image.Resampling.BILINEAR)
    )
    if len(source) not in _GTSRB_COUNTS[name][split]:
        holds = next(
            (f"the set {n}" for n, c in _GTSRB_COUNTS.items() if len(source) in c[split]), "no known set"
        )
        wanted = " or ".join(f"{count:,}" for count in _GTSRB_COUNTS[name][split])
        raise DataError(
            f"{root / 'gtsrb'} does not hold {name} but {holds}: {len(source):,} images in {split}, "
            f"not {wanted}. Ask for the set that is there, or give another data root."
        )
    pixels, labels = _decode(source, range(len(source)), [file for file, _ in source._samples], (32, 32))
    found, expected = sha256(torch.from_numpy(pixels)), _HALF_SHA256[split]
    if name == "gtsrb_half" and found != expected:
        raise DataError(
            f"{root / 'gtsrb'} is damaged: the SHA-256 of the {split} pixels is {found}, "
            f"published is {expected}. It was left as it is; delete it and provide it anew."
        )
    return _channels_last(name, split, pixels, labels, [str(sign) for sign in range(43)])


def _read_celeba(name: str, split: str, root: Path) -> Dataset:
    """CelebA by the attribute Male as in DIS: resized to width 54, cropped to 56x48; the first 90% train."""

    def prepare(image: Image.Image) -> Image.Image:
        return image.resize((54, 66), Image.Resampling.BILINEAR).crop((3, 5, 51, 61))

    source = datasets.CelebA(root, "all", transform=prepare)
    cut = len(source) * 9 // 10
    indices = range(cut) if split == "train" else range(cut, len(source))
    files = [str(root / "celeba" / "img_align_celeba" / file) for file in source.filename]
    pixels, attributes = _decode(source, indices, files, (56, 48))
    male = torch.stack(attributes)[:, source.attr_names.index("Male")]
    return _channels_last(name, split, pixels, male, ("not male", "male"))


def _read_imagenet(name: str, split: str, root: Path) -> Dataset:
    """Validation images, the shorter side resized to 299 and the centre cropped to 299x299."""

    def prepare(image: Image.Image) -> Image.Image:
        return ImageOps.fit(image, (299, 299), Image.Resampling.BILINEAR)

    source = datasets.ImageNet(root / "imagenet", split, transform=prepare)
    count = min(len(source), IMAGENET_LIMIT)
    indices = [index * len(source) // count for index in range(count)]
    pixels, labels = _decode(source, indices, [file for file, _ in source.samples], (299, 299))
    return _channels_last(name, split, pixels, labels, [names[0] for names in source.classes])


_MNIST: dict[str, tuple[Any, tuple[str, ...]]] = {
    "mnist": (datasets.MNIST, _DIGITS),
    "fashion_mnist": (datasets.FashionMNIST, tuple(datasets.FashionMNIST.classes)),
}
_READERS: dict[str, Callable[[str, str, Path], Dataset]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "fashion_mnist": _read_mnist,
    "cifar10": _read_cifar10,
    "gtsrb": _read_gtsrb,
    "gtsrb_half": _read_gtsrb,
    "emnist": _read_emnist,
    "celeba": _read_celeba,
    "imagenet": _read_imagenet,
}
NAMES = tuple(registry.names("data", _READERS))
"""The names that :func:`load` knows; a paper's folder reads its own."""


def splits(name: str) -> tuple[str, ...]:
    """The splits of a data set; the last is what models are tested on."""
    return ("val",) if name == "imagenet" else ("train", "test")


def some(dataset: Dataset, n: int) -> Dataset:
    """``n`` examples, or all there are: the first; of traffic signs, which come sorted by class, at even steps."""
    if dataset.name.startswith("gtsrb") and dataset.split == "train":
        return dataset.take(torch.linspace(0, len(dataset) - 1, min(n, len(dataset))).long())
    return dataset.first(min(n, len(dataset)))
