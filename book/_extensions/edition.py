"""Say of every chapter page which run it shows, and switch source and launch buttons with the repository URL.

A chapter page ``book/NAME`` is labelled at build time from ``book/this_run/NAME.json`` (a run just made, not
evidence), ``book/results/NAME.json`` (the published edition: where its numbers were measured) and
``book/results/NAME.check.json`` (whether later code agrees with them).
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from robustutils import checks, evidence
from robustutils.provenance import repository, source_hash

SOURCES = repository() / "chapters"


def set_buttons(app: Sphinx, config: Config) -> None:
    """Source and launch buttons are on when ``repository.url`` is set and off while it is empty."""
    options = config.html_theme_options
    url = options.get("repository_url", "")
    for button in ("use_repository_button", "use_edit_page_button", "use_issues_button"):
        options[button] = bool(url)
    if not url:
        options["launch_buttons"] = {}
    elif "github.com" not in url:
        options["launch_buttons"].pop("colab_url", None)  # Colab opens notebooks from there only


def chapter_pages(app: Sphinx, *_: object) -> list[str]:
    """Pages of chapters, read anew at every build: their labels depend on more than their own file."""
    pages = {f"book/{path.stem}" for path in SOURCES.glob("*.py")}
    return sorted(pages & app.env.found_docs)


def label(record: dict[str, Any], published: bool) -> str:
    """One results file as a line of HTML."""
    profile, date, seconds = (record[key] for key in ("profile", "date", "seconds"))
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    if not published:
        run = f"Executed at the {profile} profile on {date} in {took}"
        meaning = ": shows that everything works; not evidence" if profile == "quick" else ""
        return line("this-run", f"{run}{meaning}. Published numbers stand beside.")
    return line(
        "published",
        f"Published edition: measured at {short(record['git_commit'])} on {date}, profile {profile}; "
        f"{took}, cached work not counted.",
    )


def short(commit: str) -> str:
    """Seven digits of a commit, and whether the tree had changes."""
    return commit[:7] + "+" * commit.endswith("+") or "an unknown commit"


def check_label(chapter: str, report: checks.Report | None, record: dict[str, Any] | None) -> str:
    """Whether later code agrees with the published outcomes, as a line of HTML."""
    rows = len(evidence.rows_measured(record)) if record else 0
    if report is None:
        return line("unchecked", "Not checked: its outcomes are not published yet.") if rows else ""
    without = rows - len(report.rows)
    measured = ", ".join(short(commit) for commit in report.measured)
    text = f"Checked at {short(report.commit)} on {report.date}: {report.summary()} with outcomes measured at {measured}"
    if without > 0:
        text += f"; {without} others have no published outcomes or networks yet"
    if report.disagreeing:
        names = "; ".join(f"{row.id} | {row.row}: {row.problem}" for row in report.disagreeing)
        return line("disagrees", escape(f"{text}. Disagreeing: {names}."))
    if report.source_hash != source_hash(SOURCES / f"{chapter}.py"):
        return line("unchecked", f"{text}. The code has moved: not yet checked since.")
    return line("checked", f"{text}.")


def line(kind: str, text: str) -> str:
    """Write a paragraph in the style ``edition-KIND`` of the style sheet."""
    return f'<p class="edition edition-{kind}">{text}</p>\n'


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the labels above a chapter's title and let its buttons open the source, not the executed copy."""
    if pagename not in chapter_pages(app):
        return
    name = pagename.removeprefix("book/")
    labels, record = "", None
    for folder, published in (("this_run", False), ("results", True)):
        path = Path(app.srcdir, "book", folder, f"{name}.json")
        record = json.loads(path.read_text("utf-8")) if path.is_file() else None
        labels += label(record, published) if record else ""
    labels += check_label(name, checks.read(checks.path(name, Path(app.srcdir, "book"))), record)
    context["body"] = labels + context["body"]
    for button in (button for group in context["header_buttons"] for button in group.get("buttons", [])):
        url = button.get("url", "")
        if url.startswith("https://"):
            suffix = ".py" if "/edit/" in url else ".ipynb"
            button["url"] = url.replace(f"{pagename}.ipynb", f"chapters/{name}{suffix}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the handlers to Sphinx."""
    app.connect("config-inited", set_buttons)
    app.connect("env-get-outdated", chapter_pages)
    app.connect("html-page-context", finish_page, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
