"""Data sets of one's own: images in folders, one for each class, or arrays in an ``.npz`` file.

Nothing is guessed, and nothing in a file is unpickled or run: what cannot be read, or in two ways, is one sentence.
"""

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from robustutils import data
from robustutils.data import DataError, Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What Pillow may read: some of its other readers start programs."""
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P")
"""The modes of Pillow that are read as one channel and as three."""
HIDDEN = (".", "__MACOSX", "@eaDir")
"""How the names of files and folders begin that systems leave behind."""
MOST_CLASSES = 100_000


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
    if path.suffix.lower() == ".npz":
        return from_npz(path)
    raise ValueError(f"data={source!r}: give a folder, an .npz file or one of {', '.join(data.NAMES)}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file is one :class:`DataError` of one line that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except Exception as error:  # a damaged file makes zipfile, numpy and Pillow raise nearly every class
        said = " ".join(str(error).split())[:300] or "no reason given"
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {said}") from error


def _fits(path: Path, size: int) -> None:
    """Raise :class:`DataError` where ``size`` bytes are more than the free memory."""
    if size > (free := psutil.virtual_memory().available):
        raise DataError(f"{path} needs {size / 2**30:,.1f} GiB of memory, {free / 2**30:,.1f} are free")


def _seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(HIDDEN))


def from_folder(path: str | Path) -> Dataset:
    """The images below a folder that has a folder for each class; classes are in the order of their names.

    Images of one size, grey or RGB; they come in the order of the rounds over the classes (the first of each class, then the
    second), so that the first ``n`` hold all classes. Hidden files and folders are no images and no classes.

    Raises:
        DataError: there are fewer than two classes, one without images, an image that cannot be read or has transparent
            pixels, or images of several sizes.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    with _reading(root):
        classes = [folder for folder in _seen(root) if folder.is_dir()]
        held = [[file for file in _seen(folder) if file.suffix.lower() in SUFFIXES] for folder in classes]
    if len(classes) < 2:
        raise DataError(f"{root} has {len(classes)} folders: one for each of two classes or more is needed")
    if empty := [folder.name for folder, files in zip(classes, held, strict=True) if not files]:
        raise DataError(f"{root} holds no images ({', '.join(SUFFIXES)}) in {', '.join(empty)}")
    rounds = sorted(
        (place, label, file) for label, files in enumerate(held) for place, file in enumerate(files)
    )
    first, pixels = rounds[0][2], []
    for _, _, file in rounds:
        pixels.append(image := _pixels(file))
        if image.shape != pixels[0].shape:
            sizes = [" x ".join(map(str, part.shape[1:])) for part in (image, pixels[0])]
            kinds = ["grey" if len(part) == 1 else "RGB" for part in (image, pixels[0])]
            raise DataError(
                f"{file} is {kinds[0]}, {sizes[0]}, and {first} is {kinds[1]}, {sizes[1]}: one size and kind for all"
            )
        if image is pixels[0]:
            _fits(root, 6 * len(rounds) * image.numel())  # 8 bits twice and floats once
    labels = torch.tensor([label for _, label, _ in rounds])
    return Dataset.from_pixels(
        root.name, "test", torch.stack(pixels), labels, tuple(folder.name for folder in classes)
    )


def _pixels(file: Path) -> Tensor:
    """One image as uint8 [C, H, W] with one or three channels."""
    if not file.is_file():
        raise DataError(f"{file} is no file")
    with _reading(file), Image.open(file, formats=FORMATS) as image:
        if image.mode not in (*GREY, *COLOUR):  # others are clipped, not scaled, to 8 bits
            raise DataError(
                f"{file} has pixels of mode {image.mode!r}: 8 bits, grey or in colour, are read "
                f"({', '.join((*GREY, *COLOUR))})"
            )
        if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise DataError(f"{file} has transparent pixels: put it on the background that the model expects")
        array = np.array(image.convert("L" if image.mode in GREY else "RGB"))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()


def from_npz(path: str | Path) -> Dataset:
    """The arrays ``images`` and ``labels`` of an ``.npz`` file, and the names ``classes`` where it has them.

    ``images`` is [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3, which tells the last two apart: uint8, or floats
    in [0, 1]. ``labels`` are integers [N] from 0 on. Images come in rounds over the classes, like those of a folder, so that
    the first ``n`` hold all classes.

    Raises:
        DataError: the file cannot be read, lacks an array, or one has another shape, type or range.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file} is no file")
    with _reading(file):
        with zipfile.ZipFile(file) as members:
            _fits(file, sum(member.file_size for member in members.infolist()))
        with np.load(file, allow_pickle=False) as arrays:
            wanted = [name for name in ("images", "labels", "classes") if name in arrays]
            held = {name: np.asarray(arrays[name]) for name in wanted}  # what is no array comes as bytes
            found = ", ".join(arrays.files) or "none"
    if missing := {"images", "labels"} - held.keys():
        raise DataError(f"{file} lacks the arrays {', '.join(sorted(missing))}; it has {found}")
    images, labels = _channels_first(file, held["images"]), held["labels"]
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{file}: labels must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    named = held.get("classes", np.arange(min(max(2, high + 1), MOST_CLASSES)))
    if named.ndim != 1 or not 0 <= low <= high < len(named):
        raise DataError(
            f"{file}: labels must be 0 or more and below the number of classes; one label is {low if low < 0 else high} "
            f"and there are {named.size} classes {list(named.shape)} (at most {MOST_CLASSES} without names)"
        )
    with _reading(file):
        classes = tuple(named.astype(str).tolist())
    by_class = np.argsort(labels, kind="stable")
    place = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    order = by_class[np.argsort(place, kind="stable")]
    pixels, targets = torch.from_numpy(images[order]), torch.from_numpy(labels[order].astype(np.int64))
    if pixels.dtype == torch.uint8:
        return Dataset.from_pixels(file.stem, "test", pixels, targets, classes)
    return Dataset(file.stem, "test", pixels, targets, classes, "")


def _channels_first(file: Path, images: np.ndarray) -> np.ndarray:
    """Images as [N, C, H, W], uint8 or float32 in [0, 1]."""
    shape, floats = list(images.shape), images.dtype.kind == "f"
    if not (floats or images.dtype == np.uint8) or images.ndim not in (3, 4) or images.size == 0:
        raise DataError(
            f"{file}: images must be uint8, or floats in [0, 1], of shape [N, H, W], [N, H, W, C] or [N, C, H, W], "
            f"got {images.dtype} {shape}"
        )
    _fits(file, 5 * images.size)
    if images.ndim == 3:
        images = images[:, None]
    elif (images.shape[1] in (1, 3)) == (images.shape[3] in (1, 3)):
        raise DataError(
            f"{file}: images of shape {shape} can be read in two ways or in none: [N, C, H, W] or [N, H, W, C], "
            "where C is 1 or 3 in one of the two and not in both"
        )
    elif images.shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if floats:
        with np.errstate(all="ignore"):
            images = images.astype(np.float32)
    low, high = images.min(), images.max()
    if not (0 <= low <= high <= 1 if floats else high > 1):
        raise DataError(
            f"{file}: floats must lie in [0, 1] and uint8 reach up to 255, got {images.dtype} in [{low:.9g}, {high:.9g}]"
        )
    return images
