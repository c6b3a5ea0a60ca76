"""FONTS: letters A to J under random affine maps, a data set whose manifold is known (DIS, section 3.1).

An image is ``render(prototype, theta)``: a glyph and six parameters. Rendering is differentiable with respect
to ``theta``, so the true manifold can be searched like any other threat set. Which glyph, and which theta, the number
of the image and a seed decide alone.
"""

import hashlib
import io
import logging
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustutils.data import DataError, Dataset, find_root, require, sha256
from robustutils.registry import choose
from robustutils.storage import write_atomically

log = logging.getLogger(__name__)

LETTERS = "ABCDEFGHIJ"
FONT_FILES = tuple(Path(__file__).with_name("font_files.txt").read_text(encoding="utf-8").split())
IDENTITY = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The theta that renders a prototype as it is: shift x, y; shear x, y; scale; rotation."""
RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "easy": ((-0.1, 0.1),) * 2 + ((-0.2, 0.2),) * 2 + ((0.9, 1.1), (-np.pi / 6, np.pi / 6)),
    "moderate": ((-0.2, 0.2),) * 2 + ((-0.4, 0.4),) * 2 + ((0.85, 1.15), (-np.pi / 3, np.pi / 3)),
    "hard": ((-0.2, 0.2),) * 2 + ((-0.5, 0.5),) * 2 + ((0.75, 1.15), (-np.pi / 2, np.pi / 2)),
    "digits": ((-0.15, 0.15),) * 2 + ((-0.2, 0.2),) * 2 + ((0.85, 1.15), (-np.pi / 10, np.pi / 10)),
}
"""Lowest and highest value of each of the six parameters: the paper draws FONTS from "hard", and transforms the images of
other data sets within "digits"."""
CAPACITY = {"train": 960_000, "test": 40_000}
LOADED = 40_000
"""Training images that are loaded by name (125 MB), the most that the paper trains on; :func:`dataset` makes more."""
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
    if not len(images):  # affine_grid takes none
        return images
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


@dataclass(frozen=True)
class Affine:
    """Images under affine maps, as a :class:`.latent.Manifold`: the codes are theta, the bases images."""

    ranges: str = "hard"

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        """:func:`render`: images [N, C, H, W] of codes [N, 6] and of the images that are moved."""
        with torch.autocast(codes.device.type, enabled=False):  # bfloat16 would misplace pixels
            return render(bases, codes)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """:func:`theta_bounds`."""
        return theta_bounds(self.ranges)


def _splitmix64(state: np.ndarray) -> np.ndarray:
    """The output function of the generator splitmix64 (Steele, Lea and Flood, 2014), uint64 to uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _uniforms(counters: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each counter, int64 to float64: it depends on the counter and the seed alone."""
    key = _splitmix64(np.array([seed % 2**64], dtype=np.uint64))
    steps = counters.astype(np.uint64) + np.uint64(1)
    return (_splitmix64(key + steps * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)) * 2.0**-53


def sample_theta(items: Tensor, ranges: str = "hard", *, seed: int = 0) -> Tensor:
    """The theta of each item, uniform in the ranges, float32 [n, 6] for int64 [n]; the same bits on every machine.

    An item has its theta whatever other items are asked for, and in whichever order.

    Raises:
        ValueError: an unknown name of ranges.
    """
    choose("theta ranges", ranges, RANGES)
    low, high = np.array(RANGES[ranges]).T
    shares = _uniforms(6 * items.numpy()[:, None] + np.arange(6), seed)
    return torch.from_numpy((low + (high - low) * shares).astype(np.float32))


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
        # no character, so drawn like any that the font lacks
        absent = _ink(font, "\uffff", 3 * size).tobytes()
        if len({glyph.tobytes() for glyph in glyphs} - {b"", absent}) < len(letters):
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


def _twins(fonts: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Each font that is alike to an earlier one, pixel by pixel, and that one."""
    seen: dict[bytes, str] = {}
    for name, glyphs in fonts.items():
        if (twin := seen.setdefault(glyphs.numpy().tobytes(), name)) != name:
            yield name, twin


def _check_distinct(fonts: Mapping[str, Tensor]) -> None:
    for name, twin in _twins(fonts):
        raise ValueError(f"the fonts {twin} and {name} are alike, pixel by pixel")


def prototypes_of(folder: str | Path) -> tuple[Tensor, tuple[str, ...], dict[str, str]]:
    """Prototypes of the TrueType and OpenType fonts in a folder and the folders below it, in the order of their paths.

    Returns:
        The prototypes, uint8 [fonts, 10, 28, 28]; the path of each font below the folder; and why each other file was
        skipped, by its path: it does not open, lacks a letter, or draws the same as an earlier one.

    Raises:
        ValueError: there is no such folder, or no usable font in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    found: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in (".ttf", ".otf"):
            name = file.relative_to(folder).as_posix()
            try:
                found[name] = rasterise(file)
            except ValueError as error:
                skipped[name] = str(error)
            except OSError as error:
                skipped[name] = f"{file} does not open: {error}"
    for name, twin in list(_twins(found)):
        skipped[name] = f"{folder / name} draws the same letters as {twin}"
        del found[name]
    for reason in skipped.values():
        log.info("skipped: %s", reason)
    if not found:
        why = "".join(f"\n  {reason}" for reason in skipped.values())
        raise ValueError(
            f"{folder} holds no usable .ttf or .otf font; {len(skipped)} skipped{why and ':'}{why}"
        )
    return torch.stack(list(found.values())), tuple(found), skipped


def embedded_prototypes() -> Tensor:
    """Prototypes of the fonts that matplotlib ships and that have the letters, uint8 [fonts, 10, 28, 28].

    For the quick profile: a few families only, so an easier task than the 1,000 fonts of the paper.
    """
    return prototypes_of(Path(matplotlib.get_data_path(), "fonts", "ttf"))[0]


def load_prototypes(root: str | Path | None = None) -> Tensor:
    """The prototypes in ``fonts/prototypes.npz`` of the data root, uint8 [fonts, 10, 28, 28].

    The published file holds 1,000 Google Fonts; one of other fonts, which ``python -m robustutils fonts`` makes, is read
    like it, and the fingerprint of a data set tells them apart.

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
            _check_distinct(dict(zip(archive["file_name"].tolist(), prototypes, strict=True)))
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy, each in many ways
        raise DataError(
            f"{file} is damaged ({error}): its SHA-256 is {hashlib.sha256(content).hexdigest()}, "
            f"published is {_PUBLISHED_SHA256}. It was left as it is; delete it and provide it anew."
        ) from error
    return prototypes


def build_prototypes(checkout: str | Path, out: str | Path) -> None:
    """Rebuild ``prototypes.npz`` from a checkout of Google Fonts, in its state of March 2015.

    Each font is looked for as ``folder/file`` anywhere in the checkout (``ofl/lato/...``).

    Raises:
        FileNotFoundError: fonts are missing; the message names each of them.
        ValueError: a font draws other letters than it did, so that they are missing, too large or not unique.
    """
    files = {"/".join(file.parts[-2:]): file for file in sorted(Path(checkout).rglob("*.ttf"))}
    if absent := [name for name in FONT_FILES if name not in files]:
        raise FileNotFoundError(
            f"{len(absent)} of {len(FONT_FILES)} fonts are not in {checkout}: {', '.join(absent)}"
        )
    glyphs = {name: rasterise(files[name]) for name in FONT_FILES}
    _check_distinct(glyphs)
    write_prototypes(torch.stack(list(glyphs.values())), FONT_FILES, out)


def write_prototypes(prototypes: Tensor, names: tuple[str, ...], out: str | Path) -> None:
    """Write prototypes, uint8 [fonts, 10, 28, 28], and the name of each font as a file like the published one."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez_compressed(
                stream,
                prototypes=prototypes.numpy(),
                letters=np.array(list(LETTERS)),
                file_name=np.array(names),
            )

    write_atomically(Path(out), write)


def _glyphs(prototypes: Tensor, fonts: Tensor, labels: Tensor) -> Tensor:
    return prototypes[fonts, labels].unsqueeze(1).float() / 255


@dataclass(frozen=True, eq=False)
class FontsDataset(Dataset):
    """Rendered letters together with the codes that they were rendered from, see :class:`.latent.Coded`.

    Attributes:
        thetas: float32 [N, 6].
        fonts: int64 [N], indices into ``prototypes``; the second index is the label.
        prototypes: uint8 [fonts, 10, 28, 28].
        ranges: the name in ``RANGES`` of the bounds of ``thetas``.
    """

    thetas: Tensor
    fonts: Tensor
    prototypes: Tensor
    ranges: str

    @classmethod
    def of(
        cls,
        prototypes: Tensor,
        fonts: Tensor,
        labels: Tensor,
        thetas: Tensor,
        name: str,
        split: str,
        ranges: str,
    ) -> Self:
        """The data set of some codes, rendered a few at a time."""
        parts = zip(*(part.split(8192) for part in (fonts, labels, thetas)), strict=True)
        images = [render(_glyphs(prototypes, some, letters), theta) for some, letters, theta in parts]
        known = (labels, tuple(LETTERS), _fingerprint(prototypes, fonts, labels, thetas), thetas, fonts)
        return cls(name, split, torch.cat(images), *known, prototypes, ranges, known=True)

    @property
    def codes(self) -> Tensor:
        """``thetas``."""
        return self.thetas

    @property
    def manifold(self) -> Affine:
        """The affine maps within ``ranges``: ``images`` is its ``decode(codes, glyphs())``."""
        return Affine(self.ranges)

    def bases(self, rows: Tensor) -> Tensor:
        """The prototypes of the examples at ``rows``, int64 [n]: float32 [n, 1, 28, 28] on the device of ``rows``."""
        places = rows.cpu()
        return _glyphs(self.prototypes, self.fonts[places], self.labels[places]).to(rows.device)

    def glyphs(self) -> Tensor:
        """The prototype of each example, float32 [N, 1, 28, 28]: ``images`` is ``render(glyphs, thetas)``."""
        return self.bases(torch.arange(len(self)))

    def take(self, chosen: Tensor) -> Self:
        fonts, labels, thetas = self.fonts[chosen], self.labels[chosen], self.thetas[chosen]
        if self.fingerprint != _fingerprint(self.prototypes, self.fonts, self.labels, self.thetas):
            # Changed images are not those of their codes any more, and are known by their pixels.
            return replace(super().take(chosen), fonts=fonts, thetas=thetas)
        return self.of(self.prototypes, fonts, labels, thetas, self.name, self.split, self.ranges)


def _fingerprint(prototypes: Tensor, fonts: Tensor, labels: Tensor, thetas: Tensor) -> str:
    """Of the codes: rendered pixels differ in the last bit from one processor to the next."""
    return sha256(prototypes, fonts, labels, thetas)


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
    _check_number(n, split)
    start = 0 if split == "train" else CAPACITY["train"]
    return _of_items(prototypes, torch.arange(start, start + n), split, ranges, seed, name)


def random_subset(prototypes: Tensor, n: int, seed: int) -> FontsDataset:
    """``n`` training images at random in the order of :func:`dataset`, where the first ``n`` are of few fonts.

    Args:
        prototypes: uint8 [fonts, 10, 28, 28].
        n: 1 to 960,000; a larger one holds the images of a smaller one.
        seed: of the choice.

    Raises:
        ValueError: ``n`` outside of its bounds.
    """
    _check_number(n, "train")
    # Counters that no theta is drawn from, so that a choice and thetas of one seed are independent.
    counters = np.arange(CAPACITY["train"]) + 6 * sum(CAPACITY.values())
    items = np.sort(np.argsort(_uniforms(counters, seed), kind="stable")[:n])
    return _of_items(prototypes, torch.from_numpy(items), "train")


def _check_number(n: int, split: str) -> None:
    choose("split of fonts", split, CAPACITY)
    if not 1 <= n <= CAPACITY[split]:
        raise ValueError(f"n = {n}: the {split} split of fonts has 1 to {CAPACITY[split]} images")


def _of_items(
    prototypes: Tensor, items: Tensor, split: str, ranges: str = "hard", seed: int = 0, name: str = "fonts"
) -> FontsDataset:
    fonts, labels = items // len(LETTERS) % len(prototypes), items % len(LETTERS)
    thetas = sample_theta(items, ranges, seed=seed)
    return FontsDataset.of(prototypes, fonts, labels, thetas, name, split, ranges)
