"""Measurements, the ledger and results files."""

import json
import math
import os
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from robustutils import evidence
from robustutils.claims import Claims
from robustutils.evidence import Ledger, read_results, write_results
from robustutils.intervals import mean_interval, paired_difference, wilson
from robustutils.measurements import Measurement, difference, mean, rate

BLOCK = '[[claims]]\nid = "X"\nstatement = "s"\n'
PAPER = '[paper]\nkey = "EAT"\ntitle = "Ensembles"\nurl = "https://example.org"\n'
CLAIMS = (
    PAPER
    + """
[[claims]]
id = "EAT-T7"
statement = "Training on FGSM lowers the white-box error."
unit = "%"
criterion = { kind = "within", points = 5, relative = 0.25, direction = "below" }
min_n = 100
min_seeds = 2
columns = ["FGSM", "R+FGSM"]
table = { "C" = [81.8, nan], "C_adv" = [3.7, 17.1] }
[[claims.rows]]
row = "transferred minus white-box"
paper = 25.6
criterion = { kind = "greater", null = 0.0 }
statement = "Transfer is stronger."

[[claims]]
id = "EAT-L7"
statement = "The construction attains the bound."
criterion = { kind = "exact", tolerance = 1e-9 }
paper = [0.5, 0.25]

[[claims]]
id = "EAT-T1"
statement = "Step-LL transfers between large networks."
unit = "%"
needs = "ImageNet"
"""
)


def _claims(folder, text=CLAIMS):
    path = folder / "eat.claims.toml"
    path.write_text(text)
    return Claims.load(path)


def _measured(value=4.0, effect=-78.0, **changes):
    """Two seeds, 100 points, inside the paper's band, with an effect far below 0."""
    settings = {
        "per_seed": [value - 0.5, value + 0.5],
        "effect": effect,
        "effect_ci95": None if effect is None else (effect - 2, effect + 2),
        "effect_per_seed": [-78.1, -77.9] if effect is None else [effect - 0.1, effect + 0.1],
        "fidelity": "exact",
    }
    return Measurement(value, (value - 2, value + 2), 100, [0, 1], **settings | changes)


def _entry(results, row):
    return next(entry for entry in results["claims"] if entry["row"] == row)


def _recorded(folder, measurement, row="C_adv | FGSM", profile="standard"):
    ledger = Ledger(_claims(folder), profile)
    ledger.record("EAT-T7", row, measurement)
    return _entry(ledger.results(), row)


@pytest.mark.parametrize(("changes", "row", "profile", "expected"), [
    ({}, "C_adv | FGSM", "standard", "reproduced"),
    ({"fidelity": "code_variant"}, "C_adv | FGSM", "paper", "reproduced"),
    ({"fidelity": "reduced"}, "C_adv | FGSM", "standard", "partly"),
    ({"fidelity": "substitution"}, "C_adv | FGSM", "standard", "partly"),
    ({"value": 40.0}, "C_adv | FGSM", "standard", "partly"),
    ({"effect": 3.0}, "C_adv | FGSM", "standard", "not_reproduced"),
    ({"effect": 3.0}, "transferred minus white-box", "standard", "reproduced"),
    ({}, "C_adv | FGSM", "quick", "not_evidence"),
    ({}, "C_adv | FGSM", "check", "not_evidence"),
])  # fmt: skip
def test_a_measurement_earns_its_verdict(tmp_path, changes, row, profile, expected):
    assert _recorded(tmp_path, _measured(**changes), row, profile)["verdict"] == expected


def test_several_seeds_decide_by_their_own_interval(tmp_path):
    scattered = {"effect": -10.0, "effect_ci95": (-11.0, -9.0), "effect_per_seed": [-19.0, -1.0]}
    entry = _recorded(tmp_path, _measured(**scattered))
    assert entry["verdict"] == "not_reproduced"  # the test set alone would have decided otherwise
    assert entry["effect_ci95"] == [-11.0, -9.0]
    assert entry["effect_seed_ci95"][1] > 0


def test_one_seed_decides_by_the_test_set(tmp_path):
    one = Measurement(4.0, (3.0, 5.0), 100, [7], effect=-78.0, effect_ci95=(-79.0, -77.0), fidelity="reduced")
    assert _recorded(tmp_path, one)["verdict"] == "partly"


def test_a_sequence_is_judged_by_its_ends_and_its_steps(tmp_path):
    text = PAPER + BLOCK + "criterion = { kind = 'monotone', direction = 'increasing' }\n"
    ends = [(0.0, 2.0), (1.0, 3.0), (4.0, 6.0)]
    for measurement, expected in (
        (Measurement((1, 2, 5), ends, 10, [0], fidelity="exact"), "reproduced"),
        (Measurement((1, 2, 5), [(0, 5), (1, 3), (4, 6)], 10, [0], fidelity="exact"), "not_reproduced"),
        (
            Measurement((1, 2, 5), ends, 10, [0, 1], per_seed=[(1, 2, 4.9), (1, 2, 5.1)], fidelity="exact"),
            "reproduced",
        ),
        (
            Measurement((1, 2, 5), ends, 10, [0, 1], per_seed=[(1, 2, 1), (1, 2, 9)], fidelity="exact"),
            "not_reproduced",
        ),
    ):
        ledger = Ledger(_claims(tmp_path, text), "standard")
        ledger.record("X", "X", measurement)
        assert ledger.results()["claims"][0]["verdict"] == expected, measurement


def test_a_row_whose_paper_states_no_number_cannot_be_compared_with_it(tmp_path):
    text = PAPER + BLOCK + "needs = 'ImageNet'\ncriterion = { kind = 'within', points = 5 }\n"
    expected = r"X 'X': criterion 'within' compares two numbers, got 4\.0 and None"
    with pytest.raises(ValueError, match=expected):
        Ledger(_claims(tmp_path, text), "standard").record("X", "X", _measured())


@pytest.mark.parametrize(("id", "row", "expected"), [
    ("EAT-T8", "C | FGSM", "eat claims no id 'EAT-T8'; nearest: 'EAT-T7'"),
    ("EAT-T7", "C_adv | FGMS", "eat claims no row 'C_adv | FGMS'; nearest: 'C_adv | FGSM'"),
    ("EAT-T7", "", "claims no row ''; nearest: "),
])  # fmt: skip
def test_an_unknown_row_names_the_nearest(tmp_path, id, row, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        Ledger(_claims(tmp_path), "standard").record(id, row, _measured())


@pytest.mark.parametrize(("changes", "expected"), [
    ({"value": math.nan, "per_seed": None}, "value is not finite: nan"),
    ({"effect": math.inf}, "effect is not finite: inf"),
    ({"fidelity": "close"}, "unknown fidelity 'close'; allowed: exact"),
    ({"effect_per_seed": [-78.0]}, "effect has 1 values per seed for 2 seeds"),
    ({"per_seed": [0.04, 0.05]}, "value 4.0 lies outside its values per seed .* same unit?"),
    ({"effect_ci95": (-0.8, -0.7)}, "does not enclose effect -78.0; same unit?"),
    ({"effect_ci95": [(-80.0, -70.0)]}, "does not enclose effect -78.0"),
    ({"effect": None}, "effect_ci95 or effect_per_seed is given without effect"),
    ({"effect_per_seed": None}, "'within' decides by the 95% interval of the effect and there is none"),
])  # fmt: skip
def test_what_cannot_be_a_measurement_is_an_error_that_names_the_row(tmp_path, changes, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        _recorded(tmp_path, _measured(**changes))
    assert "EAT-T7 'C_adv | FGSM': " in str(caught.value)


@pytest.mark.parametrize(("n", "seeds", "expected"), [
    (0, [0, 1], "needs n >= 1 and distinct seeds, got n=0"),
    (100, [1, 1], r"got n=100, seeds=\[1, 1\]"),
    (99, [0, 1], "n=99 and 2 seeds are fewer than the least"),
])  # fmt: skip
def test_points_and_seeds_are_counted(tmp_path, n, seeds, expected):
    shape = {"per_seed": [3.0, 5.0], "effect": -9.0, "effect_per_seed": [-9.1, -8.9], "fidelity": "exact"}
    with pytest.raises(ValueError, match=expected):
        _recorded(tmp_path, Measurement(4.0, (3.0, 5.0), n, seeds, **shape))


def test_a_row_is_recorded_once_and_only_with_a_criterion(tmp_path):
    ledger = Ledger(_claims(tmp_path), "standard")
    ledger.record("EAT-T7", "C_adv | FGSM", _measured())
    with pytest.raises(ValueError, match=r"EAT-T7 'C_adv \| FGSM' is recorded twice"):
        ledger.record("EAT-T7", "C_adv | FGSM", _measured())
    with pytest.raises(ValueError, match="states no criterion; fix one before the run"):
        ledger.record("EAT-T1", "EAT-T1", _measured())


def test_a_ledger_knows_the_profiles(tmp_path):
    with pytest.raises(ValueError, match="unknown profile 'fast'; allowed: quick, check, standard, paper"):
        Ledger(_claims(tmp_path), "fast")


def test_measurements_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        _measured().value = 1.0


def _results(folder, profile="standard"):
    ledger = Ledger(_claims(folder), profile)
    ledger.record("EAT-T7", "C_adv | FGSM", _measured(value=3.98765, note="seeds 0 and 1"))
    ledger.record("EAT-L7", "EAT-L7", Measurement((0.5, 0.25), None, 2, [], fidelity="exact"))
    return ledger.results(datasets={"mnist": "ab"}, seconds=1.5, date="2026-01-31", device="cpu")


def test_results_hold_every_row_and_the_provenance(tmp_path):
    results = _results(tmp_path)
    assert {key: value for key, value in results.items() if key not in ("claims", "claims_sha256")} == {
        "chapter": "eat",
        "profile": "standard",
        "paper": {"key": "EAT", "title": "Ensembles", "url": "https://example.org"},
        "parameters": {},
        "datasets": {"mnist": "ab"},
        "environment": {},
        "source_hash": "",
        "git_commit": "",
        "seconds": 1.5,
        "date": "2026-01-31",
        "device": "cpu",
    }
    claims = _claims(tmp_path)
    assert results["claims_sha256"] == claims.sha256
    assert [(e["id"], e["row"]) for e in results["claims"]] == [(row.id, row.row) for row in claims.rows]
    measured = _entry(results, "C_adv | FGSM")
    assert measured["measured"] == 3.99  # fixed digits
    assert measured["ci95"] == [1.99, 5.99]
    assert measured["per_seed"] == [3.49, 4.49]
    assert measured["seed_ci95"] == [-2.37, 10.34]
    assert (measured["n"], measured["seeds"], measured["paper_value"]) == (100, [0, 1], 3.7)
    assert (measured["fidelity"], measured["note"]) == ("exact", "seeds 0 and 1")
    assert (measured["direction_holds"], measured["size_holds"]) == (True, True)
    assert "effect below 0" in measured["criterion"]
    assert "n >= 100; seeds >= 2" in measured["criterion"]


def test_unmeasured_rows_say_why(tmp_path):
    results = _results(tmp_path)
    assert _entry(results, "C | FGSM") | {"statement": "", "criterion": ""} == {
        "id": "EAT-T7", "row": "C | FGSM", "statement": "", "paper_value": 81.8, "unit": "%", "measured": None,
        "ci95": None, "seed_ci95": None, "per_seed": None, "effect": None, "effect_ci95": None,
        "effect_seed_ci95": None, "effect_per_seed": None, "n": 0, "seeds": [], "criterion": "",
        "verdict": "not_run", "fidelity": None, "note": "next", "direction_holds": None, "size_holds": None,
    }  # fmt: skip
    assert _entry(results, "EAT-T1")["note"] == "ImageNet"
    assert _entry(Ledger(_claims(tmp_path), "quick").results("later"), "C | FGSM")["note"] == "later"


def test_provenance_cannot_replace_what_the_ledger_states(tmp_path):
    with pytest.raises(ValueError, match="provenance cannot replace 'claims'"):
        Ledger(_claims(tmp_path), "quick").results(claims=[])


def test_results_survive_the_round_trip_and_equal_runs_print_equal_bytes(tmp_path):
    first, second = tmp_path / "deep" / "a.json", tmp_path / "deep" / "b.json"
    write_results(first, _results(tmp_path))
    write_results(second, _results(tmp_path))
    assert read_results(first) == _results(tmp_path)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("culprit", ["dump", "replace"])
def test_a_failed_write_leaves_the_old_results_alone(tmp_path, monkeypatch, culprit):
    path = tmp_path / "out" / "a.json"
    write_results(path, _results(tmp_path))
    before = path.read_bytes()
    worse = _results(tmp_path)
    if culprit == "dump":
        worse["environment"] = {"when": object()}
    else:
        monkeypatch.setattr(os, "replace", _full_disk)
    with pytest.raises((TypeError, OSError)):
        write_results(path, worse)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]


def _full_disk(source, target):
    raise OSError("no space left")


def _damage(results, entry, top):
    results["claims"][1] |= entry
    return {key: value for key, value in (results | top).items() if value != "absent"}


@pytest.mark.parametrize(("entry", "top", "expected"), [
    ({}, {"seconds": "absent"}, "key 'seconds' is missing"),
    ({}, {"claims": {}}, "'claims' has the wrong type"),
    ({}, {"profile": "fast"}, "unknown profile 'fast'"),
    ({}, {"paper": {"key": "EAT", "title": ""}}, "paper: key 'url' is missing"),
    ({}, {"claims": ["EAT-T7"]}, "expected an object, got str"),
    ({"verdict": "proved"}, {}, r"claim 'EAT-T7' row 'C_adv \| FGSM': unknown verdict 'proved'"),
    ({"row": "C | FGSM"}, {}, r"row 'C \| FGSM' appears twice"),
    ({"measured": "3.7"}, {}, "'measured' has the wrong type: '3.7'"),
    ({"measured": math.nan}, {}, "'measured' has the wrong type: nan"),
    ({"n": True}, {}, "'n' has the wrong type: True"),
    ({"fidelity": "reduced"}, {}, "verdict 'reproduced' cannot go with .* fidelity 'reduced'"),
    ({"fidelity": None}, {}, "verdict 'reproduced' cannot go with"),
    ({"measured": None}, {}, "verdict 'reproduced' cannot go with measured None"),
    ({"verdict": "not_run"}, {}, "verdict 'not_run' cannot go with measured 3.99"),
    ({"verdict": "not_evidence"}, {}, "verdict 'not_evidence' cannot go with .* profile 'standard'"),
    ({}, {"profile": "quick"}, "verdict 'reproduced' cannot go with .* profile 'quick'"),
    ({}, {"profile": "check"}, "verdict 'reproduced' cannot go with .* profile 'check'"),
])  # fmt: skip
def test_a_results_file_that_contradicts_itself_is_refused_both_ways(tmp_path, entry, top, expected):
    damaged = _damage(_results(tmp_path), entry, top)
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match=expected):
        write_results(path, damaged)
    assert not path.exists()
    path.write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=expected) as caught:
        read_results(path)
    assert "a.json" in str(caught.value)


def test_a_truncated_results_file_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_results(tmp_path))[:-30])
    with pytest.raises(ValueError, match=r"a\.json: not JSON"):
        read_results(path)


def test_published_results_lie_in_the_folder_or_are_none(tmp_path):
    assert evidence.published("eat", tmp_path) is None
    write_results(tmp_path / "eat.json", _results(tmp_path))
    assert evidence.published("eat", tmp_path)["chapter"] == "eat"
    assert evidence.published("no_such_chapter") is None


def test_rate_of_several_seeds(tmp_path):
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 400)) < 0.05, rng.random((2, 400)) < 0.8
    measured = rate(ours, theirs, seeds=[0, 1], fidelity="exact", note="n")
    assert measured.value == pytest.approx(100 * ours.mean())
    assert measured.ci95 == pytest.approx([100 * end for end in wilson(ours.mean() * 400, 400)])
    assert measured.per_seed == pytest.approx(100 * ours.mean(axis=1))
    assert measured.effect == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert measured.effect_per_seed == pytest.approx(100 * (ours.mean(axis=1) - theirs.mean(axis=1)))
    assert (measured.n, measured.seeds, measured.note) == (400, (0, 1), "n")
    assert _recorded(tmp_path, measured)["fidelity"] == "exact"


def test_rate_of_one_seed_takes_the_paired_interval():
    ours, theirs = np.arange(100) < 10, np.arange(100) < 40
    difference, interval = paired_difference(ours, theirs)
    measured = rate(ours, theirs, seeds=[3], fidelity="exact")
    assert measured.effect == pytest.approx(100 * difference)
    assert measured.effect_ci95 == pytest.approx([100 * end for end in interval])
    assert rate(ours, seeds=[3], fidelity="exact").effect is None


@pytest.mark.parametrize(("outcomes", "reference", "expected"), [
    (np.zeros((2, 5)), None, r"rate needs bool \[1 seeds, N\], got float64\[2, 5\]"),
    (np.zeros((2, 5), bool), None, r"got bool\[2, 5\]"),
    (np.zeros(5, bool), np.zeros(4, bool), r"the reference is bool\[1, 4\], the outcomes \[1, 5\]"),
])  # fmt: skip
def test_rate_refuses_other_shapes(outcomes, reference, expected):
    with pytest.raises(ValueError, match=expected):
        rate(outcomes, reference, seeds=[0], fidelity="exact")


def test_mean_of_numbers_over_seeds_and_examples():
    values = np.array([[1.0, 2.0, 3.0, 6.0], [2.0, 4.0, 4.0, 6.0]])
    found = mean(values, seeds=(0, 1), fidelity="exact")
    assert (found.value, found.n, found.per_seed) == (3.5, 4, (3.0, 4.0))
    assert found.ci95 == pytest.approx(mean_interval([1.5, 3.0, 3.5, 6.0]))
    assert mean(values[0], seeds=(7,), fidelity="exact").value == 3.0
    with pytest.raises(ValueError, match=r"mean needs numbers \[3 seeds, N\], got \[2, 4\]"):
        mean(values, seeds=(0, 1, 2), fidelity="exact")


def test_a_measurement_keeps_the_outcome_of_each_example_and_its_place():
    ours, theirs, places = np.arange(6) < 2, np.arange(6) < 4, [9, 8, 7, 3, 2, 1]
    one = {"seeds": [0], "fidelity": "exact", "images": places}
    found = [rate(ours, theirs, **one), difference(ours, theirs, **one), mean(ours + 0.5, **one)]
    for measured in found[:2]:
        assert {name: values.tolist() for name, values in measured.outcomes.items()} == {
            "outcomes": [ours.tolist()],
            "reference": [theirs.tolist()],
        }
    assert found[2].outcomes["values"].tolist() == [(ours + 0.5).tolist()]
    assert [measured.images for measured in found] == [places] * 3
    assert rate(ours, seeds=[0], fidelity="exact").outcomes.keys() == {"outcomes"}
    assert rate(ours, seeds=[0], fidelity="exact").images is None
