"""Do today's code and the published outcomes agree? Row by row, paired image by image and seed by seed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustutils import provenance
from robustutils.book.outcomes_files import Piece, RowOutcomes
from robustutils.storage import write_atomically

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

    A chapter without rows is compared by the artifacts that both pieces have.
    """
    found = []
    for name, row in published.rows.items():
        if name in today.rows:
            n, problem = _differ(row, today.rows[name])
            if n:
                found.append(Agreement(*name, n, problem))
    if not published.rows:
        for artifact in published.small.keys() & today.small.keys():
            for part, before in published.small[artifact].items():
                problem = _moved("outcomes", before.numpy(), today.small[artifact][part].numpy())
                found.append(Agreement(artifact, part, len(before), problem))
    return sorted(found, key=lambda row: (row.id, row.row))


def _differ(published: RowOutcomes, today: RowOutcomes) -> tuple[int, str]:
    """On how many numbers two measurements of a row are compared, and what differs beyond the tolerance."""
    if not published.arrays:
        same = published.n == today.n and published.seeds == today.seeds
        equal = np.allclose(np.asarray(published.value), np.asarray(today.value), rtol=1e-3, atol=1e-6)
        return (published.n, "" if equal else f"{published.value} became {today.value}") if same else (0, "")
    seeds = [seed for seed in published.seeds if seed in today.seeds]
    images, here, there = np.intersect1d(published.images, today.images, return_indices=True)
    if not seeds or not len(images) or published.arrays.keys() != today.arrays.keys():
        return 0, ""
    problems = []
    for name, before in published.arrays.items():
        before = before[[published.seeds.index(seed) for seed in seeds]][:, here]
        after = today.arrays[name][[today.seeds.index(seed) for seed in seeds]][:, there]
        problems.append(_moved(name, before, after))
    return len(seeds) * len(images), "; ".join(filter(None, problems))


def _moved(name: str, before: np.ndarray, after: np.ndarray) -> str:
    """What differs between two arrays beyond the tolerance, in words."""
    size = 1.0 if before.dtype == bool else float(np.abs(before.astype(np.float64)).mean()) or 1.0
    apart = (after.astype(np.float64) - before) / size
    changed = int((np.abs(apart) >= 1).sum())
    allowed = max(4, int(MOST_CHANGED * apart.size))
    if changed > allowed:
        return f"{changed} of {apart.size} {name} changed, {allowed} may"
    moved = abs(apart.mean())
    most = max(MOST_MOVED, ERRORS * apart.std() / apart.size**0.5)
    return f"{name} moved by {moved:.1%} in the mean, {most:.1%} may" if moved > most else ""


@dataclass(frozen=True)
class Report:
    """One check of a chapter: when, by which code, on what machine, and what became of each row.

    ``measured`` names the commits at which the published outcomes were measured.
    """

    chapter: str
    measured: tuple[str, ...]
    commit: str
    date: str
    source_hash: str
    environment: dict[str, str]
    rows: tuple[Agreement, ...]

    @classmethod
    def of(cls, chapter: str, pieces: Sequence[Piece], rows: Sequence[Agreement]) -> "Report":
        """The report of a check that has just been made of some pieces."""
        measured = {str(piece.certificates[name]["commit"]) for piece in pieces for name in piece.small}
        return cls(
            chapter,
            tuple(sorted(measured)),
            provenance.started_from(),
            datetime.now(UTC).date().isoformat(),
            provenance.source_hash(provenance.repository() / "chapters" / f"{chapter}.py"),
            provenance.environment(torch.device("cpu")),
            tuple(rows),
        )

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
        return "\n".join([*lines, f"{self.chapter}: {self.summary()}"])

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def path(chapter: str, edition: Path) -> Path:
    """The report beside the outcomes of a chapter."""
    return edition / "results" / f"{chapter}.check.json"


def read(path: Path) -> Report | None:
    """The report in a file, or None where there is no file."""
    if not path.is_file():
        return None
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(Agreement(**row) for row in data["rows"])
    return Report(**data | {"rows": rows, "measured": tuple(data["measured"])})
