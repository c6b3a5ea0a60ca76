"""Do today's code and the published outcomes agree? Row by row, paired image by image and seed by seed."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustutils import provenance, storage
from robustutils.book.outcomes_files import Piece, RowOutcomes

MOST_CHANGED = 0.06
"""Share of a row's outcomes that may change, four at least: truth values that flip, numbers that move by their mean size.

Machines differ, and errors have a direction. Of 74 rows (six networks, five attacks and their losses, 500 images) a
processor without AVX-512 and bfloat16 moved none by more than 1.9 standard errors, and flipped 1.2% of truth values at most.
Of 78 rows measured on a GPU it was 2.5 and 5.6%, but 3.5 for one step on networks with pooling, where windows tie. Half of
the steps moved 14 of 26 multi-step rows by 10 standard errors and more, images shifted by 2/255 moved 16 of the 74 by 3.4
and more.
"""
ERRORS = 3
"""How far the mean of a row may move, in standard errors of the paired differences, or :data:`MOST_MOVED` if more."""
MOST_MOVED = 0.01
"""How far it may move in any case: as a share of the numbers' mean size, or of all truth values."""


@dataclass(frozen=True)
class Agreement:
    """A published row beside the same row measured again: on how many images, and what differs ('' where nothing does)."""

    id: str
    row: str
    n: int
    problem: str


def compare(published: Piece, today: Piece) -> list[Agreement]:
    """The rows that both pieces have outcomes of, on their common images and seeds.

    A chapter without rows is compared by the artifacts that both pieces have. Of pictures, [N, C, H, W], it is what models
    say of them that is compared, not the pixels: machines that round differently draw different examples.
    """
    found = []
    for name, row in published.rows.items():
        if name in today.rows:
            n, problem = _differ(row, today.rows[name])
            if n:
                found.append(Agreement(*name, n, problem))
    if not published.rows:
        for artifact in published.small.keys() & today.small.keys():
            after = {part: tensor.numpy() for part, tensor in today.small[artifact].items()}
            for part, tensor in published.small[artifact].items():
                if tensor.ndim != 4:
                    problem = _apart({part: tensor.numpy()}, after)
                    found.append(Agreement(artifact, part, len(tensor), problem))
    return sorted(found, key=lambda row: (row.id, row.row))


def _differ(published: RowOutcomes, today: RowOutcomes) -> tuple[int, str]:
    """On how many numbers two measurements of a row are compared, and what differs beyond the tolerance."""
    if not published.arrays:
        same = published.n == today.n and published.seeds == today.seeds
        equal = np.allclose(np.asarray(published.value), np.asarray(today.value), rtol=1e-3, atol=1e-6)
        return (published.n, "" if equal else f"{published.value} became {today.value}") if same else (0, "")
    seeds = [seed for seed in published.seeds if seed in today.seeds]
    images, here, there = np.intersect1d(published.images, today.images, return_indices=True)
    if not seeds or not len(images):
        return 0, ""
    mine, yours = ([row.seeds.index(seed) for seed in seeds] for row in (published, today))
    before = {name: array[mine][:, here] for name, array in published.arrays.items()}
    after = {name: array[yours][:, there] for name, array in today.arrays.items()}
    return len(seeds) * len(images), _apart(before, after)


def _apart(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> str:
    """What differs between arrays of the same names beyond the tolerance, in words; new names are no difference."""
    if absent := sorted(before.keys() - after.keys()):
        return f"{', '.join(absent)} became {', '.join(sorted(after)) or 'nothing'}"
    return "; ".join(filter(None, (_moved(name, array, after[name]) for name, array in before.items())))


def _moved(name: str, before: np.ndarray, after: np.ndarray) -> str:
    """What differs between two arrays beyond the tolerance, in words."""
    if (before.shape, before.dtype.kind) != (after.shape, after.dtype.kind):
        return f"{name} {before.dtype}{list(before.shape)} became {after.dtype}{list(after.shape)}"
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return f"{name} are not finite"
    size = 1.0 if before.dtype == bool else float(np.abs(before.astype(np.float64)).mean()) or 1.0
    apart = (after.astype(np.float64) - before) / size
    changed = int((np.abs(apart) >= 1).sum())
    allowed = max(4, int(MOST_CHANGED * apart.size))
    if changed > allowed:
        return f"{changed} of {apart.size} {name} changed, {allowed} may"
    moved = abs(apart.mean())
    most = max(MOST_MOVED, ERRORS * apart.std() / apart.size**0.5)
    return f"{name} moved by {moved:.1%} in the mean, {most:.1%} may" if moved > most else ""


def damaged(edition: Path) -> list[str]:
    """The published networks and outcomes that are not what their checksums say, each with what is wrong."""
    found = []
    for path in sorted(
        [*edition.glob("weights/*.safetensors"), *edition.glob("results/*.outcomes.safetensors")]
    ):
        try:
            storage.read(path)
        except storage.Damaged as problem:
            found.append(f"{path.relative_to(edition)}: {problem}")
    return found


def fingerprint(path: Path) -> str:
    """SHA-256 of a published file; of results that of the numbers alone, which no criterion moves. "" for no file."""
    if not path.is_file():
        return ""
    if path.suffix != ".json":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    rows = json.loads(path.read_text(encoding="utf-8"))["claims"]
    numbers = [
        [row[key] for key in ("id", "row", "measured", "ci95", "per_seed", "n", "seeds")] for row in rows
    ]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """One check of a chapter: when, by which code, on what machine, and what became of each row.

    ``measured`` names the commits at which the published outcomes were measured, ``evidence`` the published files that
    were compared or used, each with its :func:`fingerprint`, and ``lost`` the rows that only the report before it has.
    """

    chapter: str
    measured: tuple[str, ...]
    commit: str
    date: str
    source_hash: str
    environment: dict[str, str]
    evidence: dict[str, str]
    lost: tuple[str, ...]
    rows: tuple[Agreement, ...]

    @classmethod
    def of(
        cls,
        chapter: str,
        edition: Path,
        pieces: Sequence[Piece],
        rows: Sequence[Agreement],
        networks: Iterable[Path] = (),
    ) -> "Report":
        """The report of a check that has just been made of some pieces with some published networks."""
        measured = {str(piece.certificates[name]["commit"]) for piece in pieces for name in piece.small}
        files = [
            path(chapter, edition).with_name(f"{chapter}{end}") for end in (".json", ".outcomes.safetensors")
        ]
        before, reached = read(path(chapter, edition)), {(row.id, row.row) for row in rows}
        return cls(
            chapter,
            tuple(sorted(measured)),
            provenance.started_from(),
            datetime.now(UTC).date().isoformat(),
            provenance.source_hash(provenance.repository() / "chapters" / f"{chapter}.py"),
            provenance.environment(torch.device("cpu")),
            {
                file.relative_to(edition).as_posix(): fingerprint(file)
                for file in (*files, *sorted(networks))
                if file.is_file()
            },
            tuple(
                f"{row.id} | {row.row}"
                for row in (before.rows if before else ())
                if (row.id, row.row) not in reached
            ),
            tuple(rows),
        )

    def changed(self, edition: Path) -> list[str]:
        """The published files that are no longer those that were checked."""
        return [name for name, known in self.evidence.items() if fingerprint(edition / name) != known]

    @property
    def disagreeing(self) -> list[Agreement]:
        """The rows that differ beyond the tolerance."""
        return [row for row in self.rows if row.problem]

    def summary(self, unchecked: int = 0) -> str:
        """How many rows come out again as published, and how many were not checked."""
        again = len(self.rows) - len(self.disagreeing)
        return f"{again} of {len(self.rows)} rows come out again as published" + (
            f", {unchecked} not checked" if unchecked else ""
        )

    def text(self) -> str:
        """The rows for the terminal, those that disagree last."""
        lines = [f"agrees   {row.id} | {row.row} (n = {row.n})" for row in self.rows if not row.problem]
        lines += [f"differs  {row.id} | {row.row} (n = {row.n}): {row.problem}" for row in self.disagreeing]
        lines += [f"lost     {row}: an earlier check has reached it, this one has not" for row in self.lost]
        return "\n".join([*lines, f"{self.chapter}: {self.summary()}"])

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        storage.write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def path(chapter: str, edition: Path) -> Path:
    """The report beside the outcomes of a chapter."""
    return edition / "results" / f"{chapter}.check.json"


def read(path: Path) -> Report | None:
    """The report in a file, or None where there is no file."""
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(Agreement(**row) for row in data["rows"])
    return Report(**data | {"rows": rows, **{name: tuple(data[name]) for name in ("measured", "lost")}})
