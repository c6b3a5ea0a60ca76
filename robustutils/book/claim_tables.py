"""Tables of claims: the paper's number beside ours, its interval and its verdict.

A verdict is always written in words, its colour only adds to them.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from robustutils.book.claims import Claims
from robustutils.book.results import PERCENT, Results
from robustutils.tables import Markup, Table, plain

LABELS = {
    "disagrees": "disagrees",
    "undetermined": "undetermined",
    "direction": "direction only",
    "agrees": "agrees, reduced or stand-in",
    "reproduced": "reproduced",
    "not_scored": "check, not scored",
    "not_run": "not run",
    "not_evidence": "not evidence",
}
FIDELITY = {
    "open_choice": "open choice",
    "code_variant": "code variant",
    "fewer": "fewer seeds or images",
    "reduced": "reduced",
    "substitution": "stand-in",
}


def badge(name: str, text: str = "") -> str:
    """A verdict as an HTML label: its words (or `text`), coloured by its class."""
    return f'<span class="verdict-{name}">{escape(text or LABELS[name])}</span>'


# ---- numbers as text ----


def format_value(value: Any, unit: str = "", like: Any = None) -> str:
    """A number or a list of them as text, such as ``3.7 %``.

    As many decimals as the paper's value `like` prints; at least one for % and points, and three significant
    digits (at most four decimals) for other units.
    """
    values = _list(value)
    places = _places(values, unit, like)
    shown = [f"{round(number, places) + 0.0:.{places}f}" for number in values]  # + 0.0: no minus before zero
    return f"{', '.join(shown)} {unit}".strip()


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _places(values: Sequence[float], unit: str, like: Any) -> int:
    printed = [_decimals(number) for number in _list(like) if number is not None]
    if unit in PERCENT:
        return max([1, *printed])
    digits = [2 - math.floor(math.log10(abs(number))) for number in values if number]
    return max([min(4, max([0, *digits])), *printed])


def _decimals(number: float) -> int:
    text = format(number, ".10g")
    return 4 if "e" in text else len(text.partition(".")[2])


def value_text(row: Mapping[str, Any] | None, key: str = "measured") -> str:
    """What was measured, or another number of a row of results; nothing where there is none."""
    if row is None or row[key] is None:
        return ""
    unit = row["unit"] if row["unit"] in PERCENT else ""
    return format_value(row[key], unit, row["paper_value"])


def interval_text(row: Mapping[str, Any]) -> str:
    """The 95% interval of a measured value and what it is over: training seeds where there are several."""
    over_seeds = row.get("seed_ci95") is not None
    interval = row["seed_ci95"] if over_seeds else row["ci95"]
    if interval is None:
        return ""
    pairs = interval if isinstance(interval[0], list | tuple) else [interval]
    places = _places(_list(row["measured"]), row["unit"], row["paper_value"])
    shown = ", ".join(f"[{low:.{places}f}, {high:.{places}f}]" for low, high in pairs)
    return f"{shown} ({len(row['seeds'])} seeds)" if over_seeds else f"{shown} (n = {row['n']:,})"


def verdict_text(row: Mapping[str, Any]) -> str:
    """The verdict of a row with its fidelity: ``agrees, reduced``."""
    verdict, fidelity = row["verdict"], FIDELITY.get(row["fidelity"] or "", "")
    if verdict == "not_scored":
        return f"check {'holds' if row['direction_holds'] and row['size_holds'] else 'does not hold'}"
    if verdict not in ("not_run", "not_evidence") and fidelity:
        return f"{LABELS[verdict].partition(',')[0]}, {fidelity}"
    return LABELS[verdict]


def reason(row: Mapping[str, Any]) -> str:
    """Why a row has its verdict: criterion, what held, and how the run departs from the paper's protocol."""
    if row["verdict"] == "not_run":
        return str(row["note"])
    said = [f"Criterion: {row['criterion']}."]
    if row["effect"] is not None and row["effect"] != row["measured"]:
        interval = row["effect_seed_ci95"] or row["effect_ci95"]
        ends = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
        said.append(f"Effect {row['effect']:.4g}{ends}.")
    held = {True: "holds", False: "does not hold", None: "is left open by the interval"}
    said.append(f"Direction {held[row['direction_holds']]}, size {held[row['size_holds']]}.")
    if len(row["seeds"]) == 1 and (row["effect_ci95"] or row["ci95"]):
        said.append("One seed: decided by the interval over test points alone.")
    said += [f"{text[0].upper()}{text[1:]}." for text in (row["note"], row["departures"]) if text]
    return " ".join(said)


# ---- tables ----


def edition(results: Results) -> str:
    """Profile and date of a run, such as ``standard, 2026-01-31``."""
    return ", ".join(filter(None, (results["profile"], str(results.get("date", ""))[:10])))


def by_id(results: Results) -> dict[str, list[dict[str, Any]]]:
    """The rows of each claim id."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results["claims"]:
        groups.setdefault(row["id"], []).append(row)
    return groups


def anchor(row: Mapping[str, Any]) -> str:
    """The name of a row in a page's address."""
    return re.sub(r"[^\w.]+", "-", f"{row['id']} {row['row']}".replace("*", "star")).strip("-")


def claims_table(
    published: Results | None,
    this_run: Results | None,
    ids: Iterable[str],
    *,
    unmeasured: bool = False,
    anchors: bool = False,
) -> Table:
    """Rows of some claims: the paper's number, ours, its 95% interval and the verdict, whose reason opens.

    Ours is the published edition's; a run that is not evidence has a column of its own. Rows
    measured in neither run are left out unless `unmeasured` asks for them. Checks stand last, below a heading.

    Raises: ValueError for an id that there is not.
    """
    shown = published or this_run
    if shown is None:
        return plain(("claim",), [("Nothing has been published yet.",)])
    ids, known = tuple(ids), by_id(shown)
    for name in ids:
        if name not in known:
            raise ValueError(f"{shown['chapter']} has no claim id {name!r}; there are {', '.join(known)}")
    here = {(row["id"], row["row"]): row for row in this_run["claims"]} if this_run and published else {}
    lines: list[tuple[tuple[str | Markup, ...], str]] = []
    for name in ids:
        chosen = [
            row
            for row in known[name]
            if unmeasured or row["measured"] is not None or value_text(here.get((name, row["row"])))
        ]
        if chosen and len(ids) > 1:
            lines.append(((shown["titles"][name],), ""))
        checks = [row for row in chosen if row["verdict"] == "not_scored"]
        for row in [*(row for row in chosen if row not in checks), *checks]:
            if row in checks[:1]:
                lines.append((("Checks, not scored",), ""))
            verdict = verdict_text(row)
            opened = f"{badge(row['verdict'], verdict)}</summary><p>{escape(reason(row))}</p>"
            unit = "" if row["unit"] in ("", "correlation", *PERCENT) else f" ({row['unit']})"
            cells = (
                f"{row['row']}{unit}",
                value_text(row, "paper_value"),
                value_text(row),
                interval_text(row) if row["measured"] is not None else "",
                Markup(f"<details><summary>{opened}</details>", verdict),
            )
            extra = (value_text(here.get((name, row["row"]))),) if here else ()
            lines.append(((*cells, *extra), anchor(row) if anchors else ""))
    column = (f"this run ({this_run['profile']}, not evidence)",) if here and this_run else ()
    header = ("claim", "paper", f"ours ({edition(shown)})", "95% CI", "verdict", *column)
    rows, marks = tuple(cells for cells, _ in lines), tuple(mark for _, mark in lines)
    return Table(f"Paper and ours: {', '.join(ids)}", header, rows, ids, marks)


def criteria_table(claims: Claims, ids: Iterable[str]) -> Table:
    """The rows of some claim ids with the paper's number and the criterion fixed for each."""
    ids = list(ids)
    rows = [
        (row.row, ", ".join(f"{x:g}" for x in _list(row.paper) if x is not None), str(row.criterion))
        for row in claims.rows
        if row.id in ids
    ]
    return Table(f"Criteria: {', '.join(ids)}", ("claim", "paper", "criterion"), tuple(rows))
