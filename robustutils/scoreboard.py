"""How results are shown: comparison tables in chapters, the scoreboard page, the README, the terminal, glue.

Everything here is a function of results files (`robustutils.evidence`); nothing measures or judges. A verdict
is always written in words; its CSS class ``verdict-NAME`` only adds a colour.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from robustutils.claims import Claims
from robustutils.criteria import VERDICTS
from robustutils.evidence import PERCENT, Results

LABELS = {name: name.replace("_", " ") for name in VERDICTS}
_SYMBOLS = str.maketrans({"*": "star", "+": "plus"})


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


@dataclass(frozen=True)
class Cell:
    """Text, a verdict, or both; a note says why."""

    text: str = ""
    verdict: str = ""
    note: str = ""

    def __str__(self) -> str:
        words = ": ".join(filter(None, (LABELS.get(self.verdict), self.note)))
        return f"{self.text} ({words})" if self.text and words else self.text or words

    def html(self) -> str:
        """The cell's content as HTML."""
        label = badge(self.verdict) if self.verdict else ""
        return " ".join(filter(None, (escape(self.text), label, escape(self.note))))


def badge(name: str, text: str = "") -> str:
    """A verdict as an HTML label: its words (or `text`), coloured by its class."""
    return f'<span class="verdict-{name}">{escape(text or LABELS[name])}</span>'


@dataclass(frozen=True)
class Table:
    """A table that Jupyter, the rendered book and a terminal can show; the first column heads its row."""

    label: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = ""
        for first, *others in self.rows:
            cells = "".join(f"<td>{cell.html()}</td>" for cell in others)
            body += f'\n<tr><th scope="row">{first.html()}</th>{cells}</tr>'
        label = escape(self.label)
        frame = (
            f'class="table-scroll" style="overflow-x: auto" role="region" tabindex="0" aria-label="{label}"'
        )
        return f"<div {frame}><table><thead><tr>{head}</tr></thead><tbody>{body}\n</tbody></table></div>"

    def _repr_markdown_(self) -> str:
        lines = [self.header, ("---",) * len(self.header), *(tuple(map(str, row)) for row in self.rows)]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in escaped)

    def __str__(self) -> str:
        lines = [self.header, *(tuple(map(str, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        return "\n".join(line.rstrip() for line in (padded[0], "-" * len(padded[0].rstrip()), *padded[1:]))


def edition(results: Results) -> str:
    """Profile and date of a run, such as ``standard, 2026-01-31``."""
    return ", ".join(filter(None, (results["profile"], str(results.get("date", ""))[:10])))


def interval_text(entry: Mapping[str, Any]) -> str:
    """The 95% interval of a measured value and what it is over: training seeds where there are several."""
    over_seeds = entry.get("seed_ci95") is not None
    interval = entry["seed_ci95"] if over_seeds else entry["ci95"]
    if interval is None:
        return ""
    pairs = interval if isinstance(interval[0], list) else [interval]
    places = _places(_list(entry["measured"]), entry["unit"], entry["paper_value"])
    shown = ", ".join(f"[{low:.{places}f}, {high:.{places}f}]" for low, high in pairs)
    return f"{shown} ({len(entry['seeds'])} seeds)" if over_seeds else f"{shown} (n = {entry['n']})"


def _value(entry: Mapping[str, Any] | None, key: str = "measured") -> str:
    if entry is None or entry[key] is None:
        return ""
    return format_value(entry[key], entry["unit"], entry["paper_value"])


def glance_table(results: Results) -> Table:
    """The verdicts of a chapter at a glance: one line for each measured claim id, then what was not run and why."""
    rows, absent = [], dict[str, list[str]]()
    for name, entries in _by_id(results).items():
        reached = {verdict: count for verdict, count in verdict_counts(results, name).items() if count}
        if reached.keys() == {"not_run"}:
            absent.setdefault(entries[0]["note"], []).append(name)
            continue
        words = " · ".join(f"{count} {LABELS[verdict]}" for verdict, count in reached.items())
        statements = " ".join(dict.fromkeys(entry["statement"] for entry in entries))
        rows.append((Cell(name), Cell(statements), Cell(words)))
    for reason, names in absent.items():
        rows.append((Cell(", ".join(names)), Cell(reason), Cell("", "not_run")))
    return Table(
        f"Verdicts at a glance ({edition(results)})",
        ("claim", "what it says", "rows by verdict"),
        tuple(rows),
    )


def criteria_table(claims: Claims, ids: Iterable[str]) -> Table:
    """The rows of some claim ids with the paper's number and the criterion fixed for each."""
    ids = list(ids)
    rows = [
        (
            Cell(row.id),
            Cell(row.row),
            Cell(", ".join(f"{number:g}" for number in _list(row.paper) if number is not None)),
            Cell(str(row.criterion)),
        )
        for row in claims.rows
        if row.id in ids
    ]
    return Table(f"Criteria: {', '.join(ids)}", ("claim", "row", "paper", "criterion"), tuple(rows))


def comparison_table(
    results: Results | None,
    published: Results | None,
    ids: Iterable[str],
    *,
    select: Callable[[str], bool] = lambda row: True,
    unmeasured: bool = False,
) -> Table:
    """Paper, published edition and this run side by side, for the rows of some claim ids.

    `select` says which rows to show by their names; those measured in neither run are left out, unless `unmeasured`
    asks for them. Interval and verdict are those of this run; with `results` None those of the published edition. Beside
    a verdict stands the fidelity of a run that did not follow the paper's protocol to the letter.

    Raises: ValueError for an id that the shown run does not have, and when there is no run at all.
    """
    judged = results or published
    if judged is None:
        raise ValueError("a comparison table needs a run: this one or the published edition")
    ids, known = list(ids), _by_id(judged)
    for name in ids:
        if name not in known:
            raise ValueError(f"{judged['chapter']} has no claim id {name!r}; allowed: {', '.join(known)}")
    stated = {(entry["id"], entry["row"]): entry for entry in published["claims"]} if published else {}
    rows = []
    for entry in (entry for name in ids for entry in known[name]):
        before = stated.get((entry["id"], entry["row"]))
        shown = unmeasured or any(run is not None and run["measured"] is not None for run in (entry, before))
        if not shown or not select(entry["row"]):
            continue
        cells = [Cell(_title(entry)), Cell(_value(entry, "paper_value"))]
        if results is not None and before is not None:
            text = " ".join(filter(None, (_value(before), interval_text(before))))
            cells += [Cell(text, before["verdict"], _aside(before) if before["verdict"] != "not_run" else "")]
        elif results is not None:
            cells += [Cell("none")]
        cells += [Cell(_value(entry)), Cell(interval_text(entry)), Cell("", entry["verdict"], _aside(entry))]
        rows.append(tuple(cells))
    editions = [f"published edition ({edition(published)})" if published else "published edition"]
    runs = editions if results is None else [*editions, f"this run ({edition(results)})"]
    header = ("claim", "paper", *runs, "95% CI", "verdict")
    return Table(f"Paper and measurement: {', '.join(ids)}", header, tuple(rows))


def _aside(entry: Mapping[str, Any]) -> str:
    """What belongs beside a verdict: why there is none, or how far the run was from the paper's protocol."""
    if entry["verdict"] == "not_run":
        return str(entry["note"])
    loose = entry["verdict"] != "not_evidence" and entry["fidelity"] != "exact"
    return str(entry["fidelity"]).replace("_", " ") if loose else ""


def grid_table(
    results: Results, label: str, lines: Mapping[str, tuple[str, str]], columns: Sequence[str]
) -> Table:
    """Measured values as a grid, the paper's in brackets: a line for each kind of row, a column for each subject.

    `lines` maps what a line shows to its claim id and its row's name, with ``{0}`` where the column stands. A row
    that the chapter does not have leaves its cell empty. The unit stands behind what the line shows.

    Raises: ValueError for a line without any row.
    """
    known = {(entry["id"], entry["row"]): entry for entry in results["claims"]}
    rows = []
    for title, (id, pattern) in lines.items():
        entries = [known.get((id, pattern.format(column))) for column in columns]
        if not any(entries):
            raise ValueError(f"{results['chapter']} has no row {id} {pattern!r} for any of {list(columns)}")
        units = {entry["unit"] for entry in entries if entry} - {""}
        cells = (Cell() if entry is None else _compared(entry) for entry in entries)
        rows.append((Cell(" ".join([title, *(f"({unit})" for unit in units)])), *cells))
    return Table(label, (label, *columns), tuple(rows))


def _compared(entry: Mapping[str, Any]) -> Cell:
    paper, here = (
        _value(entry, key).removesuffix(entry["unit"]).strip() for key in ("paper_value", "measured")
    )
    return Cell(" ".join(filter(None, [here, f"({paper})" if paper else ""])), entry["verdict"])


def _by_id(results: Results) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in results["claims"]:
        groups.setdefault(entry["id"], []).append(entry)
    return groups


def _title(entry: Mapping[str, Any]) -> str:
    return entry["id"] if entry["row"] == entry["id"] else f"{entry['id']}: {entry['row']}"


def verdict_counts(results: Results, claim: str | None = None) -> dict[str, int]:
    """Rows per verdict in the ladder's order, zeros included; of one claim id where `claim` is given."""
    reached = [entry["verdict"] for entry in results["claims"] if claim in (None, entry["id"])]
    return {name: reached.count(name) for name in VERDICTS}


def _spoken(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {LABELS[name]}" for name, count in counts.items() if count)


def _counts_table(label: str, runs: Iterable[tuple[str, Results]]) -> Table:
    rows = [(Cell(name), *(Cell(str(count)) for count in verdict_counts(run).values())) for name, run in runs]
    return Table(label, (label, *LABELS.values()), tuple(rows))


def scoreboard_markdown(
    published: Sequence[Results], this_run: Sequence[Results] | None = None, *, page: str = "{chapter}.ipynb"
) -> str:
    """Body of the scoreboard page: per paper the rows by verdict, and every claim id with its rows folded.

    `page` is where the page of a chapter is, as seen from the scoreboard.
    """
    editions, runs = ({run["chapter"]: run for run in group} for group in (published, this_run or ()))
    parts = []
    for chapter in dict.fromkeys([*editions, *runs]):
        edited, run = editions.get(chapter), runs.get(chapter)
        shown: Results = edited or run  # type: ignore[assignment]
        named = [(f"published ({edition(edited)})", edited)] if edited else []
        named += [(f"this run ({edition(run)})", run)] if run else []
        parts += [
            f"## [{shown['paper']['title']}]({page.format(chapter=chapter)})",
            _counts_table("rows by verdict", named)._repr_markdown_(),
            *(_claim_html(name, shown, run, edited) for name in _by_id(shown)),
        ]
    return "\n\n".join(parts) if parts else "Nothing has been published yet."


def _claim_html(name: str, shown: Results, run: Results | None, edited: Results | None) -> str:
    """One claim id as one folded HTML block: no blank line, so that Markdown leaves it alone."""
    counts = verdict_counts(shown, name).items()
    labels = " ".join(badge(kind, f"{count} {LABELS[kind]}") for kind, count in counts if count)
    stated = dict.fromkeys(entry["statement"] for entry in _by_id(shown)[name])
    statements = "".join(f"<p>{escape(text)}</p>" for text in stated)
    has_run = run is not None and name in _by_id(run)
    table = comparison_table(run if has_run else None, edited, [name], unmeasured=True)
    html = f"<details><summary>{escape(name)} {labels}</summary>{statements}{table._repr_html_()}</details>"
    return re.sub(r"\s*\n\s*", "\n", html)


def readme_table(published: Sequence[Results], *, page: str = "book/{chapter}.ipynb") -> str:
    """Markdown table of the published edition, one line per chapter; `page` as seen from the README."""
    if not published:
        return "Nothing has been published yet."
    return _counts_table(
        "paper",
        [
            (f"[{run['paper']['title']}]({page.format(chapter=run['chapter'])}) ({edition(run)})", run)
            for run in published
        ],
    )._repr_markdown_()


def terminal_scoreboard(results: Sequence[Results]) -> str:
    """Rows by verdict for every chapter run, as aligned text."""
    return str(_counts_table("chapter", [(f"{run['chapter']} ({edition(run)})", run) for run in results]))


def replace_between_markers(text: str, name: str, new: str) -> str:
    """`text` with what stands between ``<!-- name:start -->`` and ``<!-- name:end -->`` replaced by `new`.

    Raises: ValueError unless each marker stands there once, in this order.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"expected {start} and then {end}, each once")
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}\n\n{new.strip()}\n\n{end}{after}"


def glue_key(id: str, row: str) -> str:
    """A claim's name in glue, of letters, digits and ``_.-``: ``EAT-T7-C_adv-RplusFGSM-white-box``."""
    name = id if row == id else f"{id} {row}"
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name.translate(_SYMBOLS)).strip("-")


def glue_values(results: Results) -> dict[str, str]:
    """Everything the prose of a chapter may quote, as text under names that glue accepts.

    Per row KEY (`glue_key`): KEY the measured value (``not run`` without one), KEY-paper, KEY-ci, KEY-effect
    and KEY-verdict. Per claim id: ID-glance (rows by verdict). For the chapter: glance, glance-total and
    glance-VERDICT, profile. Raises: ValueError when two rows share a name.
    """
    counts = verdict_counts(results)
    values = {
        "profile": results["profile"],
        "glance": _spoken(counts),
        "glance-total": str(len(results["claims"])),
    }
    values |= {f"glance-{name}": str(count) for name, count in counts.items()}
    for name in _by_id(results):
        values[f"{name}-glance"] = _spoken(verdict_counts(results, name))
    for entry in results["claims"]:
        key = glue_key(entry["id"], entry["row"])
        effect = entry.get("effect")
        quoted = {
            "": _value(entry) or LABELS["not_run"],
            "-paper": _value(entry, "paper_value"),
            "-ci": interval_text(entry),
            "-effect": "" if effect is None else format_value(effect, entry["unit"], entry["paper_value"]),
            "-verdict": LABELS[entry["verdict"]],
        }
        for suffix, text in quoted.items():
            if key + suffix in values:
                raise ValueError(f"two rows of {results['chapter']} share the glue name {key + suffix!r}")
            values[key + suffix] = text
    return values
