"""The results file of a run, ``results/NAME.json``: every claimed row with what was measured and its verdict."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustutils import provenance
from robustutils.book.claims import Claims, Row, typed
from robustutils.book.criteria import verdict
from robustutils.book.parameters import PROFILES
from robustutils.outcomes import Measurement
from robustutils.registry import choose
from robustutils.storage import write_atomically

Results = dict[str, Any]
MIME = "application/vnd.robustutils.results+json"
"""Of the output in which an executed notebook carries its results."""
PERCENT = ("%", "points")

_KEPT = ("ci95", "seed_ci95", "per_seed", "effect", "effect_ci95", "effect_seed_ci95", "effect_per_seed")
_GIVEN = ("ci95", "per_seed", "effect", "effect_ci95", "effect_per_seed")
# What judging a file anew takes from it; the words and verdicts in it are today's.
_RESULTS_KEYS: dict[str, Any] = (
    dict.fromkeys(("chapter", "profile", "source_hash", "git_commit"), str)
    | dict.fromkeys(("parameters", "datasets", "environment"), dict)
    | {"claims": list, "seconds": (int, float)}
)
_RESULT_KEYS: dict[str, Any] = dict.fromkeys(("id", "row", "note"), str) | {
    "measured": (int, float, list, type(None)),
    "n": int,
    "seeds": list,
    "ci95": (list, type(None)),
}


def head(claims: Claims, profile: str, rows: list[dict[str, Any]]) -> Results:
    """A results file without its provenance."""
    return {
        "chapter": claims.chapter,
        "profile": profile,
        "paper": dict(claims.paper),
        "titles": dict(claims.titles),
        "claims": rows,
        "claims_sha256": claims.sha256,
    }


def entry(row: Row, note: str) -> dict[str, Any]:
    """A row that was not run, and why."""
    least = [f"{name} >= {k}" for name, k in (("n", row.min_n), ("seeds", row.min_seeds)) if k]
    return {
        "id": row.id,
        "row": row.row,
        "statement": row.statement,
        "paper_value": _listed(row.paper),
        "unit": row.unit,
        **dict.fromkeys(("measured", *_KEPT)),
        "n": 0,
        "seeds": [],
        "criterion": "; ".join([str(row.criterion), *least]) if row.criterion else "",
        "verdict": "not_run",
        "fidelity": None,
        "note": row.needs or note,
        "departures": "",
        "direction_holds": None,
        "size_holds": None,
    }


def judge(
    claims: Claims, row: Row, found: Measurement, parameters: Mapping[str, Any], profile: str
) -> dict[str, Any]:
    """A row with its measurement and what becomes of it by the claims as they stand: where every verdict is reached.

    Numbers are rounded first, so that judging what a file keeps gives what it says.

    Raises: ValueError when the criterion cannot judge the measurement.
    """
    if row.criterion is None:
        raise ValueError("its claim states no criterion; fix one before the run")
    digits = 2 if row.unit in PERCENT else 4
    numbers = {name: _rounded(getattr(found, name), digits) for name in ("value", *_GIVEN)}
    found = replace(found, unit=row.unit, **numbers)
    judgement = row.criterion.judge(row.paper, found.observed())
    fidelity, departures = claims.fidelity(row, parameters, found.n, len(found.seeds))
    reached = verdict(
        judgement.direction, judgement.size, fidelity=fidelity, profile=profile, check=row.check
    )
    values = {"measured": found.value} | {name: getattr(found, name) for name in _KEPT}
    if found.effect is None:
        values |= {"effect": judgement.effect, "effect_ci95": judgement.interval}
    return entry(row, "") | {
        **{key: _listed(_rounded(value, digits)) for key, value in values.items()},
        "n": found.n,
        "seeds": list(found.seeds),
        "verdict": reached,
        "fidelity": fidelity,
        "note": found.note,
        "departures": departures,
        "direction_holds": judgement.direction,
        "size_holds": judgement.size,
    }


def judged(claims: Claims, results: Results) -> Results:
    """A results file as today's claims judge what it measured: their rows, words and criteria, its numbers.

    ``claims_sha256`` stays that of the declaration at the run.
    """
    known = {(row["id"], row["row"]): row for row in results["claims"]}
    rows = []
    for row in claims.rows:
        stored = known.get((row.id, row.row))
        if stored is None or stored["measured"] is None:
            rows.append(entry(row, stored["note"] if stored else "not part of this run"))
            continue
        given = {name: stored[name] for name in (*_GIVEN, "n", "seeds", "note")}
        if isinstance(stored["measured"], list) and given["effect_per_seed"] is None:
            given |= {"effect": None, "effect_ci95": None}  # the criterion makes its own
        found = Measurement(stored["measured"], **given)
        rows.append(judge(claims, row, found, results["parameters"], results["profile"]))
    return (
        results | head(claims, results["profile"], rows) | {"claims_sha256": results.get("claims_sha256", "")}
    )


def _rounded(value: Any, digits: int) -> Any:
    """A number, or tuples of them, to so many decimals (and no negative zero)."""
    if isinstance(value, tuple):
        return tuple(_rounded(part, digits) for part in value)
    return value if value is None else round(value, digits) + 0.0


def _listed(value: Any) -> Any:
    """Tuples as JSON has them."""
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def write(path: str | os.PathLike[str], results: Results) -> None:
    """Write a results file whole or not at all. Raises: ValueError for what `read` would refuse."""
    path = Path(path)
    _validate(results, str(path))
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read(path: str | os.PathLike[str]) -> Results:
    """Read and check a results file. Raises: ValueError naming the file, the claim and the key."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    _validate(results, str(path))
    return results


def _validate(results: Any, where: str) -> None:
    name, seen = "", set()
    try:
        typed(results, _RESULTS_KEYS, _RESULTS_KEYS, more=True)
        choose("profile", results["profile"], PROFILES)
        for row in results["claims"]:
            name = f"claim {row.get('id')!r} row {row.get('row')!r}: " if isinstance(row, dict) else ""
            typed(row, _RESULT_KEYS, _RESULT_KEYS, more=True)
            if (row["id"], row["row"]) in seen:
                raise ValueError("it appears twice")
            seen.add((row["id"], row["row"]))
    except ValueError as error:
        raise ValueError(f"{where}: {name}{error}") from error


def rows_measured(results: Results) -> set[tuple[str, str]]:
    """Id and row of what a run has measured."""
    return {(row["id"], row["row"]) for row in results["claims"] if row["verdict"] != "not_run"}


def published(chapter: str, folder: str | os.PathLike[str] | None = None) -> Results | None:
    """Results of the published edition of a chapter, judged anew; None where there is none. `folder`: book/results."""
    folder = provenance.repository() / "book" / "results" if folder is None else Path(folder)
    path = folder / f"{chapter}.json"
    return judged(Claims.of(chapter), read(path)) if path.is_file() else None
