"""Say of every chapter page which run it shows, and switch source and launch buttons with the repository URL.

A chapter page ``book/NAME`` is labelled at build time from ``book/this_run/NAME.json`` (a run just made, not
evidence) and ``book/results/NAME.json`` (the published edition, *stale* once the code has moved on).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

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
    """One results file as a line of HTML, with a second line when the published edition is stale."""
    chapter, profile, date, seconds = (record[key] for key in ("chapter", "profile", "date", "seconds"))
    took = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    if not published:
        run = f"Executed at the {profile} profile on {date} in {took}"
        meaning = ": shows that everything works; not evidence" if profile == "quick" else ""
        return line("this-run", f"{run}{meaning}. Published numbers stand beside.")
    commit = record["git_commit"][:7] + "+" * record["git_commit"].endswith("+") or "unknown"
    html = line(
        "published",
        f"Published edition: profile {profile}, {date}, commit {commit}; {took}, cached work not counted.",
    )
    if record["source_hash"] != source_hash(SOURCES / f"{chapter}.py"):
        renew = f"<code>make publish CHAPTER={chapter}</code> renews it."
        html += line("stale", f"Stale: the code has changed since this page was published; {renew}")
    return html


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
    labels = ""
    for folder, published in (("this_run", False), ("results", True)):
        path = Path(app.srcdir, "book", folder, f"{name}.json")
        if path.is_file():
            labels += label(json.loads(path.read_text("utf-8")), published)
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
