"""The lines above a chapter's title: which run a page shows, and whether later code agrees with it."""

import importlib.util
import json
from dataclasses import replace
from types import ModuleType

import pytest

from robustutils import provenance
from robustutils.book.checks import Agreement, Report

BOOK = provenance.repository() / "book"
ROWS = [Agreement("EAT-T7", "D | FGSM", 500, ""), Agreement("EAT-T6", "D | ratio", 500, "")]
BROKEN = Agreement("EAT-T6", "D_adv | ratio", 500, "strong loss moved by 9.0% in the median, 1% may")


@pytest.fixture(scope="module")
def edition() -> ModuleType:
    path = provenance.repository() / "book" / "_extensions" / "edition.py"
    spec = importlib.util.spec_from_file_location("edition", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(rows: int) -> dict:
    claims = [{"id": "T", "row": str(k), "verdict": "reproduced"} for k in range(rows)]
    return {"claims": [*claims, {"id": "T", "row": "x", "verdict": "not_run"}]}


def report(*rows: Agreement) -> Report:
    made = Report.of("ensemble_adversarial_training", BOOK, [], rows)
    return replace(made, measured=("abcdef012345",), commit="0123456789ab", date="2026-01-31")


def test_a_page_whose_code_agrees_says_so_with_commit_date_and_rows(edition):
    kind, brief, said = edition.check_label("ensemble_adversarial_training", report(*ROWS), record(2), BOOK)
    assert (kind, brief) == ("checked", "checked at 0123456: 2 of 2 rows come out again as published")
    assert "Checked at 0123456 on 2026-01-31: 2 of 2 rows come out again as published." in said
    assert "our outcomes measured at abcdef0; whether these agree with the paper, the verdicts say." in said


def test_rows_that_no_check_reached_are_counted(edition):
    _, brief, said = edition.check_label("ensemble_adversarial_training", report(*ROWS), record(5), BOOK)
    assert brief.endswith("2 of 2 rows come out again as published, 3 not checked")
    assert "The 3 rows have no published outcomes or networks yet." in said


def test_a_disagreement_is_red_and_names_the_rows(edition):
    kind, brief, said = edition.check_label(
        "ensemble_adversarial_training", report(*ROWS, BROKEN), record(3), BOOK
    )
    assert (kind, brief) == ("disagrees", "1 rows disagree")
    assert "2 of 3 rows come out again as published" in said
    assert "EAT-T6 | D_adv | ratio: strong loss moved by 9.0% in the median" in said


def test_code_that_has_moved_is_not_yet_checked_since(edition):
    moved = replace(report(*ROWS), source_hash="0" * 64)
    kind, brief, said = edition.check_label("ensemble_adversarial_training", moved, record(2), BOOK)
    assert (kind, brief) == ("unchecked", "not yet checked since the code moved")
    assert "The code has moved: not yet checked since." in said


@pytest.mark.parametrize("damage", ["outcomes", "numbers", "network", "deleted"])
def test_a_label_falls_when_what_was_checked_changes(edition, tmp_path, damage):
    chapter, weights = "blind_spot", tmp_path / "weights" / "net.safetensors"
    for folder in ("results", "weights"):
        (tmp_path / folder).mkdir()
    outcomes, numbers = (
        tmp_path / "results" / f"{chapter}{end}" for end in (".outcomes.safetensors", ".json")
    )
    outcomes.write_bytes(b"verdicts")
    weights.write_bytes(b"weights")
    row = {
        "id": "T",
        "row": "a",
        "measured": 1.0,
        "ci95": None,
        "per_seed": None,
        "n": 5,
        "seeds": [0],
        "verdict": "x",
    }
    numbers.write_text(json.dumps({"claims": [row]}))
    made = Report.of(chapter, tmp_path, [], ROWS, [weights])
    numbers.write_text(json.dumps({"claims": [row | {"verdict": "y"}]}))
    assert edition.check_label(chapter, made, record(2), tmp_path)[0] == "checked", (
        "no criterion moves a number"
    )
    file = {"outcomes": outcomes, "numbers": numbers, "network": weights, "deleted": outcomes}[damage]
    if damage == "deleted":
        file.unlink()
    elif damage == "numbers":
        file.write_text(json.dumps({"claims": [row | {"measured": 2.0}]}))
    else:
        file.write_bytes(file.read_bytes() + b"\0")
    kind, brief, said = edition.check_label(chapter, made, record(2), tmp_path)
    assert (kind, brief) == ("unchecked", "not yet checked since what is published changed")
    assert f"Changed since, and not yet checked: {file.relative_to(tmp_path)}." in said


def test_what_a_report_says_is_text(edition):
    odd = replace(report(*ROWS), commit="<b>", date="<i>")
    _, brief, said = edition.check_label("ensemble_adversarial_training", odd, record(2), BOOK)
    assert "<" not in brief + said


def test_a_page_without_published_outcomes_says_that_it_is_not_checked(edition):
    assert "Not checked" in edition.check_label("blind_spot", None, record(2), BOOK)[2]
    assert edition.check_label("blind_spot", None, None, BOOK) == ("", "", ""), (
        "a page without claims has nothing to check"
    )


@pytest.mark.parametrize(("commit", "said"), [
    ("0123456789ab", "0123456"), ("0123456789ab+", "0123456+"), ("", "an unknown commit"),
])  # fmt: skip
def test_commits_are_short_and_say_whether_the_tree_had_changes(edition, commit, said):
    assert edition.short(commit) == said
