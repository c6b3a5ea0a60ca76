"""Damaged data of one's own: 2,000 ``.npz`` files and 1,000 images, each read or refused in a sentence that names it.

Not collected by the normal run, which damages 200 and 50: ``pytest tests/faults/fault_own_data.py``, half a minute.
"""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustutils.data import DataError
from robustutils.tools import own_data

FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A file with bits flipped, a stretch overwritten, removed or doubled, or its end cut off."""
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.choice([1, 4, 32, 400]))
    before, stretch, after = content[:start], content[start:end], content[end:]
    return draw.choice(
        [
            before + bytes([stretch[0] ^ 1 << draw.randrange(8)]) + content[start + 1 :],
            before + draw.randbytes(len(stretch)) + after,
            before + draw.choice([b"\x00", b"\xff", b"9"]) * len(stretch) + after,
            before + after,
            before + stretch + stretch + after,
            before,
        ]
    )


def npz(draw: random.Random) -> bytes:
    """A damaged file of 6 images: the whole, or one array in it under a checksum that is right."""
    arrays = {"images": np.arange(96, dtype=np.uint8).reshape(6, 4, 4), "labels": np.arange(6) % 3}
    arrays["classes"] = np.array(["ant", "bee", "cat"])
    inside = draw.choice([None, *arrays])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as members:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            content = member.getvalue()
            members.writestr(f"{name}.npy", damaged(content, draw) if name == inside else content)
    return file.getvalue() if inside else damaged(file.getvalue(), draw)


def image(draw: random.Random) -> bytes:
    """A damaged image of 16 x 16 pixels in one of the formats that are read."""
    file = io.BytesIO()
    Image.effect_noise((16, 16), 60).convert("RGB").save(file, draw.choice(FORMATS))
    return damaged(file.getvalue(), draw)


def refused(make: Callable[[random.Random], bytes], read: Callable, file: Path, n: int) -> int:
    """How many of ``n`` damaged files are refused; the others are read, and no error but a sentence comes of any."""
    told = []
    for seed in range(n):
        file.write_bytes(make(random.Random(seed)))
        try:
            read()
        except DataError as error:
            told.append(str(error))
    assert [said for said in told if str(file) not in said or len(said.splitlines()) != 1] == []
    return len(told)


def folder_of(path: Path) -> Path:
    """A folder of two classes with an image in one; where the other image is wanted."""
    for name in ("ant", "bee"):
        (path / name).mkdir()
        Image.effect_noise((16, 16), 60).convert("RGB").save(path / name / "1.png")
    return path / "bee" / "1.png"


@pytest.mark.parametrize("n", [2000])
def test_damaged_arrays_are_read_or_refused(tmp_path, n):
    file = tmp_path / "mine.npz"
    assert refused(npz, lambda: own_data.from_npz(file), file, n) > n / 2


@pytest.mark.parametrize("n", [1000])
def test_damaged_images_are_read_or_refused(tmp_path, n):
    file = folder_of(tmp_path)
    assert refused(image, lambda: own_data.from_folder(tmp_path), file, n) > n / 4
