"""Data sets: what is read, and what is refused. Nothing here touches the network or needs real data."""

import dataclasses
import gc
import gzip
import hashlib
import io
import os
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from robustutils import artifacts, data
from robustutils.data import _files, _torchvision
from robustutils.data._torchvision import datasets

ON_DISK = [name for name in data.NAMES if name not in ("digits", "fonts_embedded")]


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Refuse every connection; a test that serves one puts its own opener in place."""

    def refuse(*args, **kwargs):
        raise AssertionError("a test tried to open a connection")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def tiny_mnist() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    return {
        "MNIST/raw/train-images-idx3-ubyte": idx(pixels),
        "MNIST/raw/train-labels-idx1-ubyte": idx(np.arange(7, dtype=np.uint8)),
        "MNIST/raw/t10k-images-idx3-ubyte": idx(pixels[:3]),
        "MNIST/raw/t10k-labels-idx1-ubyte": idx(np.arange(3, dtype=np.uint8)),
    }


def tiny_cifar10() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    batch = pickle.dumps({"data": pixels, "labels": [3, 8]})
    names = [file for file, _ in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)]
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    folder = datasets.CIFAR10.base_folder
    return {**{f"{folder}/{name}": batch for name in names}, f"{folder}/batches.meta": meta}


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A root with a tiny MNIST whose checksums count as the published ones."""
    files = tiny_mnist()
    write(tmp_path, files)
    monkeypatch.setitem(_files.CHECKSUMS, "mnist", {path: md5(content) for path, content in files.items()})
    return tmp_path


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """The same for CIFAR-10, where torchvision does the checking."""
    files = tiny_cifar10()
    write(tmp_path, files)
    sums = {path: md5(content) for path, content in files.items()}
    monkeypatch.setitem(_files.CHECKSUMS, "cifar10", sums)
    pairs = [[Path(path).name, digest] for path, digest in sums.items()]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", pairs[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", pairs[5:6])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": pairs[6][1]})
    return tmp_path


def write_gtsrb(root: Path, count: int, size: tuple[int, int] = (32, 32)) -> None:
    draw = np.random.default_rng(1)
    folder = root / "gtsrb" / "GTSRB"
    rows = ["Filename;ClassId"]
    for index in range(count):
        image = Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))
        for file in (
            folder / f"Training/{index % 2:05d}/{index:05d}.ppm",
            folder / f"Final_Test/Images/{index:05d}.ppm",
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
        rows.append(f"{index:05d}.ppm;{index % 2}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows) + "\n")


# --- where, and which name


def test_root_is_the_argument_then_the_variable_then_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *args, **kwargs: str(tmp_path / "user"))
    monkeypatch.setenv("ROBUSTUTILS_DATA", str(tmp_path / "variable"))
    assert data.find_root(tmp_path / "argument") == tmp_path / "argument"
    assert data.find_root() == tmp_path / "variable"
    monkeypatch.setenv("ROBUSTUTILS_DATA", "")
    assert data.find_root() == tmp_path / "user"


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("mnits", "train", "data set 'mnits'.*'mnist'.*digits, mnist, "),
        ("fashion-mnist", "train", "'fashion-mnist'.*'fashion_mnist'"),
        ("zebra", "train", "data set 'zebra'; .*digits"),
        ("mnist", "tset", "split of mnist 'tset'.*'test'.*train, test"),
        ("imagenet", "train", "split of imagenet 'train'.* val"),
    ],
)
def test_unknown_name_or_split_lists_what_is_allowed(name, split, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, split)


@pytest.mark.parametrize("name", ON_DISK)
def test_absent_set_says_where_it_looked_and_how_to_provide_it(name, tmp_path):
    root = tmp_path / "nowhere"
    with pytest.raises(data.DataError) as error:
        data.load(name, "val" if name == "imagenet" else "train", root=root)
    text = str(error.value)
    assert f"data set {name} is not in {root}" in text
    assert _files.REQUIRED[name][0] in text
    assert "ROBUSTUTILS_DATA" in text
    if name in data.PUBLIC:
        assert "`make data`" in text
    assert not root.exists(), "a failed load left something behind"


# --- the embedded sets, and the type


def test_digits_are_1297_and_500_images_with_50_of_each_class_in_the_test_set():
    train, test = data.load("digits"), data.load("digits", "test")
    assert train.images.shape == (1297, 1, 28, 28)
    assert test.images.shape == (500, 1, 28, 28)
    assert torch.bincount(test.labels).tolist() == [50] * 10
    assert torch.bincount(train.labels).tolist() == [128, 132, 127, 133, 131, 132, 131, 129, 124, 130]
    assert train.images.dtype == torch.float32
    assert (train.images.min(), train.images.max()) == (0, 1)
    # Written down: digits have to be the same on every machine.
    assert train.fingerprint == "a8e4e3d886d511009777d58cc2f3f95592dd6e2f27fd174eaadc2b303610fd2c"
    assert test.fingerprint == "e2c0983588984798a929d4cc0248d333003bf89f05aab61fb447c00960054e4e"


def test_digits_are_the_originals_resized_bilinearly_and_shared_by_no_two_splits():
    from sklearn.datasets import load_digits

    original = load_digits()
    train, test = data.load("digits"), data.load("digits", "test")
    source = torch.from_numpy(original.images / 16).unsqueeze(1)
    resized = F.interpolate(source, size=(28, 28), mode="bilinear", align_corners=False)
    expected = (resized * 255).round().flatten(1)
    found = (torch.cat([train.images, test.images]).double() * 255).round().flatten(1)
    distance = torch.cdist(found, expected, p=float("inf"))
    # A mean of grey levels can lie half way between two, so one level is what rounding may cost.
    assert distance.min(dim=1).values.max() <= 1
    labels = torch.cat([train.labels, test.labels])
    assert torch.equal(labels, torch.from_numpy(original.target)[distance.argmin(dim=1)])
    assert len(set(distance.argmin(dim=1).tolist())) == 1797, "an image is in both splits, or missing"


def test_fonts_embedded_loads_its_first_images_without_any_file(tmp_path):
    loaded = data.load("fonts_embedded", "test", root=tmp_path)
    assert loaded.images.shape == (40_000, 1, 28, 28)
    assert loaded.classes == tuple("ABCDEFGHIJ")
    assert torch.bincount(loaded.labels).tolist() == [4_000] * 10


def test_first_is_a_prefix_with_the_fingerprint_of_just_these(mnist):
    whole = data.load("mnist", root=mnist)
    part = whole.first(3)
    assert len(part) == 3
    assert torch.equal(part.images, whole.images[:3])
    assert torch.equal(part.labels, whole.labels[:3])
    assert part.fingerprint != whole.fingerprint
    assert whole.first(7).fingerprint == whole.fingerprint
    # The test file holds the same three images and labels: equal content, equal fingerprint.
    assert part.fingerprint == data.load("mnist", "test", root=mnist).fingerprint


@pytest.mark.parametrize("n", [0, -1, 8])
def test_first_refuses_a_number_outside_of_the_set(mnist, n):
    with pytest.raises(ValueError, match=f"n = {n}.*mnist.* 7 examples"):
        data.load("mnist", root=mnist).first(n)


def test_fingerprint_sees_one_label_and_one_pixel():
    pixels, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    base = data.Dataset.from_pixels("x", "train", pixels, labels, ("a", "b")).fingerprint
    assert base == data.Dataset.from_pixels("y", "test", pixels, labels, ("a", "b")).fingerprint
    assert base != data.Dataset.from_pixels("x", "train", pixels, labels.flip(0), ("a", "b")).fingerprint
    pixels[1, 0, 3, 3] = 1
    assert base != data.Dataset.from_pixels("x", "train", pixels, labels, ("a", "b")).fingerprint


# --- reading, in the real layout at a tiny size


def test_mnist_is_read_as_written(mnist):
    loaded = data.load("mnist", root=mnist)
    pixels = np.frombuffer(tiny_mnist()["MNIST/raw/train-images-idx3-ubyte"][16:], np.uint8).reshape(
        7, 1, 28, 28
    )
    assert np.array_equal(loaded.images.numpy(), pixels.astype(np.float32) / 255)
    assert loaded.labels.tolist() == list(range(7))
    assert loaded.labels.dtype == torch.int64


def test_mnist_ignores_the_unverified_processed_files_of_old_versions(mnist):
    (mnist / "MNIST" / "processed").mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1)), mnist / "MNIST" / "processed" / file
        )
    assert len(data.load("mnist", root=mnist)) == 7


def test_cifar10_has_its_channels_first(cifar10):
    loaded = data.load("cifar10", "test", root=cifar10)
    pixels = pickle.loads(tiny_cifar10()["cifar-10-batches-py/test_batch"])["data"].reshape(2, 3, 32, 32)
    assert np.array_equal(loaded.images.numpy(), pixels.astype(np.float32) / 255)
    assert loaded.labels.tolist() == [3, 8]
    assert loaded.classes[3] == "class 3"
    assert len(data.load("cifar10", root=cifar10)) == 10


def test_emnist_is_the_digits_split_and_upright(tmp_path):
    stored = np.zeros((2, 28, 28), dtype=np.uint8)
    stored[0, 5, :] = 255  # EMNIST stores transposed images: this is a vertical stroke
    for split in ("train", "test"):
        write(
            tmp_path / "EMNIST" / "raw",
            {
                f"emnist-digits-{split}-images-idx3-ubyte": idx(stored),
                f"emnist-digits-{split}-labels-idx1-ubyte": idx(np.array([1, 9], dtype=np.uint8)),
            },
        )
    loaded = data.load("emnist", root=tmp_path)
    assert loaded.images.shape == (2, 1, 28, 28)
    assert loaded.images[0, 0, :, 5].tolist() == [1.0] * 28
    assert loaded.images.sum() == 28
    assert loaded.labels.tolist() == [1, 9]


def write_celeba(root: Path, monkeypatch) -> None:
    """Ten images whose left half is dark; the odd ones are labelled Male."""
    names = [f"{index:06d}.jpg" for index in range(1, 11)]
    (root / "celeba" / "img_align_celeba").mkdir(parents=True)
    image = np.full((218, 178, 3), 200, dtype=np.uint8)
    image[:, :89] = 40
    for name in names:
        Image.fromarray(image).save(root / "celeba" / "img_align_celeba" / name)
    male = [1 if index % 2 else -1 for index in range(10)]
    lists = {
        "list_attr_celeba.txt": [
            "10",
            "Smiling Male",
            *(f"{n} -1 {m}" for n, m in zip(names, male, strict=True)),
        ],
        "identity_CelebA.txt": [f"{n} 1" for n in names],
        "list_bbox_celeba.txt": ["10", "image_id x y w h", *(f"{n} 0 0 1 1" for n in names)],
        "list_landmarks_align_celeba.txt": ["10", "lx ly", *(f"{n} 0 0" for n in names)],
        "list_eval_partition.txt": [f"{n} 0" for n in names],
    }
    contents = {f"celeba/{file}": ("\n".join(rows) + "\n").encode() for file, rows in lists.items()}
    write(root, contents)
    monkeypatch.setitem(
        _files.CHECKSUMS, "celeba", {path: md5(content) for path, content in contents.items()}
    )
    listed = [("", digest, Path(path).name) for path, digest in _files.CHECKSUMS["celeba"].items()]
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)


def test_celeba_is_cropped_to_56x48_split_in_file_order_and_labelled_by_male(tmp_path, monkeypatch):
    write_celeba(tmp_path, monkeypatch)
    train, test = data.load("celeba", root=tmp_path), data.load("celeba", "test", root=tmp_path)
    assert train.images.shape == (9, 3, 56, 48)
    assert test.images.shape == (1, 3, 56, 48)
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert test.labels.tolist() == [1]
    assert train.classes[1] == "male"
    # The edge of the dark half, in the middle of the original, is in the middle of the crop.
    assert train.images[0, :, :, :22].max() < 0.3
    assert train.images[0, :, :, 26:].min() > 0.6


def test_celeba_with_a_changed_list_shows_both_checksums(tmp_path, monkeypatch):
    write_celeba(tmp_path, monkeypatch)
    file = tmp_path / "celeba" / "list_attr_celeba.txt"
    published = md5(file.read_bytes())
    file.write_text(file.read_text().replace("-1 1", "-1 -1"))
    with pytest.raises(data.DataError, match=rf"list_attr_celeba\.txt.*{published}"):
        data.load("celeba", root=tmp_path)


def test_imagenet_reads_the_validation_folder_resized_and_cropped_in_the_centre(tmp_path, monkeypatch):
    wnids = {
        "n01440764": ("tench", "Tinca tinca"),
        "n01443537": ("goldfish",),
        "n01484850": ("great white shark",),
    }
    root = tmp_path / "imagenet"
    for index, wnid in enumerate(wnids):
        (root / "val" / wnid).mkdir(parents=True)
        wide = np.zeros((400, 800, 3), dtype=np.uint8)
        wide[:, 200:600] = 80 * (index + 1)
        for copy in range(2):
            Image.fromarray(wide).save(root / "val" / wnid / f"ILSVRC2012_val_{copy}.JPEG", quality=95)
    torch.save((wnids, list(wnids)), root / "meta.bin")
    loaded = data.load("imagenet", "val", root=tmp_path)
    assert loaded.images.shape == (6, 3, 299, 299)
    assert loaded.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.classes == ("tench", "goldfish", "great white shark")
    centre = loaded.images[:, :, 2:-2, 2:-2].mean(dim=(1, 2, 3))
    assert centre.tolist() == pytest.approx([c / 255 for c in (80, 80, 160, 160, 240, 240)], abs=0.01)
    monkeypatch.setattr(data, "IMAGENET_LIMIT", 3)
    assert data.load("imagenet", "val", root=tmp_path).labels.tolist() == [0, 1, 2], (
        "the limit is spread over classes"
    )


def test_imagenet_without_its_meta_file_says_what_is_missing(tmp_path):
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    with pytest.raises(data.DataError, match=r"imagenet.*ILSVRC2012_devkit_t12\.tar\.gz"):
        data.load("imagenet", "val", root=tmp_path)


def test_gtsrb_is_resized_to_32x32(tmp_path, monkeypatch):
    write_gtsrb(tmp_path, 4, size=(40, 50))
    monkeypatch.setitem(data._GTSRB_COUNTS, "gtsrb", {"train": (4,), "test": (4,)})
    for split in ("train", "test"):
        loaded = data.load("gtsrb", split, root=tmp_path)
        assert loaded.images.shape == (4, 3, 32, 32)
        assert sorted(loaded.labels.tolist()) == [0, 0, 1, 1]
        assert len(loaded.classes) == 43


@pytest.mark.parametrize(("asked", "there"), [("gtsrb", "gtsrb_half"), ("gtsrb_half", "gtsrb")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_half_and_whole_gtsrb_are_never_taken_for_each_other(tmp_path, monkeypatch, asked, there, split):
    write_gtsrb(tmp_path, 2)
    monkeypatch.setitem(data._GTSRB_COUNTS, there, {"train": (2,), "test": (2,)})
    with pytest.raises(data.DataError, match=f"{asked} .* {there}: 2 images in {split}"):
        data.load(asked, split, root=tmp_path)


def test_gtsrb_with_an_image_missing_is_refused(tmp_path):
    write_gtsrb(tmp_path, 3)
    with pytest.raises(data.DataError, match=r"3 images in train.* 26,640 or 39,209"):
        data.load("gtsrb", root=tmp_path)


def test_gtsrb_half_with_other_pixels_shows_both_checksums(tmp_path, monkeypatch):
    write_gtsrb(tmp_path, 2)
    monkeypatch.setitem(data._GTSRB_COUNTS, "gtsrb_half", {"train": (2,), "test": (2,)})
    with pytest.raises(data.DataError, match=r"train pixels.*[0-9a-f]{64}.*60158122812c"):
        data.load("gtsrb_half", root=tmp_path)


# --- damage


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
@pytest.mark.parametrize(
    ("name", "path"),
    [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("cifar10", "cifar-10-batches-py/data_batch_2")],
)
@pytest.mark.parametrize("download", [False, True])
def test_damaged_file_is_named_with_both_checksums_and_left_alone(request, name, path, damage, download):
    root = request.getfixturevalue(name)
    published = md5((root / path).read_bytes())
    broken = damage((root / path).read_bytes())
    (root / path).write_bytes(broken)
    with pytest.raises(data.DataError) as error:
        data.load(name, root=root, download=download)
    for part in (str(root / path), md5(broken), published):
        assert part in str(error.value)
    assert (root / path).read_bytes() == broken, "the damaged file was touched"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_truncated_image_is_named(tmp_path, monkeypatch):
    write_gtsrb(tmp_path, 2)
    monkeypatch.setitem(data._GTSRB_COUNTS, "gtsrb", {"train": (2,), "test": (2,)})
    file = tmp_path / "gtsrb/GTSRB/Training/00001/00001.ppm"
    file.write_bytes(truncate(file.read_bytes()))
    with pytest.raises(data.DataError, match=r"00001\.ppm.*read"):
        data.load("gtsrb", root=tmp_path)
    gc.collect()  # torchvision leaves the file open; its warning belongs to this test


def test_truncated_file_without_a_published_checksum_is_still_an_error(tmp_path):
    content = {path: idx(np.zeros((2, 28, 28), dtype=np.uint8)) for path in _files.REQUIRED["emnist"]}
    write(tmp_path, {path: truncate(idx_file) for path, idx_file in content.items()})
    with pytest.raises(data.DataError, match=r"emnist.*read"):
        data.load("emnist", root=tmp_path)


# --- download


class Response(io.BytesIO):
    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url, self.length = url, len(content)


@pytest.fixture
def serve(monkeypatch):
    """Answer every request from a table of last path segments; everything else is 'not found'."""
    asked: list[str] = []

    def start(files: dict[str, bytes]) -> list[str]:
        def urlopen(request, timeout=None):
            url = request if isinstance(request, str) else request.full_url
            asked.append(url)
            file = url.rsplit("/", 1)[1]
            if file not in files:
                raise urllib.error.URLError("no route to host")
            return Response(url, files[file])

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return start


@pytest.fixture
def public_mnist(monkeypatch):
    """The archives of the tiny MNIST, whose checksums count as the published ones."""
    files = tiny_mnist()
    archives = {f"{Path(path).name}.gz": gzip.compress(content) for path, content in files.items()}
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, md5(gz)) for name, gz in archives.items()])
    monkeypatch.setitem(_files.CHECKSUMS, "mnist", {path: md5(content) for path, content in files.items()})
    return archives


def everything_in(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def test_fetch_refuses_a_name_that_is_not_public_before_any_download(tmp_path):
    with pytest.raises(ValueError, match=r"'cifar'.*'cifar10'"):
        data.fetch(["mnist", "cifar"], tmp_path)


def test_fetch_leaves_verified_files_only_and_asks_once(tmp_path, serve, public_mnist):
    asked = serve(public_mnist)
    data.fetch(["mnist"], tmp_path / "new")
    assert everything_in(tmp_path / "new") == sorted(tiny_mnist()), (
        "more, or less, than the files that are read"
    )
    assert len(data.load("mnist", root=tmp_path / "new")) == 7
    asked.clear()
    data.fetch(["mnist"], tmp_path / "new")
    assert asked == [], "files that are there were downloaded again"


def test_load_downloads_only_when_told_to(tmp_path, serve, public_mnist):
    asked = serve(public_mnist)
    with pytest.raises(data.DataError, match="is not in"):
        data.load("mnist", root=tmp_path)
    assert asked == []
    assert len(data.load("mnist", "test", root=tmp_path, download=True)) == 3


def test_fetch_completes_a_set_and_keeps_what_is_there(tmp_path, serve, public_mnist):
    serve(public_mnist)
    data.fetch(["mnist"], tmp_path)
    kept, lost = (tmp_path / path for path in list(tiny_mnist())[:2])
    os.utime(kept, (1, 1))
    lost.unlink()
    data.fetch(["mnist"], tmp_path)
    assert lost.exists()
    assert kept.stat().st_mtime == 1


@pytest.mark.parametrize("name", data.FETCHABLE)
def test_failed_download_is_one_clear_error_and_leaves_nothing(tmp_path, serve, name):
    serve({})
    with pytest.raises(data.DataError) as error:
        data.fetch([name], tmp_path)
    assert f"{name} could not be downloaded to {tmp_path}" in str(error.value)
    assert "no route to host" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_download_with_the_wrong_content_is_refused(tmp_path, serve, public_mnist):
    file = "train-images-idx3-ubyte.gz"
    serve({**public_mnist, file: gzip.compress(b"something else")})
    with pytest.raises(data.DataError, match=r"mnist.*downloaded"):
        data.fetch(["mnist"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request, "urlopen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        data.fetch(["invariance"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_of_the_invariance_arrays_is_pinned_to_a_commit_and_verified(tmp_path, serve, monkeypatch):
    files = {Path(path).name: path.encode() for path in _files.REQUIRED["invariance"]}
    sums = {path: hashlib.sha256(path.encode()).hexdigest() for path in _files.REQUIRED["invariance"]}
    monkeypatch.setitem(_files.CHECKSUMS, "invariance", sums)
    asked = serve(files)
    data.fetch(["invariance"], tmp_path)
    assert everything_in(tmp_path) == sorted(_files.REQUIRED["invariance"])
    assert len(asked) == 15
    assert all(
        "/ftramer/Excessive-Invariance/780cab97b95f3a2a50c8b2cd14f2256ce8062c41/" in url for url in asked
    )

    (tmp_path / "invariance" / "linf" / "all_nns.npy").unlink()
    serve({**files, "all_nns.npy": b"something else"})
    with pytest.raises(data.DataError, match=r"all_nns\.npy.*damaged"):
        data.fetch(["invariance"], tmp_path)
    assert len(everything_in(tmp_path)) == 14, "an unverified file was moved into place"


def test_fetch_leaves_a_damaged_file_alone(mnist):
    file = mnist / "MNIST/raw/train-labels-idx1-ubyte"
    file.write_bytes(b"broken")
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte.*damaged"):
        data.fetch(["mnist"], mnist)
    assert file.read_bytes() == b"broken"


def test_fetch_into_a_place_that_is_no_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(data.DataError, match=r"mnist.*downloaded"):
        data.fetch(["mnist"], tmp_path / "file")


# --- torchvision beside a CPU build of torch


def test_torchvision_imports_and_its_two_operators_have_a_schema():
    import torchvision

    assert torchvision.datasets is datasets
    assert hasattr(torch.ops.torchvision, "nms")
    assert hasattr(torch.ops.torchvision, "qnms")


@pytest.mark.parametrize("fits", [True, False])
def test_compiled_operators_are_used_where_they_fit(monkeypatch, fits):
    def load_library(path):
        if not fits:
            raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(torch.ops, "load_library", load_library)
    assert _torchvision._compiled_operators_load() is fits


# --- the real files, where they are

GTSRB_HALF_TRAIN = """
105 1110 1125 705 990 930 210 720 705 735 1005 660 1050 1080 390 315 210 555 600 105 180 165
195 255 135 750 300 120 270 135 225 390 120 345 210 600 195 105 1035 150 180 120 120
"""
GTSRB_HALF_TEST = """
18 289 301 191 261 234 63 162 194 183 254 169 281 272 101 93 79 135 166 23 33 34
43 58 35 196 67 20 56 39 55 103 22 91 42 154 42 29 281 37 31 27 36
"""
REAL = {
    # name, split: images, first labels, mean and standard deviation per channel, images per class, fingerprint
    ("mnist", "train"): (
        60_000,
        [5, 0, 4, 1, 9],
        [0.130660],
        [0.308108],
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "d18cfd466eb1",
    ),
    ("mnist", "test"): (
        10_000,
        [7, 2, 1, 0, 4],
        None,
        None,
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        "a0863a96c44e",
    ),
    ("fashion_mnist", "train"): (
        60_000,
        [9, 0, 0, 3, 0],
        [72.940 / 255],
        [90.021 / 255],
        [6000] * 10,
        "1f243a60b4b7",
    ),
    ("fashion_mnist", "test"): (10_000, [9, 2, 1, 1, 6], None, None, [1000] * 10, "9a494dc49efe"),
    ("cifar10", "train"): (
        50_000,
        [6, 9, 9, 4, 1],
        [0.49140, 0.48216, 0.44653],
        [0.24703, 0.24349, 0.26159],
        [5000] * 10,
        "973ef2abb589",
    ),
    ("cifar10", "test"): (10_000, [3, 8, 8, 0, 6], None, None, [1000] * 10, "2c33b053d1cd"),
    ("gtsrb_half", "train"): (
        19_605,
        [0] * 5,
        [0.3396, 0.3115, 0.3206],
        [0.2751, 0.2640, 0.2704],
        [int(count) for count in GTSRB_HALF_TRAIN.split()],
        "8144e27a9b64",
    ),
    ("gtsrb_half", "test"): (
        5_000,
        [16, 38, 38, 12, 12],
        None,
        None,
        [int(count) for count in GTSRB_HALF_TEST.split()],
        "75a545a39a60",
    ),
    ("fonts", "train"): (40_000, [0, 1, 2, 3, 4], None, None, [4000] * 10, "d6df8b06031b"),
    ("fonts", "test"): (40_000, [0, 1, 2, 3, 4], None, None, [4000] * 10, "35987f815611"),
}


@pytest.mark.parametrize(("name", "split"), list(REAL))
def test_real_set_has_the_known_content(name, split):
    if not os.environ.get("ROBUSTUTILS_DATA") or _files.missing(name, data.find_root()):
        pytest.skip(f"ROBUSTUTILS_DATA does not hold {name}")
    count, first, mean, deviation, per_class, fingerprint = REAL[name, split]
    loaded = data.load(name, split)
    assert len(loaded) == count
    assert loaded.labels[:5].tolist() == first
    assert loaded.fingerprint.startswith(fingerprint)
    if mean:
        assert loaded.images.mean(dim=(0, 2, 3)).tolist() == pytest.approx(mean, abs=1e-4)
        assert loaded.images.std(dim=(0, 2, 3)).tolist() == pytest.approx(deviation, abs=1e-4)
    if per_class:
        assert torch.bincount(loaded.labels).tolist() == per_class
    assert len(loaded.classes) == len(torch.bincount(loaded.labels))


def test_taken_and_changed_examples_have_fingerprints_of_their_own(digits):
    some = digits.take(torch.tensor([5, 0]))
    assert torch.equal(some.images, digits.images[[5, 0]])
    assert some.labels.tolist() == [int(digits.labels[5]), int(digits.labels[0])]
    assert digits.take(torch.arange(3)).fingerprint == digits.first(3).fingerprint != some.fingerprint
    darker = some.changed(some.images * 0.999)
    assert torch.equal(darker.labels, some.labels)
    assert len({some.fingerprint, darker.fingerprint, some.changed(some.images * 0.998).fingerprint}) == 3
    with pytest.raises(ValueError, match=r"3 images.* 2 labels.*digits"):
        some.changed(digits.images[:3])


def by_hand(dataset, **changes):
    return dataclasses.replace(dataset, **{"fingerprint": ""} | changes)


@pytest.mark.parametrize("given", ["", "the fingerprint of another"])
def test_a_data_set_made_by_hand_is_known_by_its_contents(digits, given):
    some = digits.first(20)
    wrong = by_hand(some, labels=(some.labels + 1) % 10, fingerprint=given)
    inverted = by_hand(some, images=1 - some.images, fingerprint=some.fingerprint)
    paler = by_hand(some, images=some.images * 0.999, fingerprint=some.fingerprint)
    kept = dataclasses.replace(some, labels=some.labels.flip(0))
    assert (
        len({artifacts.digest(artifacts.describe(item)) for item in (some, wrong, inverted, paler, kept)})
        == 5
    )
    assert by_hand(some, name="mine", fingerprint=given).fingerprint == some.fingerprint


def test_letters_with_other_images_are_not_known_by_their_codes():
    letters = data.load("fonts_embedded", "test").first(20)
    other = by_hand(letters, images=letters.images.flip(3), fingerprint=letters.fingerprint)
    assert other.fingerprint != letters.fingerprint
    assert torch.equal(other.take(torch.arange(3)).images, letters.images[:3].flip(3))


@pytest.mark.parametrize(
    "images",
    [torch.rand(2, 1, 2, 2).double(), torch.full((2, 1, 2, 2), torch.nan), torch.zeros(2, 1, 2, 2).half()],
)
def test_contents_of_any_type_have_a_fingerprint(images):
    labels = torch.tensor([0, 1])
    found = data.Dataset("x", "test", images.requires_grad_(), labels, ("a", "b"), "")
    assert found.fingerprint == dataclasses.replace(found).fingerprint
    assert found.fingerprint != dataclasses.replace(found, labels=labels.flip(0)).fingerprint


def test_some_of_changed_images_are_not_taken_for_some_of_the_original_ones(digits):
    paler = digits.changed(digits.images * 0.9999)
    assert paler.first(10).fingerprint != digits.first(10).fingerprint
    assert digits.changed(digits.images).first(10).fingerprint == digits.first(10).fingerprint


# ---- some of a data set ----


def test_some_examples_are_the_first_or_all_there_are(digits):
    assert data.some(digits, 7).fingerprint == digits.first(7).fingerprint
    assert len(data.some(digits, 10**6)) == len(digits)


def test_some_traffic_signs_are_spread_over_the_classes_they_are_sorted_by():
    labels = torch.arange(430) // 10
    images = torch.rand(430, 3, 2, 2)
    signs = data.Dataset("gtsrb_half", "train", images, labels, tuple(map(str, range(43))), "a" * 64)
    assert len(data.some(signs, 86).labels.unique()) == 43
    assert torch.equal(data.some(dataclasses.replace(signs, split="test"), 5).labels, labels[:5])
