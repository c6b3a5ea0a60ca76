"""Where the files of a data set lie below the data root, their published checksums, and how to get them."""

import hashlib
import logging
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

from robustutils.data._torchvision import datasets
from robustutils.registry import choose

log = logging.getLogger(__name__)


class DataError(RuntimeError):
    """A data set is absent, damaged, or not the one that was asked for."""


_INVARIANCE_URL = (
    "https://raw.githubusercontent.com/ftramer/Excessive-Invariance/780cab97b95f3a2a50c8b2cd14f2256ce8062c41"
)
_INVARIANCE_SHA256 = {
    "invariance_examples": {"indexs.npy": "a6bd76c3327259475ff8d4e48a4c49cb1fd84df90bd651c45312486b3903968d"},
    "invariance_examples/l0": {
        "automated.npy": "02eb24c04a8b7a26c397fa02e4ae90d43c9e0818eb9f6dcd007953d5279c6d8b",
        "automated_labels.npy": "8e4387f2a9e89678911071838dbf82a59788f49a07784b8960a3310c640a30ec",
    },
    "invariance_examples/linf": {
        "automated_eps03.npy": "3f1dad7705a272bee7ff6186e241b591a4bba88f7f3a94c686954ba7f78bb986",
        "automated_eps03_labels.npy": "79c93e7ab230591861ea74996ba6c95942290ed9e209e83f0b45b6b0c468ad18",
        "automated_eps04.npy": "751cbe4a5a2b85255e6e38a12e9eca690b2a4d54dc8e9e0d9dd6a582aec37978",
        "automated_eps04_labels.npy": "bb28481ffe49bf13a77a06f43e32895e6270739119e1fc2e1e232aa02bc11316",
        "manual_eps04.npy": "d3e40f37cda8dffb29a08cf8edd56ebd5838e302468a1f7bdc77f58ee662dd5f",
        "manual_eps04_labels.npy": "c953a34663c9c8aeda12a2f1231a6c6ba035a3f9687ac10abcebfb5660390550",
        "manual_indexs.npy": "f92394039cbd784ec8da5adcd653f63c81cf805c474b5fc43a7357e4afc882cc",
    },
    "linf": {
        "X_test_100.npy": "61d42f88b62c6d84d5015738e7c3f3ef0ff217495447e743fdb9ebe0933cb9ba",
        "adv_examples.npy": "3f1dad7705a272bee7ff6186e241b591a4bba88f7f3a94c686954ba7f78bb986",
        "all_grids_nns.npy": "926f2460b066a2a0023b51735698ad492f143b9ad6cefe904812737085eafd38",
        "all_nns.npy": "9ab1697e7db46f5650317fdd41582f1e4484ac4a87f27ac58404a3a696a671bf",
        "all_y_nns.npy": "7ff21b9d3d56da46ffc0032b9aeb2767684b547d899bf7e1a0340c63d5717a4c",
    },
}

# Of MNIST and Fashion-MNIST torchvision lists sums of the archives, not of the unpacked files that it reads.
CHECKSUMS: dict[str, dict[str, str]] = {
    "mnist": {
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "cifar10": {
        f"{datasets.CIFAR10.base_folder}/{file}": md5
        for file, md5 in (
            *datasets.CIFAR10.train_list,
            *datasets.CIFAR10.test_list,
            (datasets.CIFAR10.meta["filename"], datasets.CIFAR10.meta["md5"]),
        )
    },
    "celeba": {f"celeba/{file}": md5 for _, md5, file in datasets.CelebA.file_list if file.endswith(".txt")},
    "invariance": {
        f"invariance/{folder}/{file}": digest
        for folder, files in _INVARIANCE_SHA256.items()
        for file, digest in files.items()
    },
}

_GTSRB = ("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv")
REQUIRED: dict[str, tuple[str, ...]] = {
    **{name: tuple(files) for name, files in CHECKSUMS.items()},
    "celeba": (*CHECKSUMS["celeba"], "celeba/img_align_celeba"),
    "gtsrb": _GTSRB,
    "gtsrb_half": _GTSRB,
    "emnist": tuple(
        f"EMNIST/raw/emnist-digits-{split}-{file}"
        for split in ("train", "test")
        for file in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ),
    "imagenet": ("imagenet",),
    "fonts": ("fonts/prototypes.npz",),
}

_MAKE_DATA = "run `make data`, which downloads it"
_PROVIDE = {
    "emnist": "run `python -c \"from robustutils import data; data.fetch(['emnist'])\"`, which downloads it",
    "gtsrb_half": "run `make data` for the whole set and ask for 'gtsrb'",
    "celeba": "get the aligned images and the five lists from its authors",
    "imagenet": "get the archives of the validation images and of the development kit from image-net.org",
    "fonts": (
        "rebuild it from a checkout of Google Fonts with robustutils.papers.disentangling.fonts.build_prototypes, "
        "or make one of other fonts with `python -m robustutils fonts FOLDER`"
    ),
}


def find_root(root: str | Path | None = None) -> Path:
    """The data root: the argument, else ``ROBUSTUTILS_DATA``, else the user's data folder."""
    chosen = (
        root
        or os.environ.get("ROBUSTUTILS_DATA")
        or platformdirs.user_data_dir("robustutils", appauthor=False)
    )
    return Path(chosen).expanduser().absolute()


def missing(name: str, root: Path) -> list[str]:
    """The files and folders of a data set that are not below ``root``."""
    return [path for path in REQUIRED.get(name, ()) if not (root / path).exists()]


def require(name: str, root: Path) -> None:
    """Raise :class:`DataError`, saying how to provide it, unless a data set is below ``root``."""
    if absent := missing(name, root):
        raise DataError(
            f"the data set {name} is not in {root}, which lacks {', '.join(absent)}. "
            f"Either {_PROVIDE.get(name, _MAKE_DATA)}; "
            "or put the files there or set ROBUSTUTILS_DATA to the folder that holds them."
        )


def verify(name: str, root: Path) -> None:
    """Raise :class:`DataError`, with both checksums, if a file of the data set is not the published one."""
    for path, expected in CHECKSUMS.get(name, {}).items():
        file = root / path
        if file.is_file():
            algorithm = "sha256" if len(expected) == 64 else "md5"
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, algorithm).hexdigest()
            if found != expected:
                raise DataError(
                    f"{file} is damaged: its {algorithm.upper()} is {found}, published is {expected}. "
                    "It was left as it is; delete it and provide it anew."
                )


def _download_invariance(root: Path) -> None:
    for path in REQUIRED["invariance"]:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        url = f"{_INVARIANCE_URL}/{path.removeprefix('invariance/')}"
        with urllib.request.urlopen(url, timeout=60) as response:
            file.write_bytes(response.read())


_DOWNLOAD: dict[str, Callable[[Path], object]] = {
    "mnist": lambda root: datasets.MNIST(root, download=True),
    "fashion_mnist": lambda root: datasets.FashionMNIST(root, download=True),
    "cifar10": lambda root: datasets.CIFAR10(root, download=True),
    "gtsrb": lambda root: [datasets.GTSRB(root, split, download=True) for split in ("train", "test")],
    "invariance": _download_invariance,
    "emnist": lambda root: datasets.EMNIST(root, "digits", download=True),
}
FETCHABLE = tuple(_DOWNLOAD)
PUBLIC = ("mnist", "fashion_mnist", "cifar10", "gtsrb", "invariance")


def fetch(names: Iterable[str] = PUBLIC, root: str | Path | None = None) -> None:
    """Download public data sets into the data root, each verified first and then moved into place.

    What is there already is verified and kept; a download that fails or is interrupted leaves nothing behind.

    Args:
        names: data sets, of ``FETCHABLE``; "invariance" are the human-labelled arrays of Tramer et al., 2020.
        root: the data root; see :func:`find_root`.

    Raises:
        ValueError: an unknown name.
        DataError: a download failed or does not match its checksum, or a file that is there is damaged.
    """
    names, target = list(names), find_root(root)
    for name in names:
        choose("public data set", name, FETCHABLE)
    for name in names:
        verify(name, target)
        if not missing(name, target):
            log.info("%s: already in %s", name, target)
            continue
        log.info("%s: downloading to %s", name, target)
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target) as scratch:
                _DOWNLOAD[name](Path(scratch))
                verify(name, Path(scratch))
                for path in missing(name, target):
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    (Path(scratch) / path).replace(target / path)
        except Exception as error:  # whatever an address, an archive or a disk gives
            reason = " ".join(str(error).split())
            raise DataError(
                f"{name} could not be downloaded to {target}: {reason}. Nothing of it was kept; "
                f"try again later, or put the files there yourself ({', '.join(REQUIRED[name])})."
            ) from error
        log.info("%s: ready", name)
