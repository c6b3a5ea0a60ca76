"""The published numbers: each follows from the outcomes that are published beside it."""

import copy
import subprocess
from typing import Any

import jupytext
import nbformat
import numpy as np
import pytest

from robustutils import provenance
from robustutils.book import checks, outcomes_files, pipeline, results, scoreboard
from robustutils.book.claims import Claims
from robustutils.book.outcomes_files import RowOutcomes
from robustutils.outcomes import Measurement, Outcomes
from robustutils.papers.disentangling.attempts import Conditional

BOOK = provenance.repository() / "book"
PAPERS = [chapter for chapter in pipeline.checkable() if pipeline.has_claims(chapter)]
EFFECT = ("effect", "effect_ci95", "effect_per_seed")
each_paper = pytest.mark.parametrize("chapter", PAPERS)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[tuple[str, str], RowOutcomes]]:
    """The published outcomes of each chapter, by row."""
    pieces = {chapter: outcomes_files.read(pipeline.outcomes_path(chapter, BOOK)) for chapter in PAPERS}
    return {
        name: {key: row for piece in each for key, row in piece.rows.items()} for name, each in pieces.items()
    }


def measured(chapter: str) -> list[dict[str, Any]]:
    """The rows of a results file that were measured."""
    rows = results.read(BOOK / "results" / f"{chapter}.json")["claims"]
    return [row for row in rows if row["measured"] is not None]


def rebuilt(found: RowOutcomes, *, percent: bool) -> list[Measurement]:
    """What the outcomes of a row can be the measurement of; nothing where they are losses, or too many to keep."""

    def conditional(values: str, counts: str) -> Conditional:
        parts = found.arrays[values].astype(float), found.arrays[counts].astype(bool)
        return Conditional(*parts, found.seeds, percent=percent)

    each = {name: Outcomes(array, found.seeds, found.images) for name, array in found.arrays.items()}
    match sorted(each):
        case ["outcomes"] | ["values"]:
            return [one.measured() for one in each.values()]
        case ["outcomes", "reference"]:
            return [each["outcomes"].measured(each["reference"]), each["outcomes"] - each["reference"]]
        case ["counts", "values"]:
            return [conditional("values", "counts").measured()]
        case ["counts", "other counts", "other values", "values"]:
            return [conditional("values", "counts") - conditional("other values", "other counts")]
        case [] | ["single-step loss", "strong loss"]:
            return []
    raise AssertionError(f"outcomes of a new kind, {sorted(each)}: say here what follows from them")


def same(one: Any, other: Any, unit: str, *, half: bool = False) -> bool:
    """Whether two numbers, or sequences of them, are equal when rounded as in a results file.

    With ``half`` they may differ by the rounding of numbers that were kept in half precision.
    """
    if one is None or other is None:
        return one is other
    least = 0.0051 if unit in results.PERCENT else 0.000051
    kept = {"rtol": 3e-3, "atol": max(1e-3, least)} if half else {"rtol": 0, "atol": least}
    return np.shape(one) == np.shape(other) and np.allclose(np.array(one), np.array(other), **kept)


@each_paper
def test_every_published_number_is_that_of_its_outcomes(chapter, outcomes):
    wrong = []
    for row in measured(chapter):
        name, found = f"{row['id']} | {row['row']}", outcomes[chapter].get((row["id"], row["row"]))
        if found is None:
            wrong.append(f"{name} has no outcomes")
        elif (list(found.seeds), found.n) != (row["seeds"], row["n"]):
            wrong.append(
                f"{name} has n = {row['n']}, seeds {row['seeds']}; its outcomes {found.n}, {found.seeds}"
            )
        elif not same(found.value, row["measured"], row["unit"]):
            wrong.append(f"{name} is {row['measured']}, in the outcomes {found.value}")
    assert wrong == []


@each_paper
def test_every_published_number_and_interval_can_be_computed_again(chapter, outcomes):
    wrong = []
    for row in measured(chapter):
        unit, found = row["unit"], outcomes[chapter][row["id"], row["row"]]
        half = any(array.dtype != bool for array in found.arrays.values())
        again = [
            {"measured": one.value}
            | {name: getattr(one, name) for name in ("ci95", "per_seed")}
            | {name: getattr(one, name) for name in EFFECT if one.effect is not None}
            for one in rebuilt(found, percent=unit in results.PERCENT)
        ]
        if again and not any(
            all(same(value, row[name], unit, half=half) for name, value in one.items()) for one in again
        ):
            wrong.append(
                f"{row['id']} | {row['row']} is {row['measured']} {row['ci95']}, computed again {again[0]}"
            )
    assert wrong == []


def test_most_published_rows_can_be_computed_again(outcomes):
    kept = [bool(rebuilt(found, percent=True)) for rows in outcomes.values() for found in rows.values()]
    assert sum(kept) > 0.8 * len(kept), "outcomes too large to keep must stay the exception"


# ---- the reports of checks ----


@pytest.mark.parametrize("chapter", pipeline.checkable())
def test_a_report_is_of_what_is_published_and_nothing_disagrees(chapter):
    path = pipeline.outcomes_path(chapter, BOOK)
    report, pieces = checks.read(checks.path(chapter, BOOK)), outcomes_files.read(path)
    assert report is not None, f"make check CHAPTER={chapter}"
    assert report.disagreeing == []
    assert f"results/{path.name}" in report.evidence, (
        f"the report says nothing of the files it checked: make check CHAPTER={chapter} renews it"
    )
    assert report.changed(BOOK) == [], f"changed since the check: make check CHAPTER={chapter}"
    small = [(name, tensors) for piece in pieces for name, tensors in piece.small.items()]
    published = {(name, part) for name, tensors in small for part in tensors}
    published |= {name for piece in pieces for name in piece.rows}
    assert [row for row in report.rows if (row.id, row.row) not in published] == [], (
        "rows that nothing published has"
    )
    certificates = [piece.certificates[name] for piece in pieces for name in piece.small]
    assert {*report.measured} == {str(certificate["commit"]) for certificate in certificates}


@pytest.mark.parametrize("chapter", pipeline.checkable())
def test_a_report_names_a_commit_of_this_repository(chapter):
    report = checks.read(checks.path(chapter, BOOK))
    assert report is not None
    commits = [commit.removesuffix("+") for commit in (report.commit, *report.measured)]
    git = ["git", "-C", str(provenance.repository())]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    if shallow.stdout.strip() != "false":
        pytest.skip("no git checkout with its whole history")
    unknown = [
        name
        for name in commits
        if subprocess.run([*git, "cat-file", "-e", f"{name}^{{commit}}"], capture_output=True).returncode
    ]
    assert unknown == []


# ---- the pages ----


@pytest.mark.parametrize("chapter", pipeline.chapters())
def test_a_published_page_has_the_text_of_its_chapter(chapter):
    page = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    text = jupytext.read(provenance.repository() / "chapters" / f"{chapter}.py")
    cells = [cell for cell in page.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert [cell.source for cell in cells] == [cell.source for cell in text.cells]


@each_paper
def test_a_published_page_is_as_it_was_published(chapter):
    page = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4)
    assert results.read(BOOK / "results" / f"{chapter}.json")["page_sha256"] == scoreboard.page_hash(page)
    again = copy.deepcopy(page)
    scoreboard.renew(again, Claims.of(chapter), results.published(chapter, BOOK / "results"))
    assert again == page, "what is made of the results was changed by hand"
