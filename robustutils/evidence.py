"""Evidence: what a paper claims, what was measured, and the results file that puts the two side by side.

`NAME.claims.toml` states claims and criteria before a run; a chapter records measurements in a `Ledger`,
which judges them (`robustutils.criteria`) and gives the content of `results/NAME.json`. No chapter writes a
verdict.

Two intervals are kept apart: `ci95` says how far the finite test set leaves the value open, `seed_ci95` how
far a newly trained model would move it. With several training seeds the second decides, with one the first.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robustutils.criteria import (
    FIDELITIES,
    PROFILES,
    STRONG,
    VERDICTS,
    Criterion,
    Judgement,
    Observed,
    Value,
    mean_interval,
    paired_difference,
    parse_criterion,
    seed_interval,
    verdict,
    wilson,
)

__all__ = [
    "Claims",
    "Ledger",
    "Measurement",
    "Row",
    "mean_interval",
    "paired_difference",
    "published",
    "rate",
    "read_results",
    "seed_interval",
    "verdict",
    "wilson",
    "write_results",
]

Results = dict[str, Any]
SUFFIX = ".claims.toml"
PERCENT = ("%", "points")

_EFFECT = ("effect", "effect_ci95", "effect_seed_ci95", "effect_per_seed")
_MEASURED = ("measured", "ci95", "seed_ci95", "per_seed", *_EFFECT)

_ROW_KEYS = {"statement": str, "unit": str, "needs": str, "min_n": int, "min_seeds": int, "criterion": dict}
_CLAIM_KEYS = {"id": str, "columns": list, "table": dict, "rows": list, "paper": object} | _ROW_KEYS
_NUMBER, _NUMBERS = (int, float), (int, float, list, type(None))
_TEXTS = ("chapter", "profile", "source_hash", "git_commit")
_RESULTS_KEYS: dict[str, Any] = (
    dict.fromkeys(_TEXTS, str)
    | dict.fromkeys(("paper", "parameters", "datasets", "environment"), dict)
    | {"claims": list, "seconds": _NUMBER}
)
_RESULT_KEYS: dict[str, Any] = (
    dict.fromkeys(("id", "row", "statement", "unit", "criterion", "verdict", "note"), str)
    | dict.fromkeys(("paper_value", "measured"), _NUMBERS)
    | {"n": int, "seeds": list, "ci95": (list, type(None)), "fidelity": (str, type(None))}
)


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
            _keys(data, {"paper": dict, "claims": list}, required=("paper", "claims"))
            _keys(
                data["paper"], dict.fromkeys(("key", "title", "url"), str), required=("key", "title", "url")
            )
            rows = [row for claim in data["claims"] for row in _claim_rows(claim)]
            names = [(row.id, row.row) for row in rows]
            if repeated := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"claim {repeated[0][0]!r}: row {repeated[0][1]!r} appears twice")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(
            path.name.removesuffix(SUFFIX), data["paper"], tuple(rows), hashlib.sha256(content).hexdigest()
        )


def _keys(data: Any, known: Mapping[str, Any], required: Iterable[str] = ()) -> None:
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
        paper = merged.get("paper")
        if paper is not None:
            if not _finite(paper):
                raise ValueError(f"'paper' must be a finite number or a list of them, got {paper!r}")
            paper = _plain(paper)
        criterion = None if merged["criterion"] is None else parse_criterion(merged["criterion"])
        forms = criterion.paper if criterion and not merged["needs"] else ()
        if criterion and forms and not isinstance(paper, forms):
            form = " or ".join({float: "a number", tuple: "a list"}[kind] for kind in forms)
            raise ValueError(f"criterion {criterion.kind!r} needs 'paper' as {form}, got {paper!r}")
    except ValueError as error:
        raise ValueError(f"row {name!r}: {error}") from error
    fields = {key: merged[key] for key in ("statement", "unit", "min_n", "min_seeds", "needs")}
    return Row(id=claim, row=data["row"], paper=paper, criterion=criterion, **fields)


def _finite(value: Any) -> bool:
    values = value if isinstance(value, list) and value else [value]
    return all(isinstance(x, _NUMBER) and not isinstance(x, bool) and math.isfinite(x) for x in values)


def _plain(value: Any) -> Any:
    """Numbers, arrays and nested sequences of them as floats and tuples."""
    return float(value) if np.ndim(value) == 0 else tuple(_plain(part) for part in value)


@dataclass(frozen=True)
class Measurement:
    """One measured row, in the unit of the row.

    `value` is a number (the mean over seeds) or, for criteria that judge sequences, one number per position;
    `ci95` its test-set interval (for a sequence one pair per value; None where sampling plays no part); `n`
    the number of test points; `seeds` the training seeds, and `per_seed` the value of each. `effect`,
    `effect_ci95`, `effect_per_seed` are the same for the (paired) difference that the claim is about.
    `fidelity` is exact, code_variant, substitution or reduced; `note` says in a sentence what differs.
    """

    value: Value
    ci95: Any  # pairs and per-seed values come as lists, tuples or arrays and are kept as tuples of floats
    n: int
    seeds: Sequence[int]
    _: KW_ONLY
    per_seed: Any = None
    effect: float | None = None
    effect_ci95: Any = None
    effect_per_seed: Any = None
    fidelity: str
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "ci95", "per_seed", "effect", "effect_ci95", "effect_per_seed"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    def check(self) -> None:
        """Raise ValueError for what cannot be one: NaN, no points, an interval that misses its value."""
        if self.fidelity not in FIDELITIES:
            raise ValueError(f"unknown fidelity {self.fidelity!r}; allowed: {', '.join(FIDELITIES)}")
        if self.n < 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"needs n >= 1 and distinct seeds, got n={self.n}, seeds={list(self.seeds)}")
        if self.effect is None and (self.effect_ci95 is not None or self.effect_per_seed is not None):
            raise ValueError("effect_ci95 or effect_per_seed is given without effect")
        for name, value, ci95, per_seed in (
            ("value", self.value, self.ci95, self.per_seed),
            ("effect", self.effect, self.effect_ci95, self.effect_per_seed),
        ):
            if value is None:
                continue
            centre = np.asarray(value)
            slack = 1e-6 * np.maximum(1, np.abs(centre))
            if not np.isfinite(centre).all():
                raise ValueError(f"{name} is not finite: {value!r}")
            if ci95 is not None:
                bounds = np.asarray(ci95)
                if bounds.shape != (*centre.shape, 2) or not (
                    np.all(bounds[..., 0] <= centre + slack) and np.all(centre - slack <= bounds[..., 1])
                ):
                    raise ValueError(
                        f"the 95% interval {ci95!r} does not enclose {name} {value!r}; same unit?"
                    )
            if per_seed is not None:
                each = np.asarray(per_seed)
                if each.shape != (len(self.seeds), *centre.shape):
                    raise ValueError(
                        f"{name} has {len(per_seed)} values per seed for {len(self.seeds)} seeds"
                    )
                if not np.all((each.min(axis=0) <= centre + slack) & (centre - slack <= each.max(axis=0))):
                    raise ValueError(
                        f"{name} {value!r} lies outside its values per seed {per_seed!r}; same unit?"
                    )

    def observed(self) -> Observed:
        """Value, effect and the interval that decides: over several seeds, else of the test set."""
        effect, ci95, each = self.effect, self.effect_ci95, self.effect_per_seed
        if effect is None:
            effect, ci95, each = _climb(self.value), self.ci95, self.per_seed
            if isinstance(self.value, tuple):
                # the gap between the end intervals ignores how they are paired, which is conservative
                ci95 = None if ci95 is None else (ci95[-1][0] - ci95[0][1], ci95[-1][1] - ci95[0][0])
                each = None if each is None else tuple(_climb(values) for values in each)
        return Observed(self.value, effect, _over_seeds(each) if len(self.seeds) > 1 else ci95)


def _climb(value: Value) -> float:
    return value[-1] - value[0] if isinstance(value, tuple) else value


def _over_seeds(values: Sequence[Any] | None) -> Any:
    """t-interval over two or more seeds; one for every position of sequences; None where it is undefined."""
    if values is None or len(values) < 2:
        return None
    if isinstance(values[0], tuple):
        return tuple(seed_interval(column) for column in zip(*values, strict=True))
    return seed_interval(values)


def rate(
    outcomes: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    seeds: Sequence[int],
    fidelity: str,
    note: str = "",
) -> Measurement:
    """Percentage of true outcomes, bool [S, N]: S training seeds on the same N examples ([N] for one seed).

    With a `reference` of the same shape the effect is the paired difference outcomes - reference in points.
    The test-set interval counts N examples, not S * N: Wilson for the rate; for the difference Newcombe (one
    seed) or Student's t over the examples' means over seeds. Raises: ValueError for other dtypes or shapes.
    """
    ours = np.atleast_2d(np.asarray(outcomes))
    theirs = None if reference is None else np.atleast_2d(np.asarray(reference))
    if ours.dtype != bool or ours.ndim != 2 or len(ours) != len(seeds):
        raise ValueError(f"rate needs bool [{len(seeds)} seeds, N], got {ours.dtype}{list(ours.shape)}")
    if theirs is not None and (theirs.dtype != bool or theirs.shape != ours.shape):
        raise ValueError(
            f"the reference is {theirs.dtype}{list(theirs.shape)}, the outcomes {list(ours.shape)}"
        )
    n = ours.shape[1]
    each = 100 * ours.mean(axis=1)
    measurement = Measurement(
        each.mean(),
        tuple(100 * end for end in wilson(float(ours.mean()) * n, n)),
        n,
        seeds,
        per_seed=each,
        fidelity=fidelity,
        note=note,
    )
    if theirs is None:
        return measurement
    apart = ours.astype(float) - theirs
    interval = (
        paired_difference(ours[0], theirs[0])[1] if len(ours) == 1 else mean_interval(apart.mean(axis=0))
    )
    return dataclasses.replace(
        measurement,
        effect=100 * apart.mean(),
        effect_ci95=tuple(100 * end for end in interval),
        effect_per_seed=100 * apart.mean(axis=1),
    )


def difference(
    outcomes: ArrayLike, reference: ArrayLike, *, seeds: Sequence[int], fidelity: str, note: str = ""
) -> Measurement:
    """The paired difference outcomes - reference in points, as the measured value itself; see :func:`rate`."""
    paired = rate(outcomes, reference, seeds=seeds, fidelity=fidelity, note=note)
    assert paired.effect is not None
    return Measurement(
        paired.effect,
        paired.effect_ci95,
        paired.n,
        paired.seeds,
        per_seed=paired.effect_per_seed,
        fidelity=fidelity,
        note=note,
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
            **dict.fromkeys(_MEASURED),
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
        values = (
            measured.value,
            measured.ci95,
            _over_seeds(measured.per_seed),
            measured.per_seed,
            judgement.effect if measured.effect is None else measured.effect,
            judgement.interval if measured.effect is None else measured.effect_ci95,
            _over_seeds(measured.effect_per_seed),
            measured.effect_per_seed,
        )
        return entry | {
            **{key: _listed(value, digits) for key, value in zip(_MEASURED, values, strict=True)},
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
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


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
    _typed(results["paper"], dict.fromkeys(("key", "title", "url"), str), f"{where}: paper")
    if results["profile"] not in PROFILES:
        raise ValueError(f"{where}: unknown profile {results['profile']!r}; allowed: {', '.join(PROFILES)}")
    seen = set()
    for entry in results["claims"]:
        name = (
            f"{where}: claim {entry.get('id')!r} row {entry.get('row')!r}"
            if isinstance(entry, dict)
            else where
        )
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
            quick = results["profile"] == "quick"
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


def published(chapter: str, folder: str | os.PathLike[str] | None = None) -> Results | None:
    """Results of the published edition of a chapter; None where there is none. `folder`: book/results."""
    folder = Path(__file__).resolve().parent.parent / "book" / "results" if folder is None else Path(folder)
    path = folder / f"{chapter}.json"
    return read_results(path) if path.is_file() else None
