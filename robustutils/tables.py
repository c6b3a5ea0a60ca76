"""HTML tables of numbers and texts, as Jupyter, the rendered book and a terminal show them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

CLAIMS = "robustutils-claims"
"""Key of an output's metadata that says what it shows: the ids of claims, or none of them for a chapter's front."""


@dataclass(frozen=True)
class Markup:
    """A cell that is HTML already, and what it reads as text."""

    html: str
    text: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A table that Jupyter, the rendered book and a terminal can show; the first cell heads its row.

    A row of a single cell is a heading over the rows below it. ``ids`` are the claims that a page makes it anew from, and
    ``marks`` the anchors of its rows.
    """

    label: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | Markup, ...], ...]
    ids: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = ""
        for row, mark in zip(self.rows, self.marks or ("",) * len(self.rows), strict=True):
            first, *others = map(_html, row)
            anchor = f' id="{mark}"' if mark else ""
            if len(row) == len(self.header):
                cells = "".join(f"<td>{cell}</td>" for cell in others)
                body += f'\n<tr{anchor}><th scope="row">{first}</th>{cells}</tr>'
            else:
                body += (
                    f'\n<tr class="over"><th scope="colgroup" colspan="{len(self.header)}">{first}</th></tr>'
                )
        label, claims = escape(self.label), " data-claims" if self.ids else ""
        frame = f'class="table-scroll"{claims} role="region" tabindex="0" aria-label="{label}"'
        return f"<div {frame}><table><thead><tr>{head}</tr></thead><tbody>{body}\n</tbody></table></div>"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {CLAIMS: list(self.ids)} if self.ids else {}

    def _repr_markdown_(self) -> str:
        lines = [self.header, ("---",) * len(self.header), *(tuple(map(str, row)) for row in self.rows)]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in escaped)

    def __str__(self) -> str:
        lines = [self.header, *(tuple(map(str, row)) for row in self.rows if len(row) == len(self.header))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        return "\n".join(line.rstrip() for line in (padded[0], "-" * len(padded[0].rstrip()), *padded[1:]))


def _html(cell: str | Markup) -> str:
    return cell.html if isinstance(cell, Markup) else escape(cell)


def plain(header: str | Sequence[str], rows: Iterable[Sequence[Any]], label: str = "") -> Table:
    """A table of numbers and texts that no claim is about; floats get one decimal. A header may be one text with commas."""
    header = header.split(", ") if isinstance(header, str) else header
    shown = (tuple(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) for row in rows)
    return Table(label or header[0], tuple(header), tuple(shown))
