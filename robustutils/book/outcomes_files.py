"""Published outcomes: what happened to each example behind every published row.

``book/results/NAME.outcomes.safetensors`` holds pieces; a piece is one run of a chapter. Of each recorded row it keeps the
outcomes of every example (:class:`robustutils.outcomes.Measurement`), truth values packed to bits; and it keeps the
small artifacts of the run, from which the chapter can be executed again without measuring.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustutils import artifacts, storage
from robustutils.storage import Tensors

VARIABLE = "ROBUSTUTILS_OUTCOMES"
"""Names the file whose artifacts a run takes before it measures; set by ``publish``."""
LIMIT = 8 << 20
"""A chapter's file has at most so many bytes."""
MOST_POINTS = 100_000
"""Rows over more points than this (such as all pixels of a set) keep their numbers alone."""
KEY = "outcomes"


@dataclass(frozen=True)
class RowOutcomes:
    """One row of a piece: outcomes [seeds, N] by name, the places [N] in the test set, seeds, value and n."""

    arrays: Mapping[str, np.ndarray]
    images: np.ndarray
    seeds: tuple[int, ...]
    value: Any
    n: int


@dataclass(frozen=True, eq=False)
class Piece:
    """One run: where it comes from, its rows by (id, row), its small artifacts, the certificates of all it used."""

    about: Mapping[str, Any]
    rows: Mapping[tuple[str, str], RowOutcomes] = field(default_factory=dict)
    small: Mapping[str, Tensors] = field(default_factory=dict)
    certificates: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The run's parameters, its profile among them."""
        return dict(self.about["parameters"])


def of_run(about: Mapping[str, Any], measured: Mapping[tuple[str, str], Any]) -> Piece:
    """The piece of the run that this process has made: its provenance, and its measurements by (id, row)."""
    rows = {}
    for name, found in measured.items():
        arrays = {key: np.atleast_2d(np.asarray(values)) for key, values in found.outcomes.items()}
        arrays = {key: values for key, values in arrays.items() if values.shape[1] <= MOST_POINTS}
        count = max((values.shape[1] for values in arrays.values()), default=0)
        images = np.arange(count) if found.images is None else np.asarray(found.images)
        rows[name] = RowOutcomes(arrays, images, tuple(found.seeds), found.value, found.n)
    about = {key: value for key, value in about.items() if key != "artifacts"}
    shelf = artifacts.shelf
    return Piece(about, rows, dict(shelf.small), dict(shelf.used))


def export(
    path: str | os.PathLike[str], about: Mapping[str, Any], measured: Mapping[tuple[str, str], Any]
) -> None:
    """Write the piece of this process's run as a file of its own."""
    write(Path(path), [of_run(about, measured)])


def merged(pieces: Sequence[Piece], new: Piece) -> list[Piece]:
    """The pieces of a chapter after a new run: it replaces those whose rows it has all, and stands last.

    The certificates of networks that the new run did not need, because their outcomes were at hand, come along. A run that
    measured nothing else than the piece that it would replace leaves it, which says when it was measured.
    """
    replaced = [p for p in pieces if p.parameters == new.parameters or p.rows.keys() <= new.rows.keys()]
    if len(replaced) == 1 and _same(replaced[0], new):
        return list(pieces)
    networks = {
        name: certificate
        for piece in replaced
        for name, certificate in piece.certificates.items()
        if name.startswith("model-")
    }
    new = dataclasses.replace(new, certificates=networks | dict(new.certificates))
    return [*(piece for piece in pieces if piece not in replaced), new]


def _same(before: Piece, new: Piece) -> bool:
    """Whether a run has the rows of a piece and no artifact that the piece lacks, number by number, rounding aside."""

    def equal(one: RowOutcomes, other: RowOutcomes) -> bool:
        parts = [(one.images, other.images), (one.value, other.value)]
        if (one.seeds, one.n, one.arrays.keys()) != (other.seeds, other.n, other.arrays.keys()):
            return False
        parts += [(one.arrays[name], array) for name, array in other.arrays.items()]
        return all(
            np.shape(mine) == np.shape(yours) and np.allclose(mine, yours, rtol=1e-9) for mine, yours in parts
        )

    return (
        before.parameters == new.parameters
        and before.rows.keys() == new.rows.keys()
        and new.small.keys() <= before.small.keys()
        and all(equal(before.rows[name], row) for name, row in new.rows.items())
    )


class _Blobs:
    """Tensors stored once each, however often they are mentioned."""

    def __init__(self) -> None:
        self.stored: Tensors = {}

    def add(self, tensor: Tensor) -> list[Any]:
        shape, kind = list(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.bool:
            tensor = torch.from_numpy(np.packbits(tensor.numpy().reshape(-1)))
        name = storage.tensor_hash(tensor)[:24]
        self.stored[name] = tensor
        return [name, kind, shape]

    @staticmethod
    def get(stored: Tensors, mention: list[Any]) -> Tensor:
        name, kind, shape = mention
        tensor = stored[name]
        if kind == "bool":
            count = int(np.prod(shape, dtype=int))
            bits = np.unpackbits(tensor.numpy(), count=count).astype(bool)
            tensor = torch.from_numpy(bits)
        return tensor.reshape(shape)


def _short(values: np.ndarray) -> np.ndarray:
    """Numbers in half precision, which is enough to compare them, or in single precision where that is too small."""
    if values.dtype == bool:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else values.astype(np.float32)


def write(path: Path, pieces: Sequence[Piece]) -> None:
    """Write a chapter's outcomes, whole or not at all.

    Raises:
        ValueError: the file would be larger than :data:`LIMIT`; the message names what is largest in it.
    """
    blobs = _Blobs()
    described = [_describe(piece, blobs) for piece in pieces]
    size = sum(tensor.nbytes for tensor in blobs.stored.values()) + len(json.dumps(described))
    if size > LIMIT:
        small = [(name, tensors) for piece in pieces for name, tensors in piece.small.items()]
        sizes = ((sum(tensor.nbytes for tensor in tensors.values()), name) for name, tensors in small)
        largest = sorted(sizes, reverse=True)[:3]
        raise ValueError(
            f"{path.name} would have {size / 2**20:.1f} MiB and may have {LIMIT / 2**20:.0f}; largest: "
            + ", ".join(f"{name} ({bytes / 2**10:.0f} KiB)" for bytes, name in largest)
        )
    storage.write(path, KEY, blobs.stored, pieces=described)


def read(path: Path) -> list[Piece]:
    """The pieces of a file; none where there is no file.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        stored, about = storage.read(path, KEY)
    except FileNotFoundError:
        return []
    except storage.Damaged as problem:
        raise ValueError(f"damaged outcomes {path} ({problem}): git restores them") from problem
    return [_piece(described, stored) for described in about["pieces"]]


def _describe(piece: Piece, blobs: _Blobs) -> dict[str, Any]:
    """A piece as JSON that mentions its tensors; certificates that differ in their seconds alone stand once."""
    rows = []
    for (id, row), found in piece.rows.items():
        whole = np.array_equal(found.images, np.arange(len(found.images)))
        places = torch.from_numpy(found.images.astype(np.int32))
        rows.append(
            {
                "id": id,
                "row": row,
                "arrays": {name: blobs.add(torch.from_numpy(_short(a))) for name, a in found.arrays.items()},
                "images": len(found.images) if whole else blobs.add(places),
                "seeds": list(found.seeds),
                "value": found.value,
                "n": found.n,
            }
        )
    shared, certificates = {}, {}
    for name, certificate in piece.certificates.items():
        common = {key: value for key, value in certificate.items() if key != "seconds"}
        label = artifacts.digest(common)
        shared[label] = common
        certificates[name] = [label, certificate["seconds"]]
    small = {
        name: {key: blobs.add(tensor) for key, tensor in tensors.items()}
        for name, tensors in piece.small.items()
    }
    about = dict(piece.about)
    return {"about": about, "rows": rows, "small": small, "shared": shared, "certificates": certificates}


def _piece(described: dict[str, Any], stored: Tensors) -> Piece:
    """The piece that :func:`_describe` has described."""
    rows = {}
    for row in described["rows"]:
        arrays = {name: _Blobs.get(stored, mention).numpy() for name, mention in row["arrays"].items()}
        places = row["images"]
        images = np.arange(places) if isinstance(places, int) else _Blobs.get(stored, places).numpy()
        value = tuple(row["value"]) if isinstance(row["value"], list) else row["value"]
        rows[row["id"], row["row"]] = RowOutcomes(arrays, images, tuple(row["seeds"]), value, row["n"])
    small = {
        name: {key: _Blobs.get(stored, mention) for key, mention in tensors.items()}
        for name, tensors in described["small"].items()
    }
    certificates = {
        name: {**described["shared"][label], "seconds": seconds}
        for name, (label, seconds) in described["certificates"].items()
    }
    return Piece(described["about"], rows, small, certificates)


def at_hand() -> dict[str, tuple[Tensors, dict[str, Any]]]:
    """The artifacts of the file that :data:`VARIABLE` names, with their certificates, by name; else none."""
    path = os.environ.get(VARIABLE)
    return {
        name: (tensors, piece.certificates[name])
        for piece in (read(Path(path)) if path else [])
        for name, tensors in piece.small.items()
    }
