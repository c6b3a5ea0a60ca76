"""Data sets of one's own: images in folders, one for each class, or arrays in an ``.npz`` file."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustutils import data
from robustutils.data import DataError, Dataset, sha256

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P")
"""The modes of Pillow that are read as one channel and as three."""


def test_images(source: str) -> Dataset:
    """The test images of a known data set, of a folder with a folder for each class, or of an ``.npz`` file.

    Raises:
        ValueError: it is none of the three.
        DataError: as :func:`robustutils.data.load`, :func:`from_folder` and :func:`from_npz`.
    """
    if source in data.NAMES:
        return data.load(source, data.splits(source)[-1])
    path = Path(source)
    if path.is_dir():
        return from_folder(path)
    if path.suffix == ".npz":
        return from_npz(path)
    raise ValueError(f"data={source!r}: give a folder, an .npz file or one of {', '.join(data.NAMES)}")


def from_folder(path: str | Path) -> Dataset:
    """The images below a folder that has a folder for each class; classes are in the order of their names.

    Images of one size, grey or RGB; they come in the order of the rounds over the classes (the first of each class, then the
    second), so that the first ``n`` hold all classes.

    Raises:
        DataError: there are fewer than two classes, no images, one that cannot be read, or images of several sizes.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    classes = sorted(part.name for part in root.iterdir() if part.is_dir() and part.name[0] != ".")
    if len(classes) < 2:
        raise DataError(f"{root} has {len(classes)} folders: one for each of two classes or more is needed")
    files = [
        (place, label, file)
        for label, name in enumerate(classes)
        for place, file in enumerate(
            sorted(file for file in (root / name).iterdir() if file.suffix.lower() in SUFFIXES)
        )
    ]
    if not files:
        raise DataError(f"{root} holds no images ({', '.join(SUFFIXES)}) in its folders")
    files.sort(key=lambda entry: entry[:2])
    pixels = [_pixels(file) for _, _, file in files]
    for image, (_, _, file) in zip(pixels, files, strict=True):
        if image.shape != pixels[0].shape:
            sizes = [" x ".join(map(str, part.shape[1:])) for part in (image, pixels[0])]
            kinds = ["grey" if len(part) == 1 else "RGB" for part in (image, pixels[0])]
            raise DataError(
                f"{file} is {kinds[0]}, {sizes[0]}, and {files[0][2]} is {kinds[1]}, {sizes[1]}: one size and kind for all"
            )
    labels = torch.tensor([label for _, label, _ in files])
    return Dataset.from_pixels(root.name, "test", torch.stack(pixels), labels, tuple(classes))


def _pixels(file: Path) -> Tensor:
    """One image as uint8 [C, H, W] with one or three channels."""
    try:
        with Image.open(file) as image:
            if image.mode not in (*GREY, *COLOUR):  # others are clipped, not scaled, to 8 bits
                raise DataError(
                    f"{file} has pixels of mode {image.mode!r}: 8 bits, grey or in colour, are read "
                    f"({', '.join((*GREY, *COLOUR))})"
                )
            array = np.array(image.convert("L" if image.mode in GREY else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def from_npz(path: str | Path) -> Dataset:
    """The arrays ``images`` and ``labels`` of an ``.npz`` file, and the names ``classes`` where it has them.

    ``images`` is uint8 [N, H, W] or [N, H, W, C], or of floats [N, C, H, W] in [0, 1]; ``labels`` integers [N] from 0 on.
    Images come in rounds over the classes, like those of a folder, so that the first ``n`` hold all classes.

    Raises:
        DataError: the file cannot be read, lacks an array, or one has another shape, type or range.
    """
    file = Path(path)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as .npz: {error}") from error
    if missing := {"images", "labels"} - held.keys():
        raise DataError(
            f"{file} lacks the arrays {', '.join(sorted(missing))}; it has {', '.join(held) or 'none'}"
        )
    images, labels = held["images"], held["labels"]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) != len(images):
        raise DataError(
            f"{file}: labels must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) == 0 or labels.min() < 0:
        raise DataError(f"{file}: labels must be 0 or more, and at least one")
    names = tuple(map(str, held.get("classes", range(max(2, labels.max() + 1)))))
    if labels.max() >= len(names):
        raise DataError(f"{file}: a label is {labels.max()} and there are {len(names)} classes")
    place = np.zeros(len(labels), dtype=np.int64)  # of each image within its class
    for label in np.unique(labels):
        place[labels == label] = np.arange((labels == label).sum())
    order = np.lexsort((labels, place))
    images, labels = images[order], labels[order]
    targets = torch.from_numpy(labels.astype(np.int64))
    if images.dtype == np.uint8 and images.ndim in (3, 4):
        pixels = torch.from_numpy(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2)
        return Dataset.from_pixels(file.stem, "test", pixels, targets, names)
    if images.ndim == 4 and np.issubdtype(images.dtype, np.floating):
        values = torch.from_numpy(images.astype(np.float32)).contiguous()
        if not (values.min() >= 0 and values.max() <= 1):
            raise DataError(
                f"{file}: floats must lie in [0, 1], got [{values.min():.6g}, {values.max():.6g}]"
            )
        return Dataset(file.stem, "test", values, targets, names, sha256(values, targets))
    raise DataError(
        f"{file}: images must be uint8 [N, H, W] or [N, H, W, C], or floats [N, C, H, W], got {images.dtype} "
        f"{list(images.shape)}"
    )
