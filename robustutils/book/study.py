"""A chapter from its declaration to its page: parameters, measurements, verdicts, tables. It holds no statistics itself."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from html import escape
from typing import Any

import numpy as np
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure
from myst_nb import glue

from robustutils import figures, provenance, tables
from robustutils.artifacts import Absent
from robustutils.book import claim_tables, results, runs, scoreboard
from robustutils.book.claims import Claims, Row
from robustutils.book.results import Results
from robustutils.book.runs import Run
from robustutils.outcomes import Measurement, sequence

MOST_LINES = 30
"""Of a function that a page shows."""


def front(chapter: str) -> None:
    """Display the picture and the verdicts of the published edition: what stands below a chapter's answer."""
    html = scoreboard.front(Claims.of(chapter), results.published(chapter))
    display(
        {"text/html": html, "text/plain": "the published edition"}, raw=True, metadata={tables.CLAIMS: []}
    )


class Study:
    """One run of a chapter and what it has measured so far."""

    def __init__(self, claims: Claims, run: Run) -> None:
        self.claims, self.run = claims, run
        self.published = results.published(claims.chapter)
        self._claimed = {(row.id, row.row): row for row in claims.rows}
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._measured: dict[tuple[str, str], Measurement] = {}

    @classmethod
    def begin(cls, chapter: str, namespace: Mapping[str, Any]) -> "Study":
        """Check a notebook's parameters: the first call of every chapter, with its ``globals()``.

        Raises: ParameterError, see :func:`.runs.start`; ValueError for a declaration that cannot be read.
        """
        figures.use_style()
        claims = Claims.of(chapter)
        return cls(claims, runs.start(claims, namespace))

    # ---- measuring and judging ----

    def measure(self, *ids: str, by: Callable[..., Any]) -> None:
        """Ask a function for each row of some claims, and judge what it gives.

        `by` gets a row's coordinates as keywords and returns :class:`~robustutils.outcomes.Outcomes`, something else that
        is measurable, or a :class:`~robustutils.outcomes.Measurement`. Where a run has no such row it returns None or a text
        that says why, or raises :class:`~robustutils.artifacts.Absent`, as an absent network does. A row's reference, the
        row subtracted from it and the parts of a sequence are asked for likewise.
        """
        answers: dict[str, Any] = {}

        def ask(at: Mapping[str, Any]) -> Any:
            key = repr(sorted(at.items()))
            if key not in answers:
                try:
                    answers[key] = by(**at)
                except Absent as absent:
                    answers[key] = str(absent)
            return answers[key]

        for row in self.claims.rows:
            if row.id in ids and not row.needs:
                self.record(row.id, row.row, _found(row, ask))

    def record(self, id: str, row: str, found: Any) -> None:
        """Judge what was measured for a row: a Measurement or something measurable; None or a reason where nothing was.

        Raises: ValueError for an unknown or already recorded row, NaN, or a measurement that its criterion
        cannot judge; the message names the row.
        """
        key = (id, row)
        if key not in self._claimed:
            siblings = [name for claim, name in self._claimed if claim == id]
            what, word, pool = ("row", row, siblings) if siblings else ("id", id, [*self.claims.titles])
            nearest = get_close_matches(word, pool, n=1, cutoff=0.0)
            raise ValueError(
                f"{self.claims.chapter} claims no {what} {word!r}; nearest: {', '.join(nearest)!r}"
            )
        if key in self._rows:
            raise ValueError(f"{id} {row!r} is recorded twice")
        claimed = self._claimed[key]
        if found is None or isinstance(found, str):
            self._rows[key] = results.entry(claimed, found or "not part of this run")
            return
        try:
            measurement = found if isinstance(found, Measurement) else found.measured()
            measurement.check()
            judged = results.judge(self.claims, claimed, measurement, self.run.parameters, self.run.profile)
        except ValueError as error:
            raise ValueError(f"{id} {row!r}: {error}") from error
        self._rows[key], self._measured[key] = judged, measurement

    @property
    def measured(self) -> dict[tuple[str, str], Measurement]:
        """What has been measured, by id and row."""
        return dict(self._measured)

    def paper(self, id: str, row: str) -> Any:
        """The paper's number of a row; None where it has none or there is no such row."""
        claimed = self._claimed.get((id, row))
        return claimed.paper if claimed else None

    # ---- showing ----

    def numbers(self, cells: Sequence[Sequence[tuple[str, str]]], *, paper: bool = False) -> np.ndarray:
        """Measured values of rows laid out as a matrix, or the paper's; NaN where the paper has no such number."""
        rows = [[self._claimed.get(cell) for cell in line] for line in cells]
        known = [[row is not None and row.paper is not None for row in line] for line in rows]
        if paper:
            values = [[row.paper if row else None for row in line] for line in rows]
        else:
            values = [[self._rows.get(cell, {}).get("measured") for cell in line] for line in cells]
        return np.where(known, np.array(values, dtype=float), np.nan)

    def so_far(self) -> Results:
        """All rows of the claims as they stand now."""
        rows = [
            self._rows.get(key) or results.entry(row, "not measured yet")
            for key, row in self._claimed.items()
        ]
        known = {"parameters": {}, "datasets": {}, "environment": {}, "source_hash": "", "git_commit": ""}
        return results.head(self.claims, self.run.profile, rows) | known | {"seconds": 0.0, "date": ""}

    def table(self, *ids: str) -> tables.Table:
        """The paper's number, the published one with interval and verdict, and this run's."""
        published = None if self.run.is_evidence else self.published
        return claim_tables.claims_table(published, self.so_far(), ids)

    def criteria(self, *ids: str) -> tables.Table:
        """The criteria that were fixed for some claims."""
        return claim_tables.criteria_table(self.claims, ids)

    def dots(
        self, ids: Sequence[str], *, lines: scoreboard.Coordinates, series: scoreboard.Series, xlabel: str
    ) -> Figure:
        """Dots of this run beside the paper's diamonds, by the coordinates of the rows."""
        return scoreboard.compared(self.claims, self.so_far(), ids, lines, series, xlabel)

    # ---- closing ----

    def close(self, **fingerprints: str) -> Results:
        """End the run: the results go into the notebook's last output, and what the prose quotes to glue.

        Args:
            fingerprints: of the data sets, by name.

        Raises: ValueError where a claimed row was never asked for, or the prose quotes what no row has.
        """
        silent = [key for key, row in self._claimed.items() if key not in self._rows and not row.needs]
        if silent:
            listed = "; ".join(f"{id} {row!r}" for id, row in silent)
            raise ValueError(f"{self.claims.chapter} claims these rows and asks for none of them: {listed}")
        found = self.so_far() | self.run.provenance(**fingerprints)
        text = (provenance.repository() / "chapters" / f"{self.claims.chapter}.py").read_text(
            encoding="utf-8"
        )
        evidence = found if self.run.is_evidence else self.published or found
        for key, value in scoreboard.quoted(text, evidence).items():
            glue(key, value, display=False)
        display({results.MIME: found}, raw=True)
        return found


def _found(row: Row, ask: Callable[[Mapping[str, Any]], Any]) -> Any:
    """What a function gives for a row: a number, a difference, a number beside its reference, or a sequence."""
    listed = [name for name, value in row.at.items() if isinstance(value, list)]
    if listed:
        parts = [
            ask({**row.at, **dict(zip(listed, place, strict=True))})
            for place in zip(*(row.at[n] for n in listed), strict=True)
        ]
        absent = [part for part in parts if part is None or isinstance(part, str)]
        return absent[0] if absent else sequence(parts)
    found = ask(row.at)
    for other in (row.minus, row.reference):
        if other and found is not None and not isinstance(found, str | Measurement):
            beside = ask({**row.at, **other})
            if beside is None or isinstance(beside, str):
                return beside
            return found - beside if other is row.minus else found.measured(beside)
    return found


def source(function: Callable[..., Any]) -> Markdown:
    """The library's own code of a function or class, without its docstring: what a chapter shows beside the formula.

    Raises: ValueError for code of more than :data:`MOST_LINES` lines, which is not to be read beside a formula.
    """
    lines = inspect.getsource(function).splitlines()
    (definition,) = ast.parse(textwrap.dedent("\n".join(lines))).body
    documented = definition.body[0]  # type: ignore[attr-defined]
    if ast.get_docstring(definition) is not None:  # type: ignore[arg-type]
        del lines[documented.lineno - 1 : documented.end_lineno]
    code = textwrap.dedent("\n".join(lines)).strip()
    name = f"{function.__module__}.{function.__qualname__}"
    if (count := len(code.splitlines())) > MOST_LINES:
        raise ValueError(f"{name} has {count} lines: a page shows at most {MOST_LINES}")
    return Markdown(f"```python\n# {name}\n{code}\n```")


def describe(run: Run) -> HTML:
    """A run's parameters, folded."""
    listed = ", ".join(f"{name} = {value}" for name, value in run.parameters.items() if value is not None)
    return HTML(
        f"<details><summary>Profile {run.profile} on {run.device}: parameters of this run</summary>"
        f"<p>{escape(listed)}</p></details>"
    )
