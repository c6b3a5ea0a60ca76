"""What became of the claims: the front of a chapter, the scoreboard page, the README, the terminal, glue.

Everything here is a function of results files (:mod:`.results`); nothing measures or judges.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from robustutils import figures
from robustutils.book.claim_tables import (
    LABELS,
    anchor,
    badge,
    by_id,
    claims_table,
    edition,
    format_value,
    interval_text,
    value_text,
    verdict_text,
)
from robustutils.book.claims import Claims
from robustutils.book.criteria import VERDICTS
from robustutils.book.results import MIME, Results
from robustutils.tables import CLAIMS, Table, plain

Coordinates = Mapping[str, Mapping[str, Any]]
Series = Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
_SYMBOLS = str.maketrans({"*": "star", "+": "plus"})


def verdict_counts(results: Results, claim: str | None = None) -> dict[str, int]:
    """Rows per verdict in the order of the verdicts, zeros included; of one claim id where `claim` is given."""
    reached = [row["verdict"] for row in results["claims"] if claim in (None, row["id"])]
    return {name: reached.count(name) for name in VERDICTS}


def _spoken(counts: Mapping[str, int]) -> dict[str, str]:
    """How many rows have a verdict, in words: ``1 agrees``, ``2 agree``."""
    several = {
        name: text.replace("agrees", "agree").replace("check,", "checks,") for name, text in LABELS.items()
    }
    return {name: f"{n} {(LABELS if n == 1 else several)[name]}" for name, n in counts.items() if n}


def _badges(counts: Mapping[str, int]) -> str:
    return " ".join(badge(name, text) for name, text in _spoken(counts).items())


# ---- the front of a chapter ----


def compared(
    claims: Claims,
    results: Results,
    ids: Sequence[str],
    lines: Coordinates,
    series: Series,
    xlabel: str,
    differences: bool = False,
) -> Figure:
    """Dots of ours, one a seed, beside the paper's diamonds: rows of the claims by the coordinates of lines and series.

    A series of several coordinates shows the largest of these rows. Lines without any measured row are left out. Rows are
    percentages, or their ``differences``.
    """
    known = {(row["id"], row["row"]): row for row in results["claims"]}
    ours: dict[str, list[list[float]]] = {name: [] for name in series}
    paper: dict[str, list[float]] = {name: [] for name in series}
    kept = []
    for line, place in lines.items():
        found = {}
        for name, several in series.items():
            asked = [several] if isinstance(several, Mapping) else several
            claimed = [claims.find(ids, {**place, **at}, differences=differences) for at in asked]
            found[name] = [known[row.id, row.row] for row in claimed if row and (row.id, row.row) in known]
        if all(row["measured"] is None for rows in found.values() for row in rows):
            continue
        kept.append(line)
        for name, rows in found.items():
            each = [row["per_seed"] or [row["measured"]] for row in rows if row["measured"] is not None]
            ours[name].append([max(values) for values in zip(*each, strict=False)])
            stated = [row["paper_value"] for row in rows if row["paper_value"] is not None]
            paper[name].append(max(stated, default=np.nan))
    stated_any = not np.isnan([*paper.values()]).all()
    limits = None if differences else (-2, 102)
    return figures.dots(kept, ours, paper if stated_any else None, xlabel=xlabel, xlim=limits)


def front(claims: Claims, results: Results | None) -> str:
    """What stands below a chapter's answer, as HTML: one picture, paper beside ours, and a strip of verdicts.

    Claims with a row that disagrees come first.
    """
    opened = f'<div class="front" data-chapter="{claims.chapter}">'
    if results is None:
        return f"{opened}<p>Nothing has been published yet.</p></div>"
    picture = {key: value for key, value in claims.picture.items() if key != "caption"}
    figures.use_style()
    drawing = compared(claims, results, **picture)
    drawing.set_figheight(2.3)
    strip, absent = "", dict[str, list[str]]()
    known = by_id(results)
    against = {name for name in known if verdict_counts(results, name)["disagrees"]}
    for name in sorted(results["titles"], key=lambda name: name not in against):
        rows, counts = known[name], verdict_counts(results, name)
        if counts["not_run"] == len(rows):
            absent.setdefault(rows[0]["note"], []).append(results["titles"][name])
            continue
        title = f"<span>{escape(results['titles'][name])}</span> <span>{_badges(counts)}</span>"
        strip += f"<details><summary>{title}</summary>{_statements(rows)}</details>"
    for note, titles in absent.items():
        listed = "".join(f"<li>{escape(title)}</li>" for title in titles)
        summary = f"<span>{len(titles)} more claims: {escape(note)}</span> <span>{badge('not_run')}</span>"
        strip += f"<details><summary>{summary}</summary><ul>{listed}</ul></details>"
    return (
        f"{opened}{figures.html(drawing, claims.picture['caption'])}"
        f'<section class="strip" aria-label="Verdicts">{strip}</section></div>'
    )


def _statements(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in dict.fromkeys(row["statement"] for row in rows))


def renew(
    notebook: Mapping[str, Any], claims: Claims, published: Results | None, this_run: Results | None = None
) -> None:
    """Make anew what an executed notebook shows of results: its front, its tables of claims, what the prose quotes."""
    if (shown := published or this_run) is None:
        return
    quotable = glue_values(shown)
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        ids, name = metadata.get(CLAIMS), metadata.get("scrapbook", {}).get("name")
        if ids:
            table = claims_table(published, this_run, ids)
            data |= {
                "text/html": table._repr_html_(),
                "text/markdown": table._repr_markdown_(),
                "text/plain": str(table),
            }
        elif ids is not None:
            data["text/html"] = front(claims, published)
        elif name in quotable:
            data["application/papermill.record/text/plain"] = repr(quotable[name])
        elif MIME in data and this_run is None:
            data[MIME] = shown


def page_hash(notebook: Mapping[str, Any]) -> str:
    """SHA-256 over the cells of an executed notebook and those of their outputs that :func:`renew` leaves alone."""

    def made_anew(output: Mapping[str, Any]) -> bool:
        return bool({CLAIMS, "scrapbook"} & output.get("metadata", {}).keys()) or MIME in output.get(
            "data", {}
        )

    kept = [
        [cell["source"], [output for output in cell.get("outputs", ()) if not made_anew(output)]]
        for cell in notebook["cells"]
    ]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


# ---- the scoreboard page, the README, the terminal ----


def _counts_table(label: str, runs: Iterable[tuple[str, Results]]) -> Table:
    counted = [(name, verdict_counts(run)) for name, run in runs]
    rare = ("undetermined", "not_scored", "not_evidence")
    kept = [name for name in VERDICTS if name not in rare or any(c[name] for _, c in counted)]
    rows = [(name, *(str(counts[verdict]) for verdict in kept)) for name, counts in counted]
    return plain((label, *(LABELS[name] for name in kept)), rows)


def mosaic(published: Sequence[Results]) -> str:
    """One picture of all claims of all papers: a small square a row, coloured by agreement, hatched by fidelity."""
    parts = []
    for run in published:
        order = sorted(run["claims"], key=lambda row: VERDICTS.index(row["verdict"]))
        squares = "".join(
            f'<a class="square {row["verdict"]} {row["fidelity"] or ""}" href="#{anchor(row)}"'
            f' title="{escape(run["titles"][row["id"]])}: {escape(row["row"])}: {verdict_text(row)}"></a>'
            for row in order
        )
        parts.append(f"<p>{escape(run['paper']['title'])}</p><div>{squares}</div>")
    legend = " ".join(
        f'<span><i class="square {name} {"reduced" if name == "agrees" else ""}"></i> {LABELS[name]}</span>'
        for name in VERDICTS
        if name != "not_evidence"
    )
    return f'<div class="mosaic">{"".join(parts)}<p class="legend">{legend}</p></div>'


def scoreboard_markdown(
    published: Sequence[Results], this_run: Sequence[Results] | None = None, *, page: str = "{chapter}.ipynb"
) -> str:
    """Body of the scoreboard page: a picture of all rows, and per paper every claim with its rows folded.

    What disagrees stands first, what was not run last. `page` is where the page of a chapter is, as seen from the
    scoreboard.
    """
    editions, runs = ({run["chapter"]: run for run in group} for group in (published, this_run or ()))
    parts = [mosaic(published)] if published else []
    for chapter in dict.fromkeys([*editions, *runs]):
        edited, run = editions.get(chapter), runs.get(chapter)
        shown: Results = edited or run  # type: ignore[assignment]
        named = [(f"published ({edition(edited)})", edited)] if edited else []
        named += [(f"this run ({edition(run)})", run)] if run else []
        counts = {id: verdict_counts(shown, id) for id in by_id(shown)}
        ids = sorted(
            counts,
            key=lambda id: (not counts[id]["disagrees"], counts[id]["not_run"] == sum(counts[id].values())),
        )
        parts += [
            f"## [{shown['paper']['title']}]({page.format(chapter=chapter)})",
            _counts_table("rows", named)._repr_markdown_(),
            *(_claim_html(id, shown, run, edited) for id in ids),
        ]
    return "\n\n".join(parts) if parts else "Nothing has been published yet."


def _claim_html(name: str, shown: Results, run: Results | None, edited: Results | None) -> str:
    """One claim id as one folded HTML block: no blank line, so that Markdown leaves it alone."""
    table = claims_table(edited, run, [name], unmeasured=True, anchors=True)
    title = f"{escape(shown['titles'][name])} {_badges(verdict_counts(shown, name))}"
    body = f"{_statements(by_id(shown)[name])}{table._repr_html_()}"
    return re.sub(
        r"\s*\n\s*", "\n", f'<details class="claim" id="{name}"><summary>{title}</summary>{body}</details>'
    )


def readme_table(published: Sequence[Results], *, page: str = "book/{chapter}.ipynb") -> str:
    """Markdown table of the published edition, one line per chapter; `page` as seen from the README."""
    if not published:
        return "Nothing has been published yet."
    links = (f"[{run['paper']['title']}]({page.format(chapter=run['chapter'])})" for run in published)
    runs = [(f"{link} ({edition(run)})", run) for link, run in zip(links, published, strict=True)]
    return _counts_table("rows of claims", runs)._repr_markdown_()


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


# ---- glue ----


def glue_key(id: str, row: str) -> str:
    """A claim's name in glue, of letters, digits and ``_.-``: ``EAT-T7-C_adv-RplusFGSM-white-box``."""
    name = id if row == id else f"{id} {row}"
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name.translate(_SYMBOLS)).strip("-")


def glue_values(results: Results) -> dict[str, str]:
    """Everything the prose of a chapter may quote, as text under names that glue accepts.

    Per row KEY (`glue_key`): KEY the measured value (``not run`` without one), KEY-paper, KEY-ci, KEY-effect
    and KEY-verdict. Per claim id: ID-glance (rows by verdict). For the chapter: glance, glance-total and
    glance-VERDICT, profile; glance-measured leaves checks out. Raises: ValueError when two rows share a name.
    """
    counts = verdict_counts(results)
    values = {
        "profile": results["profile"],
        "glance": ", ".join(_spoken(counts).values()),
        "glance-total": str(len(results["claims"])),
        "glance-measured": str(len(results["claims"]) - counts["not_run"] - counts["not_scored"]),
    }
    values |= {f"glance-{name}": str(count) for name, count in counts.items()}
    for name in by_id(results):
        values[f"{name}-glance"] = ", ".join(_spoken(verdict_counts(results, name)).values())
    for row in results["claims"]:
        key = glue_key(row["id"], row["row"])
        effect = row.get("effect")
        quoted = {
            "": value_text(row) or LABELS["not_run"],
            "-paper": value_text(row, "paper_value"),
            "-ci": interval_text(row) if row["measured"] is not None else "",
            "-effect": "" if effect is None else format_value(effect, row["unit"], row["paper_value"]),
            "-verdict": verdict_text(row),
        }
        for suffix, text in quoted.items():
            if key + suffix in values:
                raise ValueError(f"two rows of {results['chapter']} share the glue name {key + suffix!r}")
            values[key + suffix] = text
    return values


def quoted(text: str, results: Results) -> dict[str, str]:
    """What the glue roles and directives of a text ask for. Raises: ValueError that names what no row has."""
    values = glue_values(results)
    asked = re.findall(r"\{glue:text\}`([^`]+)`", text)
    for key in asked:
        if key not in values:
            raise ValueError(f"the text quotes {key!r}, which {results['chapter']} does not have")
    return {key: values[key] for key in asked}
