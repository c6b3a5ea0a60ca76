"""A chapter's declaration, ``chapters/NAME.toml``: its parameters, and what its paper claims, fixed before any run.

A claim is one ``[[claims]]`` block. Its rows are its explicit ``rows``, or the cells of a table: ``cells`` holds lines of
numbers, the first ones the coordinates that ``keys`` names, the others one row for each of ``columns`` (nan: no such
cell). Keys of the block hold for all its rows, keys of a row go before them. ``at`` places a row by coordinates; a
coordinate that is a list makes the row a sequence. ``reference`` names the coordinates of the row that it is paired with
to tell an effect, ``minus`` those of the row that is subtracted from it. ``except`` lists keys that hold for the rows at
some coordinates only.
"""

import hashlib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustutils import provenance
from robustutils.book.criteria import FIDELITIES, Criterion, parse_criterion
from robustutils.book.parameters import Parameter
from robustutils.outcomes import Value
from robustutils.registry import choose, unknown

_FILE_KEYS: dict[str, Any] = dict.fromkeys(("paper", "parameters", "titles", "picture"), dict) | {
    "claims": list,
    "depends_on": list,
}
PAPER_KEYS = dict.fromkeys(("key", "title", "url"), str)
_PICTURE_KEYS = {"ids": list, "lines": dict, "series": dict, "xlabel": str, "caption": str}
_ROW_KEYS = (
    dict.fromkeys(("statement", "unit", "needs", "fidelity"), str)
    | dict.fromkeys(("at", "minus", "reference", "criterion"), dict)
    | {"min_n": int, "min_seeds": int, "depends_on": list, "otherwise": str, "check": bool}
)
_TABLE_KEYS = {"line": str, "keys": list, "columns": list, "cells": list}
_CLAIM_KEYS = {"id": str, "rows": list, "except": list} | _TABLE_KEYS | _ROW_KEYS


@dataclass(frozen=True)
class Row:
    """One claimed number or relation; `paper` is None where it states no number, `needs` why it is not run.

    `fidelity` is the most that a run by the paper's protocol has; it is less where a parameter in `depends_on` departs:
    then `otherwise`, or what the parameter says. A `check` counts neither for nor against the paper, because the paper
    does not claim it or because only a mistake in the code could break it.
    """

    id: str
    row: str
    title: str
    statement: str
    unit: str = ""
    paper: Value | None = None
    criterion: Criterion | None = None
    min_n: int = 0
    min_seeds: int = 0
    needs: str = ""
    fidelity: str = "exact"
    at: Mapping[str, Any] = field(default_factory=dict)
    minus: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    otherwise: str = ""
    check: bool = False


@dataclass(frozen=True)
class Claims:
    """What ``chapters/NAME.toml`` declares; a page without a paper, such as the background, has parameters alone."""

    chapter: str
    parameters: Mapping[str, Parameter]
    paper: Mapping[str, str]
    rows: tuple[Row, ...]
    titles: Mapping[str, str]
    picture: Mapping[str, Any]
    sha256: str

    @classmethod
    def of(cls, chapter: str) -> "Claims":
        """The declaration of a chapter of the book.

        Raises: ValueError for a declaration that cannot be read; FileNotFoundError where there is no checkout.
        """
        folder = provenance.repository() / "chapters"
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is not there: a chapter needs its declaration. Clone the repository and work in the checkout, "
                "or install it with pip install -e"
            )
        return cls.load(folder / f"{chapter}.toml")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Claims":
        """Read and check a declaration. Raises: ValueError naming the file, the claim and the key."""
        path = Path(path)
        content = path.read_bytes()
        try:
            data = tomllib.loads(content.decode())
            typed(data, _FILE_KEYS)
            paper, titles, picture = (data.get(key, {}) for key in ("paper", "titles", "picture"))
            parameters = {n: Parameter.declared(n, given) for n, given in data.get("parameters", {}).items()}
            if paper or "claims" in data:
                typed(paper, PAPER_KEYS, PAPER_KEYS)
            if picture:
                typed(picture, _PICTURE_KEYS | {"differences": bool}, _PICTURE_KEYS)
            common = {"depends_on": data.get("depends_on", [])}
            rows = [row for claim in data.get("claims", ()) for row in _claim_rows(claim, titles, common)]
            _check(rows, parameters, titles)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        digest = hashlib.sha256(content).hexdigest()
        return cls(path.stem, parameters, paper, tuple(rows), titles, picture, digest)

    def fidelity(self, row: Row, parameters: Mapping[str, Any], n: int, seeds: int) -> tuple[str, str]:
        """How close a measurement is to the paper's protocol, and where it departs, in words."""
        fidelity, departures = row.fidelity, []
        for name in row.depends_on:
            parameter = self.parameters[name]
            if departure := parameter.departure(name, parameters[name]):
                departures.append(departure)
                fidelity = max(fidelity, row.otherwise or parameter.otherwise, key=FIDELITIES.index)
        for what, count, least in (("images", n, row.min_n), ("training seeds", seeds, row.min_seeds)):
            if count < least:
                departures.append(f"{count} {what}, not {least}")
                fidelity = max(fidelity, "fewer", key=FIDELITIES.index)
        return fidelity, "; ".join(departures)

    def coordinates(self, ids: Iterable[str], names: Sequence[str], **at: Any) -> list[tuple[Any, ...]]:
        """The distinct values of some coordinates among the rows of some claim ids, in the order of the file.

        ``at`` picks rows by other coordinates. Sequences do not count.
        """
        found = [
            tuple(row.at[name] for name in names)
            for row in self.rows
            if row.id in ids and row.at.keys() >= set(names) and at.items() <= row.at.items()
        ]
        return list(dict.fromkeys(place for place in found if not any(isinstance(v, list) for v in place)))

    def find(self, ids: Iterable[str], at: Mapping[str, Any], *, differences: bool = False) -> Row | None:
        """The row at these coordinates, others left open, of the first of some claim ids that has one; None without any.

        Either rows that are ``differences`` count, or the others. Raises: ValueError where several rows of one id do.
        """
        for id in ids:
            rows = [row for row in self.rows if row.id == id and bool(row.minus) == differences]
            found = [row for row in rows if at.items() <= row.at.items()]
            if len(found) > 1:
                raise ValueError(f"{dict(at)} is no single row: {found[0].row!r}, {found[1].row!r}")
            if found:
                return found[0]
        return None


def _check(rows: list[Row], parameters: Mapping[str, Parameter], titles: Mapping[str, str]) -> None:
    names = [(row.id, row.row) for row in rows]
    if len(set(names)) < len(names):
        claim, twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"claim {claim!r}: row {twice!r} appears twice")
    if unused := [id for id in titles if id not in {row.id for row in rows}]:
        raise ValueError(f"title of {unknown('claim', unused[0], {row.id: 0 for row in rows})}")
    for row in rows:
        for name in row.depends_on:
            if name not in parameters:
                raise ValueError(f"claim {row.id!r}: depends_on: {unknown('parameter', name, parameters)}")


def typed(data: Any, kinds: Mapping[str, Any], required: Iterable[str] = (), *, more: bool = False) -> None:
    """Check the keys of a table and the types of its values; counts are at least 0, and nothing is nan.

    Raises: ValueError naming a key that is missing, of a wrong type or, unless there may be ``more``, unknown.
    """
    if not isinstance(data, dict):
        raise ValueError(f"expected a table of keys, got {data!r}")
    for key, value in data.items():
        if more and key not in kinds:
            continue
        choose("key", key, kinds)
        kind = kinds[key]
        right = isinstance(value, kind) and value == value and (kind is bool or not isinstance(value, bool))
        if not right or (kind is int and value < 0):
            raise ValueError(f"{key!r} has the wrong type or range: {value!r}")
    if missing := [key for key in required if key not in data]:
        raise ValueError(f"key {missing[0]!r} is missing")


def _claim_rows(claim: Any, titles: Mapping[str, str], common: Mapping[str, Any]) -> list[Row]:
    """Rows of one `[[claims]]` block: the cells of its table and its explicit rows."""
    name = claim.get("id") if isinstance(claim, dict) else None
    try:
        typed(claim, _CLAIM_KEYS, ("id", "statement"))
        if claim["id"] not in titles:
            raise ValueError("it has no title: [titles] names every claim id")
        stated = [*_cells(claim), *claim.get("rows", ())]
        if not stated:
            raise ValueError("it has no rows: give 'rows', or 'line', 'keys', 'columns' and 'cells'")
        shared = {key: claim[key] for key in _ROW_KEYS if key in claim}
        exceptions = claim.get("except", ())
        return [
            _row(claim["id"], titles[claim["id"]], row, {**common, **shared}, exceptions) for row in stated
        ]
    except ValueError as error:
        raise ValueError(f"claim {name!r}: {error}") from error


def _cells(claim: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The rows that a table stands for."""
    given = [key for key in _TABLE_KEYS if key in claim]
    if given and len(given) < len(_TABLE_KEYS):
        raise ValueError(f"a table needs {', '.join(_TABLE_KEYS)}; given: {', '.join(given)}")
    for cells in claim.get("cells", ()):
        keys, columns = claim["keys"], claim["columns"]
        if len(cells) != len(keys) + len(columns):
            raise ValueError(f"{cells!r} needs {len(keys)} coordinates and {len(columns)} numbers")
        at = dict(zip(keys, cells, strict=False))
        for column, number in zip(columns, cells[len(keys) :], strict=True):
            if not (isinstance(number, float) and math.isnan(number)):
                line = claim["line"].format(**{**claim.get("at", {}), **at})
                yield {"row": f"{line} | {column}", "paper": number, "at": at | {"quantity": column}}


def _row(claim: str, title: str, data: Any, shared: Mapping[str, Any], exceptions: Iterable[Any]) -> Row:
    name = data.get("row") if isinstance(data, dict) else None
    try:
        typed(data, {"row": str, "paper": object} | _ROW_KEYS, ("row",))
        merged = {**shared, **data, "at": {**shared.get("at", {}), **data.get("at", {})}}
        for exception in exceptions:
            typed(exception, _ROW_KEYS, ("at",))
            if exception["at"].items() <= merged["at"].items():
                merged |= {key: value for key, value in exception.items() if key != "at"}
        if "criterion" not in merged and "needs" not in merged:
            raise ValueError(
                "key 'criterion' is missing (only a claim that 'needs' something may go without)"
            )
        for key in ("fidelity", "otherwise"):
            if key in merged:
                choose("fidelity", merged[key], FIDELITIES)
        merged["paper"] = _value(merged["paper"]) if "paper" in merged else None
        merged["criterion"] = parse_criterion(merged["criterion"]) if "criterion" in merged else None
        criterion, paper = merged["criterion"], merged["paper"]
        forms = criterion.paper if criterion and "needs" not in merged else ()
        if forms and not isinstance(paper, forms):
            form = " or ".join({float: "a number", tuple: "a list"}[kind] for kind in forms)
            raise ValueError(f"criterion {criterion.kind!r} needs 'paper' as {form}, got {paper!r}")
    except ValueError as error:
        raise ValueError(f"row {name!r}: {error}") from error
    return Row(id=claim, title=title, **merged | {"depends_on": tuple(merged["depends_on"])})


def _value(stated: Any) -> Value:
    numbers = stated if isinstance(stated, list) and stated else [stated]
    if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
        raise ValueError(f"'paper' must be a finite number or a list of them, got {stated!r}")
    return tuple(map(float, stated)) if isinstance(stated, list) else float(stated)
