"""Say of every chapter page which run it shows, renew its front and its tables of claims, and switch source and launch
buttons with the repository URL.

A chapter page ``book/NAME`` is labelled at build time from ``book/this_run/NAME.json`` (a run just made, not
evidence), ``book/results/NAME.json`` (the published edition: where its numbers were measured) and
``book/results/NAME.check.json`` (whether later code agrees with them). Whatever a page shows of results and claims is made
anew from these files and from ``chapters/NAME.toml``, so that it never falls behind them.
"""

from __future__ import annotations

import ast
import json
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from robustutils.book import checks, results, scoreboard
from robustutils.book.claims import Claims
from robustutils.provenance import files_of, repository, source_hash

SOURCES = repository() / "chapters"
PACKAGE = repository() / "robustutils"


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


def label(record: dict[str, Any], published: bool) -> tuple[str, str]:
    """One results file in short and in full."""
    profile, date = (escape(record[key]) for key in ("profile", "date"))
    seconds = record["seconds"]
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    if not published:
        run = f"Executed at the {profile} profile on {date} in {took}"
        meaning = ": shows that everything works; not evidence" if profile == "quick" else ""
        return f"this run: {profile}, {date}", f"{run}{meaning}. Published numbers stand beside."
    return (
        f"Published edition of {date}",
        f"Published edition: made at {escape(short(record['git_commit']))} on {date}, profile {profile}; "
        f"{took}, cached work not counted.",
    )


def short(commit: str) -> str:
    """Seven digits of a commit, and whether the tree had changes."""
    return commit[:7] + "+" * commit.endswith("+") or "an unknown commit"


def check_label(
    chapter: str, report: checks.Report | None, record: dict[str, Any] | None, edition: Path
) -> tuple[str, str, str]:
    """Whether later code agrees with the published outcomes: the kind of label, in short and in full.

    It falls where the code has moved, and where a published file is no longer the one that was checked.
    """
    rows = len(results.rows_measured(record)) if record else 0
    if report is None:
        unpublished = "Not checked: its outcomes are not published yet."
        return ("unchecked", "not checked", unpublished) if rows else ("", "", "")
    unchecked = max(rows - len(report.rows), 0)
    measured = ", ".join(short(commit) for commit in report.measured)
    commit = escape(short(report.commit))
    text = escape(
        f"Checked at {short(report.commit)} on {report.date}: {report.summary(unchecked)}. The code of then was compared "
        f"with our outcomes measured at {measured}; whether these agree with the paper, the verdicts say"
    )
    if unchecked:
        text += f". The {unchecked} rows have no published outcomes or networks yet"
    if report.disagreeing:
        names = "; ".join(f"{row.id} | {row.row}: {row.problem}" for row in report.disagreeing)
        return (
            "disagrees",
            f"{len(report.disagreeing)} rows disagree",
            f"{text}. Disagreeing: {escape(names)}.",
        )
    if changed := report.changed(edition):
        return (
            "unchecked",
            "not yet checked since what is published changed",
            f"{text}. Changed since, and not yet checked: {escape(', '.join(changed))}.",
        )
    if report.source_hash != source_hash(SOURCES / f"{chapter}.py"):
        return (
            "unchecked",
            "not yet checked since the code moved",
            f"{text}. The code has moved: not yet checked since.",
        )
    return "checked", f"checked at {commit}: {report.summary(unchecked)}", f"{text}."


def records(app: Sphinx, name: str) -> list[results.Results | None]:
    """The published results of a chapter and those of a run just made, as the claims judge them today."""
    return [results.published(name, Path(app.srcdir, "book", folder)) for folder in ("results", "this_run")]


def renew_page(app: Sphinx, pagename: str, source: list[str]) -> None:
    """Make anew what a chapter page shows of results."""
    if pagename in chapter_pages(app):
        claims, notebook = Claims.of(Path(pagename).name), json.loads(source[0])
        scoreboard.renew(notebook, claims, *records(app, claims.chapter))
        source[0] = json.dumps(notebook)


def edition_label(app: Sphinx, name: str) -> str:
    """The label of a chapter page, one line whose details open."""
    briefs, details = [], []
    published, this_run = records(app, name)
    for record in (published, this_run):
        if record:
            brief, text = label(record, record is published)
            briefs.append(brief)
            details.append(text)
    edition = Path(app.srcdir, "book")
    report = checks.read(checks.path(name, edition))
    kind, brief, text = check_label(name, report, published, edition)
    if kind:
        briefs.append(brief)
        details.append(text)
    opened = "".join(f"<p>{text}</p>" for text in details)
    summary = " · ".join(briefs)
    line = f'<details class="edition edition-{kind or "published"}"><summary>{summary}</summary>{opened}</details>\n'
    return line if briefs else ""


def finish_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Label a chapter page, and let its buttons open the source, not the executed copy."""
    if pagename not in chapter_pages(app):
        return
    name = pagename.removeprefix("book/")
    context["body"] = edition_label(app, name) + context["body"]
    for button in (button for group in context["header_buttons"] for button in group.get("buttons", [])):
        url = button.get("url", "")
        if url.startswith("https://"):
            suffix = ".py" if "/edit/" in url else ".ipynb"
            button["url"] = url.replace(f"{pagename}.ipynb", f"chapters/{name}{suffix}")


def modules_of(folder: str) -> list[str]:
    """The public modules of a folder of the package, ``""`` for its top, by their full names."""
    here = PACKAGE / folder
    found = [path.stem for path in here.glob("[!_]*.py")]
    if not folder:
        found += ["data"]
    return [".".join(filter(None, ("robustutils", *Path(folder).parts, name))) for name in sorted(found)]


def list_modules(app: Sphinx, pagename: str, source: list[str]) -> None:
    """Fill the API pages from the folders of the package: what a module is for is the first line of its docstring."""

    def entries(found: re.Match[str]) -> str:
        return "\n\n".join(
            f"## {name.rpartition('.')[2]}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```"
            for name in modules_of(found[1])
        )

    def lines(found: re.Match[str]) -> str:
        rows = ""
        for name in modules_of(found[1]):
            (path,) = files_of(name, PACKAGE)
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            rows += f"- {{mod}}`~{name}`: {said.splitlines()[0]}\n"
        return rows

    text = re.sub(r"<!-- modules: ?(\S*) -->", entries, source[0])
    source[0] = re.sub(r"<!-- list: ?(\S*) -->", lines, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the handlers to Sphinx."""
    app.connect("config-inited", set_buttons)
    app.connect("env-get-outdated", chapter_pages)
    app.connect("source-read", list_modules)
    app.connect("source-read", renew_page)
    app.connect("html-page-context", finish_page, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
