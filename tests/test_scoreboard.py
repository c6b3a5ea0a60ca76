"""Results files as tables, pages, terminal text and glue."""

import re

import pytest

from robustutils.claims import Claims
from robustutils.evidence import Ledger
from robustutils.measurements import Measurement
from robustutils.scoreboard import (
    LABELS,
    comparison_table,
    format_value,
    glue_key,
    glue_values,
    grid_table,
    interval_text,
    readme_table,
    replace_between_markers,
    scoreboard_markdown,
    terminal_scoreboard,
    verdict_counts,
)

CLAIMS = """
[paper]
key = "EAT"
title = "Ensembles <1>"
url = "https://example.org"

[[claims]]
id = "EAT-T7"
statement = "White-box error & more."
unit = "%"
criterion = { kind = "within", points = 5 }
columns = ["FGSM", "R+FGSM"]
table = { "B" = [40.0, 17.25], "B*" = [50.0, 20.0] }

[[claims]]
id = "EAT-L7"
statement = "The bound."
criterion = { kind = "exact", tolerance = 0.01 }
paper = [0.5, 0.25]

[[claims]]
id = "EAT-T1"
statement = "Large networks."
needs = "ImageNet"
"""


def _results(folder, profile="standard", value=42.0, chapter="eat", **provenance):
    path = folder / f"{chapter}.claims.toml"
    path.write_text(CLAIMS)
    ledger = Ledger(Claims.load(path), profile)
    spread = {"per_seed": [value - 1, value, value + 1], "fidelity": "exact"}
    ledger.record("EAT-T7", "B | FGSM", Measurement(value, (value - 2, value + 2), 900, [0, 1, 2], **spread))
    ledger.record("EAT-T7", "B | R+FGSM", Measurement(30.0, (28.0, 32.0), 900, [0], fidelity="exact"))
    ledger.record("EAT-L7", "EAT-L7", Measurement((0.5, 0.2512), None, 2, [], fidelity="exact"))
    return ledger.results(**{"date": "2026-01-31T10:00:00"} | provenance)


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
    seeds, examples, exact, none, *_ = _results(tmp_path)["claims"][0:2] + _results(tmp_path)["claims"][4:]
    assert interval_text(seeds) == "[39.5, 44.5] (3 seeds)"
    assert interval_text(examples) == "[28.00, 32.00] (n = 900)"
    assert interval_text(exact) == ""
    assert interval_text(none) == ""


def test_the_comparison_table_puts_paper_published_edition_and_this_run_side_by_side(tmp_path):
    table = comparison_table(_results(tmp_path, "quick", 70.0), _results(tmp_path), ["EAT-T7", "EAT-T1"])
    assert table.header == (
        "claim", "paper", "published edition (standard, 2026-01-31)", "this run (quick, 2026-01-31)", "95% CI", "verdict",
    )  # fmt: skip
    # rows that neither run measured are left out
    assert [tuple(map(str, row)) for row in table.rows] == [
        ("EAT-T7: B | FGSM", "40.0 %", "42.0 % [39.5, 44.5] (3 seeds) (reproduced)", "70.0 %",
         "[67.5, 72.5] (3 seeds)", "not evidence"),
        ("EAT-T7: B | R+FGSM", "17.25 %", "30.00 % [28.00, 32.00] (n = 900) (not reproduced)", "30.00 %",
         "[28.00, 32.00] (n = 900)", "not evidence"),
    ]  # fmt: skip


def test_the_comparison_table_does_with_one_run(tmp_path):
    results = _results(tmp_path)
    alone = comparison_table(results, None, ["EAT-L7"])
    assert alone.header[2:4] == ("published edition", "this run (standard, 2026-01-31)")
    shown = ("EAT-L7", "0.500, 0.250", "none", "0.500, 0.251", "", "reproduced")
    assert tuple(map(str, alone.rows[0])) == shown
    published = comparison_table(None, results, ["EAT-L7"])
    assert published.header == (
        "claim",
        "paper",
        "published edition (standard, 2026-01-31)",
        "95% CI",
        "verdict",
    )
    assert tuple(map(str, published.rows[0])) == (*shown[:2], *shown[3:])


@pytest.mark.parametrize(("fidelity", "shown"), [
    ("exact", "reproduced"),
    ("code_variant", "reproduced: code variant"),
    ("reduced", "partly: reduced"),
])  # fmt: skip
def test_a_verdict_stands_beside_the_fidelity_of_its_run(tmp_path, fidelity, shown):
    path = tmp_path / "eat.claims.toml"
    path.write_text(CLAIMS)
    ledger = Ledger(Claims.load(path), "standard")
    ledger.record("EAT-L7", "EAT-L7", Measurement((0.5, 0.25), None, 2, [], fidelity=fidelity))
    table = comparison_table(None, ledger.results(date="2026-01-31"), ["EAT-L7"])
    assert str(table.rows[0][-1]) == shown


@pytest.mark.parametrize(("runs", "ids", "expected"), [
    (True, ["EAT-T8"], "eat has no claim id 'EAT-T8'; allowed: EAT-T7, EAT-L7, EAT-T1"),
    (False, ["EAT-T7"], "needs a run"),
])  # fmt: skip
def test_the_comparison_table_refuses_what_it_cannot_show(tmp_path, runs, ids, expected):
    with pytest.raises(ValueError, match=expected):
        comparison_table(_results(tmp_path) if runs else None, None, ids)


def test_the_grid_has_a_line_for_each_kind_of_row_and_a_column_for_each_subject(tmp_path):
    lines = {"single step": ("EAT-T7", "{0} | FGSM"), "random step": ("EAT-T7", "{0} | R+FGSM")}
    table = grid_table(_results(tmp_path), "attack", lines, ["B", "B*", "C"])
    assert table.header == ("attack", "B", "B*", "C")
    assert [[str(cell) for cell in row] for row in table.rows] == [
        ["single step (%)", "42.0 (40.0) (reproduced)", "(50.0) (not run)", ""],
        ["random step (%)", "30.00 (17.25) (not reproduced)", "(20.0) (not run)", ""],
    ]
    with pytest.raises(ValueError, match=r"eat has no row EAT-T9 '\{0\} \| FGSM' for any of \['B'\]"):
        grid_table(_results(tmp_path), "attack", {"x": ("EAT-T9", "{0} | FGSM")}, ["B"])


def test_html_escapes_scrolls_and_names_every_verdict(tmp_path):
    results = _results(tmp_path)
    results["claims"][0]["row"] = "B <script> | FGSM"
    html = comparison_table(results, results, ["EAT-T7"])._repr_html_()
    assert "<script>" not in html
    assert "B &lt;script&gt; | FGSM" in html
    assert '<div class="table-scroll" style="overflow-x: auto"' in html
    assert '<span class="verdict-not_reproduced">not reproduced</span>' in html
    assert html.count('<th scope="col">') == 6
    assert html.count('<th scope="row">') == 2
    for name in re.findall(r'class="verdict-(\w+)"', html):
        assert f'verdict-{name}">{LABELS[name]}</span>' in html


def test_markdown_and_text_have_one_line_a_row(tmp_path):
    table = comparison_table(_results(tmp_path), None, ["EAT-T7"])
    markdown = table._repr_markdown_().splitlines()
    assert len(markdown) == 2 + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in markdown)  # bars inside cells are escaped
    text = str(table).splitlines()
    assert len(text) == 2 + 2
    assert {line.index("%") for line in text[2:] if "40.0" in line or "50.0" in line} == {text[2].index("%")}


def test_verdicts_are_counted(tmp_path):
    results = _results(tmp_path)
    everything = {"reproduced": 2, "partly": 0, "not_reproduced": 1, "not_run": 3, "not_evidence": 0}
    assert verdict_counts(results) == everything
    assert sum(everything.values()) == len(results["claims"])
    assert verdict_counts(results, "EAT-T1") == dict.fromkeys(everything, 0) | {"not_run": 1}


def test_the_scoreboard_shows_every_row_of_every_paper(tmp_path):
    published = [_results(tmp_path), _results(tmp_path, chapter="bs")]
    body = scoreboard_markdown(published, [_results(tmp_path, "quick", 70.0)])
    assert "## [Ensembles <1>](eat.ipynb)" in body
    assert "## [Ensembles <1>](bs.ipynb)" in body
    assert "| published (standard, 2026-01-31) | 2 | 0 | 1 | 3 | 0 |" in body
    assert "| this run (quick, 2026-01-31) | 0 | 0 | 0 | 3 | 3 |" in body
    assert body.count("<details>") == body.count("</details>") == 6
    assert body.count('<th scope="row">') == 2 * len(published[0]["claims"])
    assert '<summary>EAT-T7 <span class="verdict-reproduced">1 reproduced</span>' in body
    assert "White-box error &amp; more." in body
    assert max(map(len, body.splitlines())) < 2000  # docutils refuses very long lines
    blocks = body.split("\n\n")
    assert all(block.count("<details>") == block.count("</details>") for block in blocks)


def test_a_chapter_without_a_published_edition_shows_this_run(tmp_path):
    body = scoreboard_markdown([], [_results(tmp_path, "quick")], page="chapters/{chapter}.html")
    assert "(chapters/eat.html)" in body
    assert "published (" not in body
    assert "3 not evidence" in body or "2 not evidence" in body


def test_nothing_published_is_said_in_words():
    assert scoreboard_markdown([]) == readme_table([]) == "Nothing has been published yet."


def test_the_readme_table_has_one_line_a_chapter(tmp_path):
    lines = readme_table([_results(tmp_path), _results(tmp_path, chapter="bs")]).splitlines()
    assert lines[0] == "| paper | reproduced | partly | not reproduced | not run | not evidence |"
    assert lines[2:] == [
        f"| [Ensembles <1>](book/{chapter}.ipynb) (standard, 2026-01-31) | 2 | 0 | 1 | 3 | 0 |" for chapter in ("eat", "bs")
    ]  # fmt: skip


def test_the_terminal_scoreboard_is_aligned(tmp_path):
    text = terminal_scoreboard([_results(tmp_path), _results(tmp_path, "quick", chapter="blind_spot")])
    head, rule, first, second = text.splitlines()
    assert set(rule) == {"-"}
    assert head.split()[:2] == ["chapter", "reproduced"]
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
    with pytest.raises(
        ValueError, match="expected <!-- counts:start --> and then <!-- counts:end -->, each once"
    ):
        replace_between_markers(text, "counts", "new")


def test_glue_quotes_the_results(tmp_path):
    values = glue_values(_results(tmp_path))
    expected = {
        "EAT-T7-B-FGSM": "42.0 %",
        "EAT-T7-B-FGSM-paper": "40.0 %",
        "EAT-T7-B-FGSM-ci": "[39.5, 44.5] (3 seeds)",
        "EAT-T7-B-FGSM-effect": "",
        "EAT-T7-B-RplusFGSM-verdict": "not reproduced",
        "EAT-T7-Bstar-FGSM": "not run",
        "EAT-L7": "0.500, 0.251",
        "EAT-T7-glance": "1 reproduced, 1 not reproduced, 2 not run",
        "glance": "2 reproduced, 1 not reproduced, 3 not run",
        "glance-total": "6",
        "glance-reproduced": "2",
        "glance-partly": "0",
        "profile": "standard",
    }
    assert {key: values[key] for key in expected} == expected
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", key) for key in values)


def test_glue_names_tell_b_from_b_star_and_two_alike_are_an_error(tmp_path):
    assert glue_key("EAT-T7", "B | FGSM") != glue_key("EAT-T7", "B* | FGSM")
    results = _results(tmp_path)
    results["claims"][1]["row"] = "B / FGSM"
    with pytest.raises(ValueError, match="two rows of eat share the glue name 'EAT-T7-B-FGSM'"):
        glue_values(results)
