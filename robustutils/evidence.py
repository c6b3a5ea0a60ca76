"""Evidence: claims and measurements side by side, with a verdict for each, and the results file that keeps them.

A chapter records its measurements in a `Ledger`, which judges them by the criteria of the claims file and
gives the content of `results/NAME.json`. No chapter writes a verdict.
"""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustutils.claims import Claims, Row
from robustutils.criteria import FIDELITIES, NO_EVIDENCE, PROFILES, STRONG, VERDICTS, Judgement, verdict
from robustutils.measurements import Measurement
from robustutils.measurements import difference as difference  # chapters find all they record with here
from robustutils.measurements import mean as mean
from robustutils.measurements import rate as rate
from robustutils.storage import write_atomically

Results = dict[str, Any]
PERCENT = ("%", "points")

_KEPT = ("ci95", "seed_ci95", "per_seed", "effect", "effect_ci95", "effect_seed_ci95", "effect_per_seed")
_PAPER_KEYS = dict.fromkeys(("key", "title", "url"), str)
_RESULTS_KEYS: dict[str, Any] = (
    dict.fromkeys(("chapter", "profile", "source_hash", "git_commit"), str)
    | dict.fromkeys(("paper", "parameters", "datasets", "environment"), dict)
    | {"claims": list, "seconds": (int, float)}
)
_RESULT_KEYS: dict[str, Any] = (
    dict.fromkeys(("id", "row", "statement", "unit", "criterion", "verdict", "note"), str)
    | dict.fromkeys(("paper_value", "measured"), (int, float, list, type(None)))
    | {"n": int, "seeds": list, "ci95": (list, type(None)), "fidelity": (str, type(None))}
)


class Ledger:
    """Measurements of one run, judged against the claims as they are recorded."""

    def __init__(self, claims: Claims, profile: str) -> None:
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}; allowed: {', '.join(PROFILES)}")
        self.claims, self.profile = claims, profile
        self._rows = {(row.id, row.row): row for row in claims.rows}
        self._judged: dict[tuple[str, str], tuple[Measurement, Judgement, str]] = {}

    def record(self, id: str, row: str, measurement: Measurement) -> None:
        """Judge a measurement of a row of the claims file.

        Raises: ValueError for an unknown or already recorded row, NaN, or a measurement that its criterion
        cannot judge; the message names the row.
        """
        key = (id, row)
        if key not in self._rows:
            siblings = [name for claim, name in self._rows if claim == id]
            what, word, pool = (
                ("row", row, siblings) if siblings else ("id", id, [claim for claim, _ in self._rows])
            )
            nearest = difflib.get_close_matches(word, pool, n=1, cutoff=0.0)
            raise ValueError(
                f"{self.claims.chapter} claims no {what} {word!r}; nearest: {', '.join(nearest)!r}"
            )
        if key in self._judged:
            raise ValueError(f"{id} {row!r} is recorded twice")
        claimed = self._rows[key]
        try:
            if claimed.criterion is None:
                raise ValueError("its claim states no criterion; fix one before the run")
            measurement.check()
            judgement = claimed.criterion.judge(claimed.paper, measurement.observed())
            reached = verdict(
                judgement,
                fidelity=measurement.fidelity,
                profile=self.profile,
                n=measurement.n,
                seeds=measurement.seeds,
                min_n=claimed.min_n,
                min_seeds=claimed.min_seeds,
            )
        except ValueError as error:
            raise ValueError(f"{id} {row!r}: {error}") from error
        self._judged[key] = (measurement, judgement, reached)

    def measured(self) -> dict[tuple[str, str], Measurement]:
        """What has been recorded, by id and row."""
        return {key: measurement for key, (measurement, _, _) in self._judged.items()}

    def results(self, not_run_note: str = "next", **provenance: Any) -> Results:
        """Content of `results/NAME.json`: every row of the claims file, in its order.

        Rows without a measurement are `not_run`; their note is what they need, else `not_run_note`.
        `provenance` fills parameters, datasets, environment, source_hash, git_commit, seconds and date (ISO),
        or adds keys of its own.
        """
        known = {"parameters": {}, "datasets": {}, "environment": {}, "source_hash": "", "git_commit": ""}
        head = {
            "chapter": self.claims.chapter,
            "profile": self.profile,
            "paper": dict(self.claims.paper),
            "claims": [self._entry(row, not_run_note) for row in self.claims.rows],
            "claims_sha256": self.claims.sha256,
        }
        if clash := sorted(head.keys() & provenance.keys()):
            raise ValueError(f"provenance cannot replace {clash[0]!r}")
        return head | known | {"seconds": 0.0, "date": ""} | provenance

    def _entry(self, row: Row, not_run_note: str) -> dict[str, Any]:
        judged = self._judged.get((row.id, row.row))
        digits = 2 if row.unit in PERCENT else 4
        least = [f"{name} >= {k}" for name, k in (("n", row.min_n), ("seeds", row.min_seeds)) if k]
        entry: dict[str, Any] = {
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
            "note": row.needs or not_run_note,
            "direction_holds": None,
            "size_holds": None,
        }
        if judged is None:
            return entry
        measured, judgement, reached = judged
        values = {"measured": measured.value} | {name: getattr(measured, name) for name in _KEPT}
        if measured.effect is None:
            values |= {"effect": judgement.effect, "effect_ci95": judgement.interval}
        return entry | {
            **{key: _listed(value, digits) for key, value in values.items()},
            "n": measured.n,
            "seeds": list(measured.seeds),
            "verdict": reached,
            "fidelity": measured.fidelity,
            "note": measured.note,
            "direction_holds": judgement.direction,
            "size_holds": judgement.size,
        }


def _listed(value: Any, digits: int | None = None) -> Any:
    """Floats and tuples as JSON has them, rounded to `digits` decimals where given (and no negative zero)."""
    if isinstance(value, tuple):
        return [_listed(part, digits) for part in value]
    return value if value is None or digits is None else round(value, digits) + 0.0


def write_results(path: str | os.PathLike[str], results: Results) -> None:
    """Write a results file whole or not at all. Raises: ValueError for what `read_results` would refuse."""
    path = Path(path)
    _validate(results, str(path))
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_results(path: str | os.PathLike[str]) -> Results:
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
    for entry in results["claims"]:
        named = isinstance(entry, dict)
        name = f"{where}: claim {entry.get('id')!r} row {entry.get('row')!r}" if named else where
        _typed(entry, _RESULT_KEYS, name)
        if (entry["id"], entry["row"]) in seen:
            raise ValueError(f"{name} appears twice")
        seen.add((entry["id"], entry["row"]))
        reached, fidelity = entry["verdict"], entry["fidelity"]
        if reached not in VERDICTS:
            raise ValueError(f"{name}: unknown verdict {reached!r}; allowed: {', '.join(VERDICTS)}")
        if reached == "not_run":
            consistent = entry["measured"] is None and fidelity is None
        else:
            allowed = STRONG if reached == "reproduced" else FIDELITIES
            quick = results["profile"] in NO_EVIDENCE
            consistent = (
                entry["measured"] is not None and fidelity in allowed and quick == (reached == "not_evidence")
            )
        if not consistent:
            raise ValueError(
                f"{name}: verdict {reached!r} cannot go with measured {entry['measured']!r}, "
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
    return {(entry["id"], entry["row"]) for entry in results["claims"] if entry["verdict"] != "not_run"}


def published(chapter: str, folder: str | os.PathLike[str] | None = None) -> Results | None:
    """Results of the published edition of a chapter; None where there is none. `folder`: book/results."""
    folder = Path(__file__).resolve().parent.parent / "book" / "results" if folder is None else Path(folder)
    path = folder / f"{chapter}.json"
    return read_results(path) if path.is_file() else None
