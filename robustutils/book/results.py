"""The results file of a run, ``results/NAME.json``: every claimed row with what was measured and its verdict."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustutils import provenance
from robustutils.book.claims import Claims, Row
from robustutils.book.criteria import FIDELITIES, NO_EVIDENCE, STRONG, VERDICTS, Judgement
from robustutils.book.parameters import PROFILES
from robustutils.outcomes import Measurement
from robustutils.storage import write_atomically

Results = dict[str, Any]
MIME = "application/vnd.robustutils.results+json"
"""Of the output in which an executed notebook carries its results."""
PERCENT = ("%", "points")

_KEPT = ("ci95", "seed_ci95", "per_seed", "effect", "effect_ci95", "effect_seed_ci95", "effect_per_seed")
_PAPER_KEYS = dict.fromkeys(("key", "title", "url"), str)
_RESULTS_KEYS: dict[str, Any] = (
    dict.fromkeys(("chapter", "profile", "source_hash", "git_commit"), str)
    | dict.fromkeys(("paper", "titles", "parameters", "datasets", "environment"), dict)
    | {"claims": list, "seconds": (int, float)}
)
_RESULT_KEYS: dict[str, Any] = (
    dict.fromkeys(("id", "row", "statement", "unit", "criterion", "verdict", "note"), str)
    | dict.fromkeys(("paper_value", "measured"), (int, float, list, type(None)))
    | {"n": int, "seeds": list, "ci95": (list, type(None)), "fidelity": (str, type(None))}
)


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
        "direction_holds": None,
        "size_holds": None,
    }


def measured(
    row: Row, found: Measurement, judgement: Judgement, verdict: str, fidelity: str, note: str
) -> dict[str, Any]:
    """A row with its measurement and what became of it."""
    digits = 2 if row.unit in PERCENT else 4
    values = {"measured": found.value} | {name: getattr(found, name) for name in _KEPT}
    if found.effect is None:
        values |= {"effect": judgement.effect, "effect_ci95": judgement.interval}
    return entry(row, "") | {
        **{key: _listed(value, digits) for key, value in values.items()},
        "n": found.n,
        "seeds": list(found.seeds),
        "verdict": verdict,
        "fidelity": fidelity,
        "note": note,
        "direction_holds": judgement.direction,
        "size_holds": judgement.size,
    }


def _listed(value: Any, digits: int | None = None) -> Any:
    """Floats and tuples as JSON has them, rounded to `digits` decimals where given (and no negative zero)."""
    if isinstance(value, tuple):
        return [_listed(part, digits) for part in value]
    return value if value is None or digits is None else round(value, digits) + 0.0


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
    _typed(results, _RESULTS_KEYS, where)
    _typed(results["paper"], _PAPER_KEYS, f"{where}: paper")
    if results["profile"] not in PROFILES:
        raise ValueError(f"{where}: unknown profile {results['profile']!r}; allowed: {', '.join(PROFILES)}")
    seen = set()
    for row in results["claims"]:
        named = isinstance(row, dict)
        name = f"{where}: claim {row.get('id')!r} row {row.get('row')!r}" if named else where
        _typed(row, _RESULT_KEYS, name)
        if (row["id"], row["row"]) in seen:
            raise ValueError(f"{name} appears twice")
        seen.add((row["id"], row["row"]))
        if row["id"] not in results["titles"]:
            raise ValueError(f"{name} has no title")
        reached, fidelity = row["verdict"], row["fidelity"]
        if reached not in VERDICTS:
            raise ValueError(f"{name}: unknown verdict {reached!r}; allowed: {', '.join(VERDICTS)}")
        if reached == "not_run":
            consistent = row["measured"] is None and fidelity is None
        else:
            allowed = {"reproduced": STRONG, "agrees": FIDELITIES[len(STRONG) :]}.get(reached, FIDELITIES)
            quick = results["profile"] in NO_EVIDENCE
            consistent = (
                row["measured"] is not None and fidelity in allowed and quick == (reached == "not_evidence")
            )
        if not consistent:
            raise ValueError(
                f"{name}: verdict {reached!r} cannot go with measured {row['measured']!r}, "
                f"fidelity {fidelity!r} and profile {results['profile']!r}"
            )


def _typed(data: Any, keys: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected an object, got {type(data).__name__}")
    for key, kind in keys.items():
        if key not in data:
            raise ValueError(f"{where}: key {key!r} is missing")
        value = data[key]
        if not isinstance(value, kind) or isinstance(value, bool) or value != value:
            raise ValueError(f"{where}: {key!r} has the wrong type: {value!r}")


def rows_measured(results: Results) -> set[tuple[str, str]]:
    """Id and row of what a run has measured."""
    return {(row["id"], row["row"]) for row in results["claims"] if row["verdict"] != "not_run"}


def published(chapter: str, folder: str | os.PathLike[str] | None = None) -> Results | None:
    """Results of the published edition of a chapter; None where there is none. `folder`: book/results."""
    folder = provenance.repository() / "book" / "results" if folder is None else Path(folder)
    path = folder / f"{chapter}.json"
    return read(path) if path.is_file() else None
