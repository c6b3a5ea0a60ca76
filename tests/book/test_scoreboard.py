"""Results files as tables, pages, terminal text and glue."""

import re
from dataclasses import replace

import pytest
import torch
from declared import declared, load

from robustutils import tables
from robustutils.book.claim_tables import (
    anchor,
    claims_table,
    criteria_table,
    format_value,
    interval_text,
    reason,
)
from robustutils.book.results import MIME
from robustutils.book.runs import Run
from robustutils.book.scoreboard import (
    front,
    glue_key,
    glue_values,
    mosaic,
    quoted,
    readme_table,
    renew,
    replace_between_markers,
    scoreboard_markdown,
    terminal_scoreboard,
    verdict_counts,
)
from robustutils.book.study import Study
from robustutils.outcomes import Measurement
from robustutils.tables import plain

CLAIMS = declared("""
[picture]
ids = ["EAT-T7"]
xlabel = "error (%)"
caption = "Ours & theirs."
[picture.lines]
"B" = { architecture = "B" }
[picture.series]
"FGSM" = { quantity = "FGSM" }

[[claims]]
id = "EAT-T7"
statement = "White-box error & more."
unit = "%"
criterion = { kind = "within", points = 5 }
line = "{architecture}"
keys = ["architecture"]
columns = ["FGSM", "R+FGSM"]
cells = [["B", 40.0, 17.25], ["B*", 50.0, 20.0]]
""")


def _claims(folder, chapter="eat"):
    return load(folder, CLAIMS, chapter)


def _results(folder, profile="standard", value=42.0, chapter="eat", fidelity=None):
    claims = _claims(folder, chapter)
    study = Study(claims, Run(chapter, profile, {}, torch.device("cpu")))
    if fidelity:
        departed = (fidelity, "epochs 2, not 6")
        study.claims = replace(study.claims)
        object.__setattr__(study.claims, "fidelity", lambda row, parameters, n, seeds: departed)
    spread = {"per_seed": [value - 1, value, value + 1]}
    study.record("EAT-T7", "B | FGSM", Measurement(value, (value - 2, value + 2), 900, [0, 1, 2], **spread))
    study.record("EAT-T7", "B | R+FGSM", Measurement(30.0, (28.0, 32.0), 9000, [0]))
    study.record("EAT-L7", "k = 4", Measurement((0.5, 0.2512), None, 2, []))
    return study.so_far() | {"date": "2026-01-31T10:00:00"}


@pytest.mark.parametrize(("value", "unit", "like", "expected"), [
    (3.7, "%", None, "3.7 %"),
    (3.71, "%", 17, "3.7 %"),
    (3.714, "%", 93.65, "3.71 %"),
    (-0.04, "points", None, "0.0 points"),
    (0.13161, "", 0.13, "0.132"),
    (0.13, "", 0.4233, "0.1300"),
    (187.3, "epochs", 187, "187 epochs"),
    (0.0, "", None, "0"),
    (1e-7, "", None, "0.0000"),
    (1e-7, "", 1e-7, "0.0000"),
    ((0.5, 0.25), "", None, "0.500, 0.250"),
    ([1.25, 3.0], "%", [1.0, 2.55], "1.25, 3.00 %"),
])  # fmt: skip
def test_values_have_as_many_decimals_as_the_paper_and_a_stated_least(value, unit, like, expected):
    assert format_value(value, unit, like) == expected


def test_the_interval_says_what_it_is_over(tmp_path):
    rows = {row["row"]: row for row in _results(tmp_path)["claims"]}
    assert interval_text(rows["B | FGSM"]) == "[39.5, 44.5] (3 seeds)"
    assert interval_text(rows["B | R+FGSM"]) == "[28.00, 32.00] (n = 9,000)"
    assert interval_text(rows["k = 4"]) == ""


def test_a_table_puts_paper_ours_interval_and_verdict_side_by_side(tmp_path):
    table = claims_table(_results(tmp_path), None, ["EAT-T7", "EAT-T1"])
    assert table.header == ("claim", "paper", "ours (standard, 2026-01-31)", "95% CI", "verdict")
    # rows that were not measured are left out
    assert [tuple(map(str, row)) for row in table.rows] == [
        ("Single steps <b> (Table 7)",),
        ("B | FGSM", "40.0 %", "42.0 %", "[39.5, 44.5] (3 seeds)", "reproduced"),
        ("B | R+FGSM", "17.25 %", "30.00 %", "[28.00, 32.00] (n = 9,000)", "disagrees"),
    ]


def test_a_run_that_is_no_evidence_has_a_column_of_its_own(tmp_path):
    table = claims_table(_results(tmp_path), _results(tmp_path, "quick", 70.0), ["EAT-T7"])
    assert table.header[2:] == (
        "ours (standard, 2026-01-31)", "95% CI", "verdict", "this run (quick, not evidence)",
    )  # fmt: skip
    assert [str(cell) for cell in table.rows[0]] == [
        "B | FGSM", "40.0 %", "42.0 %", "[39.5, 44.5] (3 seeds)", "reproduced", "70.0 %",
    ]  # fmt: skip
    alone = claims_table(None, _results(tmp_path, "quick", 70.0), ["EAT-L7"])
    assert str(alone.rows[0][-1]) == "not evidence"


def test_one_seed_is_said_to_be_decided_by_the_test_points(tmp_path):
    one, several = (
        next(row for row in _results(tmp_path)["claims"] if row["row"] == name)
        for name in ("B | R+FGSM", "B | FGSM")
    )
    assert "One seed: decided by the interval over test points alone." in reason(one)
    assert "One seed" not in reason(several)


def test_checks_stand_below_a_line_of_their_own_and_are_not_counted_as_claims(tmp_path):
    results = _results(tmp_path)
    results["claims"][1] |= {"verdict": "not_scored", "size_holds": False}
    table = claims_table(results, None, ["EAT-T7"], unmeasured=True)
    assert [len(row) for row in table.rows] == [5, 5, 5, 1, 5]
    assert str(table.rows[3][0]) == "Checks, not scored"
    assert [str(cell) for cell in table.rows[4]][::4] == ["B | R+FGSM", "check does not hold"]
    values = glue_values(results)
    assert (values["glance-measured"], values["EAT-T7-glance"]) == (
        "2", "1 reproduced, 1 check, not scored, 2 not run",
    )  # fmt: skip


def test_unmeasured_rows_are_shown_where_asked_for_with_their_reason(tmp_path):
    table = claims_table(_results(tmp_path), None, ["EAT-T1"], unmeasured=True, anchors=True)
    (row,) = table.rows
    assert [str(cell) for cell in row] == ["v3", "", "", "", "not run"]
    assert "ImageNet" in row[-1].html
    assert table.marks == ("EAT-T1-v3",)
    assert 'id="EAT-T1-v3"' in table._repr_html_()


@pytest.mark.parametrize(("fidelity", "shown"), [
    ("exact", "reproduced"),
    ("code_variant", "reproduced, code variant"),
    ("substitution", "agrees, stand-in"),
    ("reduced", "agrees, reduced"),
    ("fewer", "agrees, fewer seeds or images"),
])  # fmt: skip
def test_a_verdict_says_agreement_and_fidelity_and_its_reason_opens(tmp_path, fidelity, shown):
    cell = claims_table(_results(tmp_path, fidelity=fidelity), None, ["EAT-T7"]).rows[0][-1]
    assert str(cell) == shown
    assert cell.html.startswith("<details><summary>")
    assert "Criterion: within 5 of the paper." in cell.html
    assert "Direction holds, size holds. Epochs 2, not 6." in cell.html


def test_a_table_refuses_what_there_is_not_and_says_where_nothing_is(tmp_path):
    with pytest.raises(ValueError, match=r"eat.*'EAT-T8'.*EAT-T7, EAT-L7, EAT-T1"):
        claims_table(_results(tmp_path), None, ["EAT-T8"])
    assert "Nothing has been published yet" in str(claims_table(None, None, ["EAT-T7"]))


def test_criteria_are_shown_with_the_papers_numbers(tmp_path):
    table = criteria_table(_claims(tmp_path), ["EAT-T7", "EAT-L7"])
    assert ("B | FGSM", "40", "within 5 of the paper") in table.rows
    assert ("k = 4", "0.5, 0.25", "equal to the paper within 0.01") in table.rows


def test_html_escapes_scrolls_and_names_every_verdict(tmp_path):
    results = _results(tmp_path)
    results["claims"][0]["row"] = "B <script> | FGSM"
    html = claims_table(results, None, ["EAT-T7", "EAT-L7"])._repr_html_()
    assert "<script>" not in html
    assert "B &lt;script&gt; | FGSM" in html
    assert "Single steps &lt;b&gt;" in html
    assert '<div class="table-scroll" data-claims role' in html
    assert '<span class="verdict-disagrees">disagrees</span>' in html
    assert html.count('<th scope="col">') == 5
    assert html.count('<th scope="row">') == 3


def test_markdown_and_text_have_one_line_a_row(tmp_path):
    table = claims_table(_results(tmp_path), None, ["EAT-T7"])
    markdown = table._repr_markdown_().splitlines()
    assert len(markdown) == 2 + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in markdown)  # bars inside cells are escaped
    text = str(table).splitlines()
    assert len(text) == 2 + 2
    assert {line.index("%") for line in text[2:] if "40.0" in line} == {text[2].index("%")}


def test_a_plain_table_takes_a_header_with_commas_and_rounds():
    table = plain("model, error (%)", [("A", 12.345), ("B", "")])
    assert table.header == ("model", "error (%)")
    assert table.rows == (("A", "12.3"), ("B", ""))
    assert "data-claims" not in table._repr_html_()


def test_verdicts_are_counted(tmp_path):
    results = _results(tmp_path)
    everything = dict.fromkeys(("undetermined", "direction", "agrees", "not_scored", "not_evidence"), 0)
    everything = {"reproduced": 2, "disagrees": 1, "not_run": 3} | everything
    assert verdict_counts(results) == everything
    assert sum(everything.values()) == len(results["claims"])
    assert verdict_counts(results, "EAT-T1") == dict.fromkeys(everything, 0) | {"not_run": 1}


def test_the_front_shows_one_picture_and_a_line_for_each_claim(tmp_path):
    html = front(_claims(tmp_path), _results(tmp_path))
    assert html.count("<img ") == 1
    assert 'src="data:image/png;base64,' in html
    assert "<figcaption>Ours &amp; theirs.</figcaption>" in html
    lines = re.findall(r"<summary><span>(.*?)</span>", html)
    assert lines == ["Single steps &lt;b&gt; (Table 7)", "The bound (Lemma 7)", "1 more claims: ImageNet"]
    assert "White-box error &amp; more." in html, "the statement is folded behind its line"
    assert '<span class="verdict-disagrees">1 disagrees</span>' in html
    assert html.count("<div") == 1
    assert "Nothing has been published yet" in front(_claims(tmp_path), None)


def test_a_page_is_renewed_from_results(tmp_path):
    claims, new = _claims(tmp_path), _results(tmp_path, value=38.0)
    quoted = {"scrapbook": {"name": "EAT-T7-B-FGSM"}}
    outputs = [
        {"data": {"text/html": "front"}, "metadata": {tables.CLAIMS: []}},
        {"data": {"text/html": "table"}, "metadata": {tables.CLAIMS: ["EAT-T7"]}},
        {"data": {"application/papermill.record/text/plain": "'42.0 %'"}, "metadata": quoted},
        {"data": {MIME: {}}, "metadata": {}},
        {"data": {"text/html": "another table"}, "metadata": {}},
    ]
    page = {"cells": [{"cell_type": "markdown"}, {"outputs": outputs}]}
    renew(page, claims, new)
    front, table, number, carried, other = (output["data"] for output in outputs)
    assert "<img " in front["text/html"]
    assert "38.0 %" in table["text/html"]
    assert "38.0 %" in table["text/plain"]
    assert number == {"application/papermill.record/text/plain": "'38.0 %'"}
    assert carried == {MIME: new}
    assert other == {"text/html": "another table"}
    renew(page, claims, new, _results(tmp_path, "quick", 70.0))
    assert "this run (quick, not evidence)" in table["text/html"]
    assert carried == {MIME: new}, "a page of a run carries its own results"


def test_the_mosaic_has_a_square_for_each_row_that_leads_to_it(tmp_path):
    run = _results(tmp_path, fidelity="reduced")
    html = mosaic([run])
    squares = re.findall(r'<a class="square (\S+) (\S*)" href="#([^"]+)"', html)
    assert {anchor(row) for row in run["claims"]} == {place for *_, place in squares}
    assert anchor({"id": "EAT-T7", "row": "B | FGSM"}) != anchor({"id": "EAT-T7", "row": "B* | FGSM"})
    assert [square[:2] for square in squares[:2]] == [("disagrees", "reduced"), ("agrees", "reduced")]
    assert [verdict for verdict, *_ in squares][-3:] == ["not_run"] * 3, "what was not run stands last"
    body = scoreboard_markdown([run])
    assert all(f'id="{place}"' in body for *_, place in squares)


def test_the_scoreboard_shows_every_row_of_every_paper(tmp_path):
    published = [_results(tmp_path), _results(tmp_path, chapter="bs")]
    body = scoreboard_markdown(published, [_results(tmp_path, "quick", 70.0)])
    assert body.startswith('<div class="mosaic">')
    assert "## [Ensembles <1>](eat.ipynb)" in body
    assert "## [Ensembles <1>](bs.ipynb)" in body
    assert "| published (standard, 2026-01-31) | 1 | 0 | 0 | 2 | 3 | 0 |" in body
    assert "| this run (quick, 2026-01-31) | 0 | 0 | 0 | 0 | 3 | 3 |" in body
    assert body.count('<details class="claim"') == 6
    assert body.count("<details") == body.count("</details>")
    assert body.count('<th scope="row">') == 2 * len(published[0]["claims"])
    titles = re.findall(r'<details class="claim" id="([^"]+)"><summary>', body)
    assert titles[:3] == ["EAT-T7", "EAT-L7", "EAT-T1"], "what was not run stands last"
    assert 'Single steps &lt;b&gt; (Table 7) <span class="verdict-disagrees">1 disagrees</span>' in body
    assert "White-box error &amp; more." in body
    blocks = body.split("\n\n")
    assert all(block.count("<details") == block.count("</details>") for block in blocks)


def test_a_chapter_without_a_published_edition_shows_this_run(tmp_path):
    body = scoreboard_markdown([], [_results(tmp_path, "quick")], page="chapters/{chapter}.html")
    assert "(chapters/eat.html)" in body
    assert "published (" not in body
    assert "3 not evidence" in body or "2 not evidence" in body


def test_nothing_published_is_said_in_words():
    assert scoreboard_markdown([]) == readme_table([]) == "Nothing has been published yet."


def test_the_readme_table_has_one_line_a_chapter(tmp_path):
    lines = readme_table([_results(tmp_path), _results(tmp_path, chapter="bs")]).splitlines()
    assert lines[0] == (
        "| rows of claims | disagrees | direction only | agrees, reduced or stand-in | reproduced | not run |"
    )
    assert lines[2:] == [
        f"| [Ensembles <1>](book/{chapter}.ipynb) (standard, 2026-01-31) | 1 | 0 | 0 | 2 | 3 |" for chapter in ("eat", "bs")
    ]  # fmt: skip


def test_the_terminal_scoreboard_is_aligned(tmp_path):
    text = terminal_scoreboard([_results(tmp_path), _results(tmp_path, "quick", chapter="blind_spot")])
    head, rule, first, second = text.splitlines()
    assert set(rule) == {"-"}
    assert head.split()[:2] == ["chapter", "disagrees"]
    assert first.startswith("eat (standard, 2026-01-31) ")
    assert second.startswith("blind_spot (quick, 2026-01-31) ")
    assert first[head.index("reproduced")] == "2"
    assert second[head.index("not evidence")] == "3"


def test_markers_are_replaced_and_replacing_again_changes_nothing():
    text = "a\n<!-- counts:start -->\nold\n<!-- counts:end -->\nb"
    once = replace_between_markers(text, "counts", "new\n")
    assert once == "a\n<!-- counts:start -->\n\nnew\n\n<!-- counts:end -->\nb"
    assert replace_between_markers(once, "counts", "new") == once


@pytest.mark.parametrize("text", [
    "",
    "<!-- counts:start -->",
    "<!-- counts:end --><!-- counts:start -->",
    "<!-- counts:start --><!-- counts:start --><!-- counts:end -->",
])  # fmt: skip
def test_missing_or_repeated_markers_are_an_error(text):
    with pytest.raises(ValueError, match=r"counts:start.*counts:end"):
        replace_between_markers(text, "counts", "new")


def test_glue_quotes_the_results(tmp_path):
    values = glue_values(_results(tmp_path))
    expected = {
        "EAT-T7-B-FGSM": "42.0 %",
        "EAT-T7-B-FGSM-paper": "40.0 %",
        "EAT-T7-B-FGSM-ci": "[39.5, 44.5] (3 seeds)",
        "EAT-T7-B-FGSM-effect": "",
        "EAT-T7-B-RplusFGSM-verdict": "disagrees",
        "EAT-T7-Bstar-FGSM": "not run",
        "EAT-L7-k-4": "0.500, 0.251",
        "EAT-T7-glance": "1 disagrees, 1 reproduced, 2 not run",
        "glance": "1 disagrees, 2 reproduced, 3 not run",
        "glance-total": "6",
        "glance-reproduced": "2",
        "glance-agrees": "0",
        "glance-measured": "3",
        "profile": "standard",
    }
    assert {key: values[key] for key in expected} == expected
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", key) for key in values)


def test_glue_names_tell_b_from_b_star_and_two_alike_are_an_error(tmp_path):
    assert glue_key("EAT-T7", "B | FGSM") != glue_key("EAT-T7", "B* | FGSM")
    results = _results(tmp_path)
    results["claims"][1]["row"] = "B / FGSM"
    with pytest.raises(ValueError, match=r"two rows.*'EAT-T7-B-FGSM'"):
        glue_values(results)


def test_only_what_a_text_quotes_is_glued(tmp_path):
    results = _results(tmp_path)
    text = "{glue:text}`EAT-T7-B-FGSM` of {glue:text}`glance-total`, {glue:text}`EAT-T7-B-FGSM`"
    assert quoted(text, results) == {"EAT-T7-B-FGSM": "42.0 %", "glance-total": "6"}
    with pytest.raises(ValueError, match=r"'EAT-T7-B-FSGM'.* eat"):
        quoted("{glue:text}`EAT-T7-B-FSGM`", results)
