"""What a paper claims, as data that is fixed before any run: the file ``chapters/NAME.claims.toml``.

A claim is one block of the file. It becomes one row for each cell of its table and for each of its explicit
rows, or a single row; keys of the block hold for all its rows, keys of a row go before them.
"""

import hashlib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustutils.criteria import Criterion, Value, parse_criterion

SUFFIX = ".claims.toml"

_FILE_KEYS = {"paper": dict, "claims": list}
_PAPER_KEYS = dict.fromkeys(("key", "title", "url"), str)
_ROW_KEYS = {"statement": str, "unit": str, "needs": str, "min_n": int, "min_seeds": int, "criterion": dict}
_CLAIM_KEYS = {"id": str, "columns": list, "table": dict, "rows": list, "paper": object} | _ROW_KEYS


@dataclass(frozen=True)
class Row:
    """One claimed number or relation; `paper` is None where it states no number, `needs` why not run."""

    id: str
    row: str
    statement: str
    unit: str
    paper: Value | None
    criterion: Criterion | None
    min_n: int
    min_seeds: int
    needs: str


@dataclass(frozen=True)
class Claims:
    """The claims of one paper, as `chapters/NAME.claims.toml` fixes them before any run."""

    chapter: str
    paper: Mapping[str, str]
    rows: tuple[Row, ...]
    sha256: str

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Claims":
        """Read and check a claims file. Raises: ValueError naming the file, the claim and the key."""
        path = Path(path)
        if not path.name.endswith(SUFFIX):
            raise ValueError(f"{path}: a claims file is called NAME{SUFFIX}")
        content = path.read_bytes()
        try:
            data = tomllib.loads(content.decode())
            _keys(data, _FILE_KEYS, required=_FILE_KEYS)
            _keys(data["paper"], _PAPER_KEYS, required=_PAPER_KEYS)
            rows = [row for claim in data["claims"] for row in _claim_rows(claim)]
            names = [(row.id, row.row) for row in rows]
            if repeated := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"claim {repeated[0][0]!r}: row {repeated[0][1]!r} appears twice")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(
            path.name.removesuffix(SUFFIX), data["paper"], tuple(rows), hashlib.sha256(content).hexdigest()
        )


def _keys(data: Any, known: Mapping[str, Any], required: Iterable[str]) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"expected a table of keys, got {data!r}")
    for key, value in data.items():
        if key not in known:
            raise ValueError(f"unknown key {key!r}; allowed: {', '.join(known)}")
        if not isinstance(value, known[key]) or (
            known[key] is int and (isinstance(value, bool) or value < 0)
        ):
            raise ValueError(f"{key!r} has the wrong type or range: {value!r}")
    if missing := [key for key in required if key not in data]:
        raise ValueError(f"key {missing[0]!r} is missing")


def _claim_rows(claim: Any) -> list[Row]:
    """Rows of one `[[claims]]` block: the cells of its table, its explicit rows, or the claim as one row."""
    name = claim.get("id") if isinstance(claim, dict) else None
    try:
        _keys(claim, _CLAIM_KEYS, required=("id", "statement"))
        columns, stated = claim.get("columns", []), []
        for row, cells in claim.get("table", {}).items():
            if not isinstance(cells, list) or len(cells) != len(columns):
                raise ValueError(
                    f"'table' row {row!r} needs one number for each of the {len(columns)} columns"
                )
            stated += [
                {"row": f"{row} | {column}", "paper": cell}
                for column, cell in zip(columns, cells, strict=True)
                if not (isinstance(cell, float) and math.isnan(cell))
            ]
        stated += claim.get("rows", [])
        if not stated:
            stated = [{"row": claim["id"]} | ({"paper": claim["paper"]} if "paper" in claim else {})]
        elif "paper" in claim:
            raise ValueError("'paper' stands with each row when a claim has a table or rows")
        shared = {key: claim[key] for key in _ROW_KEYS if key in claim}
        return [_row(claim["id"], row, shared) for row in stated]
    except ValueError as error:
        raise ValueError(f"claim {name!r}: {error}") from error


def _row(claim: str, data: Any, shared: Mapping[str, Any]) -> Row:
    name = data.get("row") if isinstance(data, dict) else None
    try:
        _keys(data, {"row": str, "paper": object} | _ROW_KEYS, required=("row",))
        merged = {"unit": "", "needs": "", "min_n": 0, "min_seeds": 0, "criterion": None, **shared, **data}
        if merged["criterion"] is None and not merged["needs"]:
            raise ValueError(
                "key 'criterion' is missing (only a claim that 'needs' something may go without)"
            )
        paper = _value(merged["paper"]) if "paper" in merged else None
        criterion = None if merged["criterion"] is None else parse_criterion(merged["criterion"])
        forms = criterion.paper if criterion and not merged["needs"] else ()
        if criterion and forms and not isinstance(paper, forms):
            form = " or ".join({float: "a number", tuple: "a list"}[kind] for kind in forms)
            raise ValueError(f"criterion {criterion.kind!r} needs 'paper' as {form}, got {paper!r}")
    except ValueError as error:
        raise ValueError(f"row {name!r}: {error}") from error
    fields = {key: merged[key] for key in ("statement", "unit", "min_n", "min_seeds", "needs")}
    return Row(id=claim, row=data["row"], paper=paper, criterion=criterion, **fields)


def _value(stated: Any) -> Value:
    numbers = stated if isinstance(stated, list) and stated else [stated]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers):
        raise ValueError(f"'paper' must be a finite number or a list of them, got {stated!r}")
    return tuple(map(float, stated)) if isinstance(stated, list) else float(stated)
