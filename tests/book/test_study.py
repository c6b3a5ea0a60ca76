"""A study: rows asked for by their coordinates, judged, shown and closed; fidelity from the parameters; the results file."""

import json
import math
import os

import numpy as np
import pytest
import torch
from declared import declared, load

from robustutils import attacks, provenance
from robustutils.artifacts import Absent
from robustutils.book import results, study
from robustutils.book.claims import Claims
from robustutils.book.runs import Run
from robustutils.book.study import Study
from robustutils.outcomes import Measurement, Outcomes
from robustutils.papers.ensemble import objectives

CLAIMS = declared(
    """
[picture]
ids = ["EAT-T7"]
xlabel = "error (%)"
caption = "Errors <beside> the paper's."
[picture.lines]
"C" = { architecture = "C", training = "standard" }
"C_adv" = { architecture = "C", training = "adv" }
"E_adv" = { architecture = "E", training = "adv" }
[picture.series]
"FGSM" = { quantity = "FGSM" }
"any" = [{ quantity = "FGSM" }, { quantity = "R+FGSM" }]

[parameters]
dataset = { one_of = ["digits", "mnist"], values = "mnist", protocol = "mnist", otherwise = "substitution" }
epochs = { range = [1, 100], values = 6, protocol = 6 }

[[claims]]
id = "EAT-T7"
statement = "Standard models fall."
unit = "%"
min_n = 100
min_seeds = 2
criterion = { kind = "greater", null = 0.0 }
at = { training = "standard" }
line = "{architecture}"
keys = ["architecture"]
columns = ["FGSM", "R+FGSM"]
cells = [["C", 81.8, nan]]

[[claims]]
id = "EAT-T7"
statement = "Training on FGSM lowers the white-box error."
unit = "%"
min_n = 100
min_seeds = 2
criterion = { kind = "within", points = 5, relative = 0.25, direction = "below" }
at = { training = "adv" }
reference = { training = "standard" }
line = "{architecture}_adv"
keys = ["architecture"]
columns = ["FGSM"]
cells = [["C", 3.7], ["D", 25.5]]
except = [{ at = { architecture = "D" }, fidelity = "code_variant" }]

[[claims]]
id = "EAT-T7"
statement = "Fewer errors than without."
unit = "points"
criterion = { kind = "less", null = 0.0 }
at = { architecture = "C", training = "adv", quantity = "FGSM" }
minus = { training = "standard" }
rows = [{ row = "C_adv minus C" }]

[[claims]]
id = "EAT-T7"
statement = "Over the architectures."
unit = "%"
criterion = { kind = "monotone", direction = "increasing" }
at = { architecture = ["C", "D"], training = "adv", quantity = "FGSM" }
rows = [{ row = "C, D" }]
""",
    top='depends_on = ["epochs", "dataset"]',
)


@pytest.fixture
def claims(tmp_path) -> Claims:
    return load(tmp_path, CLAIMS)


def begun(claims: Claims, profile: str = "standard", **parameters) -> Study:
    settled = {"dataset": "mnist", "epochs": 6} | parameters
    return Study(claims, Run("eat", profile, settled, torch.device("cpu")))


SHARES = {("C", "standard"): 80, ("C", "adv"): 4, ("D", "adv"): 30, ("D", "standard"): 90}


def errors(architecture, training, quantity):
    share = SHARES[architecture, training]
    return Outcomes(np.tile(np.arange(100) < share, (2, 1)), [0, 1])


def row(study: Study, name: str) -> dict:
    return next(row for row in study.so_far()["claims"] if row["row"] == name)


def test_each_claimed_row_is_asked_for_by_its_coordinates(claims):
    asked = []

    def by(**at):
        asked.append(at)
        return errors(**at)

    begun(claims).measure("EAT-T7", by=by)
    places = [(at["architecture"], at["training"], at["quantity"]) for at in asked]
    assert len(places) == len(set(places)), "each place once, references and parts of sequences among them"
    assert set(places) == {(*pair, "FGSM") for pair in SHARES}


def test_a_reference_a_difference_and_a_sequence_come_from_the_same_function(claims):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=errors)
    against = row(begun_, "C_adv | FGSM")
    assert (against["measured"], against["effect"]) == (4.0, -76.0)
    assert against["verdict"] == "reproduced"
    assert row(begun_, "C_adv minus C")["measured"] == -76.0
    rising = row(begun_, "C, D")
    assert (rising["measured"], rising["effect"]) == ([4.0, 30.0], 26.0)


@pytest.mark.parametrize(("parameters", "row_", "expected", "note"), [
    ({}, "C_adv | FGSM", "exact", ""),
    ({}, "D_adv | FGSM", "code_variant", ""),
    ({"epochs": 2}, "C_adv | FGSM", "reduced", "epochs 2, not 6"),
    ({"dataset": "digits"}, "C_adv | FGSM", "substitution", "dataset digits, not mnist"),
    ({"dataset": "digits", "epochs": 2}, "D_adv | FGSM", "substitution", "epochs 2, not 6; dataset digits, not mnist"),
])  # fmt: skip
def test_fidelity_follows_from_the_parameters(claims, parameters, row_, expected, note):
    begun_ = begun(claims, **parameters)
    begun_.measure("EAT-T7", by=errors)
    found = row(begun_, row_)
    assert (found["fidelity"], found["departures"]) == (expected, note)
    assert found["verdict"] in ("reproduced", "agrees")
    assert (found["verdict"] == "agrees") == (expected in ("substitution", "reduced"))


def test_fewer_images_or_seeds_than_the_least_have_a_word_of_their_own(claims):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=lambda **at: Outcomes(errors(**at).values[:1, ::2], [0]))
    found = row(begun_, "C_adv | FGSM")
    assert (found["fidelity"], found["verdict"]) == ("fewer", "undetermined"), "wider than the band"
    assert found["departures"] == "50 images, not 100; 1 training seeds, not 2"
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=lambda **at: Outcomes(errors(**at).values[:1], [0]))
    found = row(begun_, "C_adv | FGSM")
    assert (found["fidelity"], found["verdict"]) == ("fewer", "agrees")
    assert found["departures"] == "1 training seeds, not 2"


def test_what_no_parameter_bears_on_stays_exact(claims):
    begun_ = begun(claims, epochs=1)
    begun_.record("EAT-L7", "k = 4", Measurement((0.5, 0.25), None, 2, []))
    assert row(begun_, "k = 4")["verdict"] == "reproduced"


@pytest.mark.parametrize(("effect", "value", "profile", "expected"), [
    (-78.0, 4.0, "standard", "reproduced"),
    (-78.0, 40.0, "standard", "direction"),
    (3.0, 4.0, "standard", "disagrees"),
    (0.05, 4.0, "standard", "undetermined"),
    (-78.0, 4.0, "quick", "not_evidence"),
    (-78.0, 4.0, "check", "not_evidence"),
])  # fmt: skip
def test_direction_and_size_make_the_verdict(claims, effect, value, profile, expected):
    found = Measurement(
        value, (value - 2, value + 2), 100, [0, 1], per_seed=[value - 0.1, value + 0.1],
        effect=effect, effect_ci95=(effect - 2, effect + 2), effect_per_seed=[effect - 0.1, effect + 0.1],
    )  # fmt: skip
    begun_ = begun(claims, profile)
    begun_.record("EAT-T7", "C_adv | FGSM", found)
    assert row(begun_, "C_adv | FGSM")["verdict"] == expected


def test_several_seeds_decide_by_their_own_interval(claims):
    found = Measurement(
        4.0, (2.0, 6.0), 100, [0, 1], per_seed=[3.5, 4.5],
        effect=-10.0, effect_ci95=(-11.0, -9.0), effect_per_seed=[-19.0, -1.0],
    )  # fmt: skip
    begun_ = begun(claims)
    begun_.record("EAT-T7", "C_adv | FGSM", found)
    judged = row(begun_, "C_adv | FGSM")
    assert judged["verdict"] == "undetermined", "the test set alone would have decided otherwise"
    assert judged["effect_ci95"] == [-11.0, -9.0]


def test_absent_rows_are_not_run_with_their_reason(claims):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=lambda **at: "needs D" if at["architecture"] == "D" else None)
    assert row(begun_, "D_adv | FGSM")["note"] == "needs D"
    assert row(begun_, "C_adv | FGSM")["note"] == "not part of this run"
    assert row(begun_, "C_adv minus C")["verdict"] == "not_run"
    assert row(begun_, "C, D")["note"] in ("not part of this run", "needs D")
    assert row(begun_, "v3")["note"] == "ImageNet"


def test_a_reference_that_is_absent_leaves_the_row_out(claims):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=lambda **at: errors(**at) if at["training"] == "adv" else "no twin")
    assert row(begun_, "C_adv | FGSM")["note"] == "no twin"
    assert row(begun_, "C_adv minus C")["note"] == "no twin"
    assert row(begun_, "C, D")["measured"] == [4.0, 30.0]


@pytest.mark.parametrize(("id", "row_", "expected"), [
    ("EAT-T8", "C | FGSM", "'EAT-T8'.*: 'EAT-T"),
    ("EAT-T7", "C_adv | FGMS", r"'C_adv \| FGMS'.*'C_adv \| FGSM'"),
    ("EAT-T7", "", "row ''.*: "),
])  # fmt: skip
def test_an_unknown_row_names_the_nearest(claims, id, row_, expected):
    with pytest.raises(ValueError, match=expected):
        begun(claims).record(id, row_, None)


def test_a_row_is_recorded_once_judged_only_by_a_criterion_and_errors_name_it(claims):
    begun_ = begun(claims)
    begun_.record("EAT-T7", "C | FGSM", None)
    with pytest.raises(ValueError, match=r"EAT-T7 'C \| FGSM'.* twice"):
        begun_.record("EAT-T7", "C | FGSM", None)
    found = Measurement(4.0, (3.0, 5.0), 100, [7])
    with pytest.raises(ValueError, match=r"EAT-T1 'v3'.*no criterion"):
        begun_.record("EAT-T1", "v3", found)
    with pytest.raises(ValueError, match=r"EAT-T7 'C_adv \| FGSM'.* nan"):
        begun_.record("EAT-T7", "C_adv | FGSM", Measurement(math.nan, None, 100, [7]))
    with pytest.raises(ValueError, match=r"EAT-T7 'C_adv \| FGSM'.*'within'.* interval"):
        begun_.record("EAT-T7", "C_adv | FGSM", Measurement(4.0, None, 100, [7]))


# ---- showing ----


def test_tables_show_the_papers_number_beside_ours_and_the_reason_of_the_verdict(claims):
    begun_ = begun(claims, epochs=2)
    begun_.measure("EAT-T7", by=errors)
    table = begun_.table("EAT-T7")
    assert table.header == ("claim", "paper", "ours (standard)", "95% CI", "verdict")
    ((name, paper, ours, interval, verdict),) = (row for row in table.rows if str(row[0]).startswith("D"))
    assert (name, paper, ours, str(verdict)) == ("D_adv | FGSM", "25.5 %", "30.0 %", "agrees, reduced")
    assert interval == "[30.0, 30.0] (2 seeds)"
    assert "Epochs 2, not 6." in verdict.html
    assert begun_.table("EAT-L7").rows == (), "what is absent is an empty table"


def test_numbers_and_dots_leave_out_what_is_not_there(claims):
    begun_ = begun(claims)
    nothing = begun_.dots(
        ["EAT-T7"], lines=claims.picture["lines"], series=claims.picture["series"], xlabel=""
    )
    assert [text.get_text() for text in nothing.axes[0].texts] == ["not part of this run"]
    begun_.measure("EAT-T7", by=errors)
    figure = begun_.dots(
        ["EAT-T7"], lines=claims.picture["lines"], series=claims.picture["series"], xlabel="error (%)"
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["C", "C_adv"]
    cells = [[("EAT-T7", "C_adv | FGSM"), ("EAT-T7", "C | R+FGSM")]]
    np.testing.assert_array_equal(begun_.numbers(cells), [[4.0, np.nan]])
    np.testing.assert_array_equal(begun_.numbers(cells, paper=True), [[3.7, np.nan]])
    assert begun_.paper("EAT-T7", "D_adv | FGSM") == 25.5
    assert begun_.paper("EAT-T7", "no such row") is None


# ---- closing ----


@pytest.fixture
def chapter(tmp_path, monkeypatch, claims):
    """A repository with the text of the chapter."""
    (tmp_path / "chapters").mkdir()
    text = tmp_path / "chapters" / "eat.py"
    text.write_text(
        "# %% [markdown]\n# {glue:text}`EAT-T7-C_adv-FGSM` errors of {glue:text}`glance-total`.\n"
    )
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    return text


@pytest.fixture
def shown(monkeypatch) -> dict:
    """What is glued and displayed."""
    found: dict = {}
    monkeypatch.setattr(study, "glue", lambda key, value, display: found.setdefault(key, value))
    monkeypatch.setattr(study, "display", lambda data, raw: found.update(data))
    return found


def test_closing_gives_results_and_glues_what_the_text_quotes(claims, chapter, shown):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=errors)
    begun_.measure("EAT-L7", by=lambda: Measurement((0.5, 0.25), None, 2, []))
    found = begun_.close(mnist="ab")
    assert shown["EAT-T7-C_adv-FGSM"] == "4.0 %"
    assert shown["glance-total"] == "7"
    assert shown[results.MIME] == found
    assert (found["datasets"], found["profile"], found["titles"]["EAT-T7"]) == (
        {"mnist": "ab"}, "standard", "Single steps <b> (Table 7)",
    )  # fmt: skip
    assert found["claims_sha256"] == claims.sha256


def test_a_claimed_row_that_the_chapter_never_asks_for_is_an_error(claims, chapter, shown):
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=errors)
    with pytest.raises(ValueError, match="none of them: EAT-L7 'k = 4'"):
        begun_.close()


def test_a_quoted_number_that_no_row_has_is_an_error(claims, chapter, shown):
    chapter.write_text("# {glue:text}`EAT-T9-typo`")
    begun_ = begun(claims)
    begun_.measure("EAT-T7", "EAT-L7", by=lambda **at: None)
    with pytest.raises(ValueError, match=r"'EAT-T9-typo'.* eat"):
        begun_.close()


def test_the_parameters_of_a_run_stand_folded(claims):
    html = study.describe(begun(claims, epochs=3).run).data
    assert html.startswith("<details><summary>Profile standard")
    assert "epochs = 3" in html


# ---- the results file ----


def complete(claims) -> dict:
    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=errors)
    return begun_.so_far() | {"parameters": dict(begun_.run.parameters), "seconds": 1.5, "date": "2026-01-31"}


def test_results_survive_the_round_trip_and_equal_runs_print_equal_bytes(claims, tmp_path):
    first, second = tmp_path / "deep" / "a.json", tmp_path / "deep" / "b.json"
    results.write(first, complete(claims))
    results.write(second, complete(claims))
    assert results.read(first) == complete(claims)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.json", "b.json"]


def full_disk(source, target):
    raise OSError("no space left")


@pytest.mark.parametrize("culprit", ["dump", "replace"])
def test_a_failed_write_leaves_the_old_results_alone(claims, tmp_path, monkeypatch, culprit):
    path = tmp_path / "out" / "a.json"
    results.write(path, complete(claims))
    before = path.read_bytes()
    worse = complete(claims)
    if culprit == "dump":
        worse["environment"] = {"when": object()}
    else:
        monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises((TypeError, OSError)):
        results.write(path, worse)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(("changed", "top", "expected"), [
    ({}, {"seconds": "absent"}, "'seconds' is missing"),
    ({}, {"claims": {}}, "'claims'"),
    ({}, {"profile": "fast"}, "profile 'fast'"),
    ({}, {"claims": ["EAT-T7"]}, "table of keys.*'EAT-T7'"),
    ({"row": "C | FGSM"}, {}, r"'C \| FGSM'.* twice"),
    ({"measured": "3.7"}, {}, "'measured'.* '3.7'"),
    ({"measured": math.nan}, {}, "'measured'.* nan"),
    ({"n": True}, {}, "'n'.* True"),
])  # fmt: skip
def test_a_results_file_that_contradicts_itself_is_refused_both_ways(
    claims, tmp_path, changed, top, expected
):
    damaged = complete(claims)
    damaged["claims"][1] |= changed
    damaged = {key: value for key, value in (damaged | top).items() if value != "absent"}
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match=expected):
        results.write(path, damaged)
    assert not path.exists()
    path.write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=expected) as caught:
        results.read(path)
    assert "a.json" in str(caught.value)


def test_a_truncated_results_file_is_an_error(claims, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(complete(claims))[:-30])
    with pytest.raises(ValueError, match=r"a\.json: not JSON"):
        results.read(path)


def test_published_results_lie_in_the_folder_or_are_none_and_are_judged_anew(claims, tmp_path, monkeypatch):
    assert results.published("eat", tmp_path) is None
    assert results.published("no_such_chapter") is None
    written = complete(claims)
    results.write(tmp_path / "eat.json", written)
    monkeypatch.setattr(Claims, "of", lambda chapter: claims)
    assert results.published("eat", tmp_path) == written
    row = next(row for row in written["claims"] if row["verdict"] not in ("not_run", "disagrees"))
    row |= {"verdict": "disagrees", "statement": "It was another.", "seed_ci95": [-1.0, 101.0]}
    results.write(tmp_path / "eat.json", written | {"claims_sha256": "that of the run"})
    renewed = results.published("eat", tmp_path)
    assert renewed == complete(claims) | {"claims_sha256": "that of the run"}


def test_rows_that_ask_for_an_absent_network_are_not_part_of_the_run(claims):
    def found(architecture, **rest):
        if architecture == "D":
            raise Absent("this run has no network D")
        return errors(architecture, **rest)

    begun_ = begun(claims)
    begun_.measure("EAT-T7", by=found)
    notes = {row["row"]: row["note"] for row in begun_.so_far()["claims"] if row["verdict"] == "not_run"}
    assert notes["D_adv | FGSM"] == notes["C, D"] == "this run has no network D"
    assert "C_adv | FGSM" not in notes


def test_a_page_shows_short_functions_without_their_docstrings_and_refuses_long_ones():
    shown = study.source(objectives.single_step).data
    assert "gradient.sign()" in shown
    assert '"""' not in shown
    with pytest.raises(ValueError, match=r"attacks\.ascend has \d+ lines"):
        study.source(attacks.ascend)
