"""FONTS: letters A to J under random affine maps, a data set whose manifold is known (DIS, section 3.1).

An image is ``render(prototype, theta)``: a glyph and six parameters. Rendering is differentiable with respect
to ``theta``, so the true manifold can be searched like any other threat set.
"""

import hashlib
import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustutils._dataset import Dataset, sha256
from robustutils._files import DataError, choose, find_root, require
from robustutils.storage import write_atomically

log = logging.getLogger(__name__)

LETTERS = "ABCDEFGHIJ"
FONT_FILES = tuple(Path(__file__).with_name("font_files.txt").read_text().split())
IDENTITY = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The theta that renders a prototype as it is: shift x, y; shear x, y; scale; rotation."""
RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "easy": ((-0.1, 0.1),) * 2 + ((-0.2, 0.2),) * 2 + ((0.9, 1.1), (-np.pi / 6, np.pi / 6)),
    "moderate": ((-0.2, 0.2),) * 2 + ((-0.4, 0.4),) * 2 + ((0.85, 1.15), (-np.pi / 3, np.pi / 3)),
    "hard": ((-0.2, 0.2),) * 2 + ((-0.5, 0.5),) * 2 + ((0.75, 1.15), (-np.pi / 2, np.pi / 2)),
}
"""Lowest and highest value of each of the six parameters; the paper uses "hard"."""
CAPACITY = {"train": 960_000, "test": 40_000}
_PUBLISHED_SHA256 = "a75bb7d653cff4537f1888e6b57bb7bb640a5c55de4e632e3f09807c54a8ec56"


def affine_matrices(theta: Tensor) -> Tensor:
    """The affine maps [N, 2, 3] of parameters [N, 6], from output to input coordinates in [-1, 1]."""
    shift_x, shift_y, shear_x, shear_y, scale, angle = theta.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([scale * (cos - sin * shear_x), scale * (cos * shear_x - sin), shift_x], dim=1)
    row_y = torch.stack([scale * (cos * shear_y + sin), scale * (cos - sin * shear_y), shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def render(images: Tensor, theta: Tensor) -> Tensor:
    """Images [N, C, H, W] in [0, 1] under the affine maps ``theta`` [N, 6], differentiable in both.

    The map says where each output pixel is looked up, so a scale above 1 shrinks what is shown, and a shift
    moves it against its sign, by the share of half the image. Bilinear, black outside.

    Raises:
        ValueError: ``theta`` is not [N, 6].
    """
    if theta.shape != (len(images), 6):
        raise ValueError(f"theta is {list(theta.shape)}; {len(images)} images need [{len(images)}, 6]")
    # The published code is of a time when the outermost sample points were the centres of the corner pixels.
    grid = F.affine_grid(affine_matrices(theta), list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=True).clamp(0, 1)


def theta_bounds(ranges: str = "hard") -> tuple[Tensor, Tensor]:
    """Lowest and highest theta, float32 [6] each, of one of ``RANGES``.

    Raises:
        ValueError: an unknown name.
    """
    choose("theta ranges", ranges, RANGES)
    low, high = torch.tensor(RANGES[ranges], dtype=torch.float32).unbind(1)
    return low, high


def sample_theta(n: int, ranges: str = "hard", generator: torch.Generator | None = None) -> Tensor:
    """``n`` independent uniform draws of theta, float32 [n, 6]. More draws begin with the same ones.

    Raises:
        ValueError: an unknown name of ranges.
    """
    low, high = theta_bounds(ranges)
    return low + (high - low) * torch.rand(n, 6, generator=generator)


def rasterise(font_file: str | Path, letters: str = LETTERS, size: int = 28) -> Tensor:
    """Glyphs of a TrueType font, white on black, uint8 [letters, size, size].

    The point size is 3/4 of ``size`` (21 for 28), or as much smaller as it takes to leave a margin of two
    pixels around every letter; the ink of each letter is centred to the pixel.

    Raises:
        ValueError: the font lacks a letter, draws two alike, or none of the point sizes fits.
        OSError: the file is no font that FreeType reads.
    """
    for points in range(size * 3 // 4, size // 2, -1):
        font = ImageFont.truetype(font_file, points)
        glyphs = [_ink(font, letter, 3 * size) for letter in letters]
        if len({glyph.tobytes() for glyph in glyphs if glyph.size}) < len(letters):
            raise ValueError(f"{font_file} does not have different glyphs for each of {letters}")
        if max(max(glyph.shape) for glyph in glyphs) <= size - 4:
            return torch.from_numpy(np.stack([_centred(glyph, size) for glyph in glyphs]))
    raise ValueError(f"{font_file}: the letters {letters} do not fit into {size} x {size} pixels")


def _ink(font: ImageFont.FreeTypeFont, letter: str, canvas: int) -> np.ndarray:
    """The smallest box around the ink of a letter, empty where there is none."""
    image = Image.new("L", (canvas, canvas))
    ImageDraw.Draw(image).text((canvas // 3, canvas // 3), letter, font=font, fill=255)
    return np.asarray(image.crop(image.getbbox() or (0, 0, 0, 0)))


def _centred(glyph: np.ndarray, size: int) -> np.ndarray:
    height, width = glyph.shape
    top, left = (size - height) // 2, (size - width) // 2
    return np.pad(glyph, ((top, size - height - top), (left, size - width - left)))


def _check_distinct(prototypes: Tensor, names: Sequence[str]) -> None:
    seen: dict[bytes, str] = {}
    for font, name in zip(prototypes.numpy(), names, strict=True):
        if (twin := seen.setdefault(font.tobytes(), name)) != name:
            raise ValueError(f"the fonts {twin} and {name} are alike, pixel by pixel")


def embedded_prototypes() -> Tensor:
    """Prototypes of the fonts that matplotlib ships and that have the letters, uint8 [fonts, 10, 28, 28].

    For the quick profile: a few families only, so an easier task than the 1,000 fonts of the paper.
    """
    found = {}
    for file in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        try:
            found[file.name] = rasterise(file)
        except ValueError as error:
            log.debug("not used: %s", error)
    prototypes = torch.stack(list(found.values()))
    _check_distinct(prototypes, list(found))
    return prototypes


def load_prototypes(root: str | Path | None = None) -> Tensor:
    """Prototypes of 1,000 Google Fonts, uint8 [fonts, 10, 28, 28]: ``fonts/prototypes.npz`` of the data root.

    Raises:
        DataError: the file is absent or damaged.
    """
    folder = find_root(root)
    require("fonts", folder)
    file = folder / "fonts" / "prototypes.npz"
    content = file.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            if broken := members.testzip():  # numpy reads past a wrong CRC
                raise ValueError(f"the CRC of {broken} is wrong")
        with np.load(io.BytesIO(content)) as archive:
            prototypes = torch.from_numpy(archive["prototypes"])
            _check_distinct(prototypes, archive["file_name"].tolist())
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy, each in many ways
        raise DataError(
            f"{file} is damaged ({error}): its SHA-256 is {hashlib.sha256(content).hexdigest()}, "
            f"published is {_PUBLISHED_SHA256}. It was left as it is; delete it and provide it anew."
        ) from error
    return prototypes


def build_prototypes(checkout: str | Path, out: str | Path) -> None:
    """Rebuild ``prototypes.npz`` from a checkout of Google Fonts, in its state of March 2015.

    Each font is looked for as ``folder/file`` in the checkout, up to two folders deeper (``ofl/lato/...``).

    Raises:
        FileNotFoundError: fonts are missing; the message names each of them.
        ValueError: a font draws other letters than it did, so that they are missing, too large or not unique.
    """
    found = {
        name: next(
            (file for depth in ("", "*/", "*/*/") for file in sorted(Path(checkout).glob(depth + name))), None
        )
        for name in FONT_FILES
    }
    if absent := [name for name, file in found.items() if file is None]:
        raise FileNotFoundError(
            f"{len(absent)} of {len(FONT_FILES)} fonts are not in {checkout}: {', '.join(absent)}"
        )
    prototypes = torch.stack([rasterise(file) for file in found.values() if file])
    _check_distinct(prototypes, FONT_FILES)

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez_compressed(
                stream,
                prototypes=prototypes.numpy(),
                letters=np.array(list(LETTERS)),
                file_name=np.array(FONT_FILES),
            )

    write_atomically(Path(out), write)


@dataclass(frozen=True, eq=False)
class FontsDataset(Dataset):
    """Rendered letters together with the codes that they were rendered from.

    Attributes:
        thetas: float32 [N, 6].
        fonts: int64 [N], indices into ``prototypes``; the second index is the label.
        prototypes: uint8 [fonts, 10, 28, 28].
    """

    thetas: Tensor
    fonts: Tensor
    prototypes: Tensor

    def glyphs(self) -> Tensor:
        """The prototype of each example, float32 [N, 1, 28, 28]: ``images`` is ``render(glyphs, thetas)``."""
        return self.prototypes[self.fonts, self.labels].unsqueeze(1).float() / 255

    def first(self, n: int) -> Self:
        part = replace(super().first(n), thetas=self.thetas[:n], fonts=self.fonts[:n])
        return replace(part, fingerprint=_fingerprint(part.prototypes, part.labels, part.thetas))


def _fingerprint(prototypes: Tensor, labels: Tensor, thetas: Tensor) -> str:
    """Of the codes: rendered pixels differ in the last bit from one processor to the next."""
    return sha256(prototypes, labels, thetas)


def dataset(
    prototypes: Tensor,
    n: int,
    split: str = "train",
    *,
    ranges: str = "hard",
    seed: int = 0,
    name: str = "fonts",
) -> FontsDataset:
    """The first ``n`` images of a split: all letters of the first font, then of the second, and so on, anew.

    The test split continues the sequence behind the 960,000 training images. A larger ``n`` begins with the
    same images; every multiple of ten is balanced.

    Args:
        prototypes: uint8 [fonts, 10, 28, 28].
        n: 1 to 960,000 (train) or 40,000 (test).
        split: "train" or "test".
        ranges: a name in ``RANGES``.
        seed: of the draws of theta.
        name: the name of the data set.

    Raises:
        ValueError: an unknown split or ranges, or ``n`` outside of its bounds.
    """
    choose("split of fonts", split, CAPACITY)
    if not 1 <= n <= CAPACITY[split]:
        raise ValueError(f"n = {n}: the {split} split of fonts has 1 to {CAPACITY[split]} images")
    start = 0 if split == "train" else CAPACITY["train"]
    thetas = sample_theta(start + n, ranges, torch.Generator().manual_seed(seed))[start:]
    item = torch.arange(start, start + n)
    fonts, labels = item // len(LETTERS) % len(prototypes), item % len(LETTERS)
    images = torch.cat(
        [
            render(prototypes[f, c].unsqueeze(1).float() / 255, theta)
            for f, c, theta in zip(fonts.split(8192), labels.split(8192), thetas.split(8192), strict=True)
        ]
    )
    fingerprint = _fingerprint(prototypes, labels, thetas)
    return FontsDataset(name, split, images, labels, tuple(LETTERS), fingerprint, thetas, fonts, prototypes)
