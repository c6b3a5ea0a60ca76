"""Data of one's own: nothing is guessed, and what is damaged, ambiguous or hostile is one sentence with the file's name."""

import io
import os
import random
import re
import zipfile

import fault_own_data
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from robustutils import __main__
from robustutils.data import DataError
from robustutils.tools import own_data

GREY = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
RGB = np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)
LABELS = np.array([0, 1])


def refusal(read, path) -> str:
    """The one sentence with the file's name that reading ends with."""
    with pytest.raises(DataError) as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.fixture
def refused(tmp_path):
    """What is said of an ``.npz`` file of some arrays, without the file's name."""
    file = tmp_path / "mine.npz"

    def save(**arrays) -> str:
        np.savez(file, **({"images": GREY, "labels": LABELS} | arrays))
        said = refusal(own_data.from_npz, file)
        assert str(file) in said
        return said.replace(str(file), "")

    return save


@pytest.fixture
def folder(tmp_path):
    """Two classes of one grey image each."""
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY[number]).save(tmp_path / name / "1.png")
    return tmp_path


# ---- which side of an array is the channel ----


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (RGB, np.moveaxis(RGB, 3, 1)),
        (np.moveaxis(RGB, 3, 1), np.moveaxis(RGB, 3, 1)),
    ],
    ids=["NHW", "N1HW", "NHW1", "NHW3", "N3HW"],
)
def test_one_or_three_channels_tell_the_layout_whatever_the_type(tmp_path, stored, seen, floats):
    np.savez(tmp_path / "mine.npz", images=stored / 255 if floats else stored, labels=LABELS)
    read = own_data.from_npz(tmp_path / "mine.npz")
    assert read.images.shape == seen.shape
    torch.testing.assert_close(read.images, torch.from_numpy(seen).float() / 255)


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 3), (2, 1, 8, 1), (2, 3, 8, 1), (2, 8, 8, 4), (2, 2, 8, 8), (2, 8, 1, 8)]
)
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_a_layout_that_can_be_read_in_two_ways_or_none_is_refused(refused, shape, kind):
    said = refused(images=np.full(shape, 2, np.uint8) if kind is np.uint8 else np.ones(shape))
    assert f"images of shape {list(shape)}" in said
    assert "C is 1 or 3" in said


# ---- pixels and labels ----


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.array([[np.nan, 0.5]] * 2)[:, None], r"floats.*\[0, 1\].*nan"),
        (GREY[:, None] / 30.0, r"floats.*\[0, 1\].*1\.2999"),
        (np.full((2, 4, 5), 1e300), r"floats.*\[0, 1\].*inf"),
        (GREY / -255.0, r"floats.*\[0, 1\].*-0\.15"),
        (GREY % 2, r"uint8 reach up to 255, got uint8 in \[0, 1\]"),
        (GREY.astype(complex), "images must be uint8.*complex128"),
        (GREY > 9, "images must be uint8.*bool"),
        (GREY.astype(str), "images must be uint8.*<U3"),
        (np.uint8(7), r"images must be uint8.*uint8 \[\]"),
        (np.zeros((2, 0, 5), np.uint8), r"images must be uint8.*\[2, 0, 5\]"),
        (np.zeros((0, 4, 5), np.uint8), r"images must be uint8.*\[0, 4, 5\]"),
        (np.array([GREY, None], object), "allow_pickle|[Oo]bject"),
    ],
)
def test_pixels_that_are_none_are_refused(refused, images, message):
    assert re.search(message, refused(images=images))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(1), r"labels must be integers \[2\], got int64 \[\]"),
        (np.eye(2), r"labels must be integers \[2\], got float64 \[2, 2\]"),
        (np.eye(2, dtype=int), r"labels must be integers \[2\], got int64 \[2, 2\]"),
        (np.array([0.0, 1.0]), r"labels must be integers \[2\], got float64"),
        (np.array([0, 1], "m8[s]"), r"labels must be integers \[2\], got timedelta64"),
        (np.array(["0", "1"]), r"labels must be integers \[2\], got <U1"),
        (np.array([], int), r"labels must be integers \[2\], got int64 \[0\]"),
        (np.array([0, 10**9]), "one label is 1000000000 and there are 100000 classes"),
        (np.array([0, 2**64 - 1], np.uint64), "one label is 18446744073709551615"),
        (np.array([0, -(2**63)]), "one label is -9223372036854775808"),
    ],
)
def test_labels_that_are_none_are_refused_before_names_are_made(refused, labels, message):
    assert re.search(message, refused(labels=labels))


@pytest.mark.parametrize(
    ("kind", "label"), [(np.uint8, 255), (np.int8, 127), (np.uint16, 65535), (">i8", 999)]
)
def test_the_highest_label_of_a_type_does_not_overflow(tmp_path, kind, label):
    np.savez(tmp_path / "mine.npz", images=GREY, labels=np.array([0, label], kind))
    read = own_data.from_npz(tmp_path / "mine.npz")
    assert (len(read.classes), read.labels.tolist()) == (label + 1, [0, label])


def test_names_of_classes_are_a_list_of_texts(tmp_path, refused):
    assert "1 classes []" in refused(classes=np.array("ant"))
    assert re.search(r"4 classes \[2, 2\]", refused(classes=np.array([["a", "b"]] * 2)))
    assert "cannot be read" in refused(classes=np.array([b"\xff", b"a"]))
    np.savez(tmp_path / "mine.npz", images=GREY, labels=LABELS, classes=[b"ant", b"bee"])
    assert own_data.from_npz(tmp_path / "mine.npz").classes == ("ant", "bee")


# ---- files that are not what they say ----


def header_of(shape: str) -> bytes:
    """An ``.npy`` file whose header claims a shape and that holds 16 bytes."""
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(16)


def zipped(content: bytes, name: str = "images.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr(name, content)
        members.writestr("labels.npy", header_of("(16,)"))
    return file.getvalue()


def encrypted(content: bytes) -> bytes:
    """The file with the flag of encryption set in both headers of its first member."""
    changed = bytearray(content)
    changed[6] |= 1
    changed[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a zip file"),
        (b"images, labels\n1, 2\n", "not a zip file"),
        (header_of("(16,)"), "not a zip file"),
        (encrypted(zipped(header_of("(16, 1, 1)"))), "encrypted"),
        (zipped(header_of("(16, 7000000, 7000000)")), "713. TiB|array is too big|allocate"),
        (zipped(header_of("(16, -1, 1)")), "cannot be read|negative"),
        (zipped(b"no array"), "images must be uint8"),
        (zipped(header_of("(16,)"), "pixels.npy"), "lacks the arrays images; it has pixels, labels"),
    ],
    ids=["empty", "text", "npy", "encrypted", "terabytes", "negative", "no array", "other names"],
)
def test_a_file_that_is_no_npz_is_one_sentence(tmp_path, content, message):
    file = tmp_path / "mine.npz"
    file.write_bytes(content)
    assert re.search(message, refusal(own_data.from_npz, file))
    assert str(file) in refusal(own_data.from_npz, file)


@pytest.mark.parametrize("read", [own_data.from_npz, own_data.from_folder])
def test_what_is_not_there_is_said(tmp_path, read):
    assert f"{tmp_path / 'none.npz'} is no" in refusal(read, tmp_path / "none.npz")


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, folder, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros((2, 1000, 1000), np.uint8), labels=LABELS)
    free = psutil.virtual_memory()._replace(available=10**6)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(np, "load", None)
    assert re.search(r"bomb\.npz needs .* GiB of memory", refusal(own_data.from_npz, tmp_path / "bomb.npz"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free._replace(available=100))
    assert "GiB of memory" in refusal(own_data.from_folder, folder)


def test_the_command_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "mine.npz").write_bytes(zipped(header_of("(16, 7000000, 7000000)")))
    asked = [
        "examine",
        "small_cnn",
        "--data",
        str(tmp_path / "mine.npz"),
        "--eps",
        "0.1",
        "--out",
        str(tmp_path),
    ]
    assert __main__.main(asked) == 1
    said = capsys.readouterr().err
    assert "mine.npz cannot be read" in said
    assert "Traceback" not in said


def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path):
    arrays, image = tmp_path / "mine.npz", fault_own_data.folder_of(tmp_path)
    assert fault_own_data.refused(fault_own_data.npz, lambda: own_data.from_npz(arrays), arrays, 200) > 100
    read = lambda: own_data.from_folder(tmp_path)  # noqa: E731
    assert fault_own_data.refused(fault_own_data.image, read, image, 50) > 10


# ---- folders ----


def test_what_systems_leave_behind_is_neither_image_nor_class(folder):
    for name in ("._1.png", ".DS_Store", "Thumbs.db"):
        (folder / "ant" / name).write_bytes(b"\x00\x05\x16\x07")
        (folder / name).write_bytes(b"\x00")
    for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        (folder / name / "ant").mkdir(parents=True)
        (folder / "bee" / name).mkdir()
    read = own_data.from_folder(folder)
    assert (read.classes, len(read)) == (("ant", "bee"), 2)


@pytest.mark.parametrize("left", [(), ("._1.png",), ("notes.txt", "Thumbs.db")])
def test_classes_without_images_are_named(folder, left):
    for name in ("cow", "dog"):
        (folder / name).mkdir()
        for file in left:
            (folder / name / file).write_bytes(b"\x00")
    assert refusal(own_data.from_folder, folder).endswith("in cow, dog")


def clear(mode: str, alpha: int) -> Image.Image:
    """A drawing whose colours are all black and whose shape is in its transparency, or opaque."""
    drawing = Image.new("RGBA", (5, 4), (0, 0, 0, 255))
    drawing.putpixel((2, 2), (0, 0, 0, alpha))
    return drawing.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused_and_opaque_ones_read(folder, mode):
    for file in folder.glob("*/*.png"):
        clear(mode, 255).save(file)
    assert own_data.from_folder(folder).images.shape == (2, 3 if mode == "RGBA" else 1, 4, 5)
    clear(mode, 254).save(folder / "bee" / "1.png")
    assert re.search(r"bee/1\.png has transparent pixels", refusal(own_data.from_folder, folder))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_colour_that_stands_for_transparent_is_refused(folder, mode):
    colour = (0, 0, 0) if mode == "RGB" else 0
    Image.new(mode, (5, 4)).save(folder / "ant" / "1.png", transparency=colour)
    assert re.search(r"ant/1\.png has transparent pixels", refusal(own_data.from_folder, folder))


def postscript() -> bytes:
    file = io.BytesIO()
    Image.new("L", (5, 4)).save(file, "EPS")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"a text", postscript(), random.Random(0).randbytes(500)],
    ids=["empty", "text", "eps", "noise"],
)
def test_a_file_that_is_no_image_is_named(folder, content):
    (folder / "bee" / "1.png").write_bytes(content)
    assert re.search(r"bee/1\.png cannot be read", refusal(own_data.from_folder, folder))


@pytest.mark.parametrize("limit", [15, 5])  # Pillow warns above its limit and raises above twice of it
def test_an_image_that_would_fill_the_memory_is_refused(folder, monkeypatch, limit):
    Image.new("1", (4, 4)).save(folder / "bee" / "1.png")
    Image.new("1", (3, 1)).save(folder / "ant" / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert re.search(r"bee/1\.png cannot be read: DecompressionBomb", refusal(own_data.from_folder, folder))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_what_is_no_file_is_named_and_not_waited_for(folder, make):
    make(folder / "bee" / "2.png")
    assert "2.png is no file" in refusal(own_data.from_folder, folder)
