"""Parameters, profiles and devices: every wrong value stops with a message that says what is allowed."""

import copy
from typing import Any

import pytest
import torch

from robustutils import provenance
from robustutils.artifacts import shelf
from robustutils.book import outcomes_files, runs
from robustutils.book.claims import Claims
from robustutils.book.parameters import Parameter, ParameterError
from robustutils.registry import unknown

PROFILES = {
    "quick": {"dataset": "digits", "models": "C,D", "epsilon": 0.3, "steps": 4, "seed": 0, "n_seeds": 1},
    "standard": {"dataset": "mnist", "models": "B*,C,D", "epsilon": 0.3, "steps": 9, "seed": 0, "n_seeds": 3},
    "paper": {"dataset": "mnist", "models": "B*,C,D", "epsilon": 0.3, "steps": 99, "seed": 0, "n_seeds": 5},
}
ALLOWED: dict[str, Any] = {
    "dataset": {"one_of": ("digits", "mnist", "fashion_mnist")},
    "models": {"some_of": ("B*", "C", "D")},
    "epsilon": {"range": (0.01, 1.0)},
    "steps": {"range": (1, 100)},
    "seed": {"range": (0, 10**6)},
    "n_seeds": {"range": (1, 20)},
}


def declaration(profiles=PROFILES, check: dict[str, int] | None = None) -> Claims:
    """What a chapter's TOML would declare."""
    parameters = {
        name: Parameter([profiles[p][name] for p in profiles], **rule, check=(check or {}).get(name))
        for name, rule in ALLOWED.items()
    }
    return Claims("spots", parameters, {}, (), {}, {}, "")


def begin(injected: str = "", check: dict[str, int] | None = None, **namespace):
    """A run of a notebook whose parameters cell sets ``namespace``, and into which papermill injected a cell."""
    declared = {"profile": "quick", "device": "cpu", **dict.fromkeys(ALLOWED)}
    cells = ["", "profile = 'quick'", *([f"# Parameters\n{injected}"] if injected else [])]
    return runs.start(declaration(check=check), {**declared, **namespace, "In": cells})


# ---- what a parameter may be ----


@pytest.mark.parametrize(("rule", "value", "expected"), [
    (ALLOWED["dataset"], "mnist", "mnist"),
    (ALLOWED["models"], "C", ("C",)),
    (ALLOWED["models"], "D, B*", ("B*", "D")),
    (ALLOWED["models"], ["D", "C", "D"], ("C", "D")),
    (ALLOWED["epsilon"], 0.25, 0.25),
    (ALLOWED["epsilon"], 1, 1.0),
    (ALLOWED["epsilon"], 0.01, 0.01),
    (ALLOWED["steps"], 1, 1),
    (ALLOWED["steps"], 100, 100),
])  # fmt: skip
def test_allowed_values_come_through(rule, value, expected):
    parsed = Parameter(**rule).parse("x", value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("dataset", "mnits", "dataset='mnits' (did you mean 'mnist'?): allowed are digits, mnist, fashion_mnist"),
    ("dataset", "imagenet", "dataset='imagenet': allowed are digits, mnist, fashion_mnist"),
    ("dataset", 3, "dataset=3: allowed are digits, mnist, fashion_mnist"),
    ("models", "C,E", "models='E': allowed are B*, C, D"),
    ("models", ["C", 1], "models='1': allowed are B*, C, D"),
    ("models", [], "models=[]: allowed are B*, C, D, at least one"),
    ("models", 5, "models='5': allowed are B*, C, D"),
    ("epsilon", 5, "epsilon=5: must be a number from 0.01 to 1.0"),
    ("epsilon", 0, "epsilon=0: must be a number from 0.01 to 1.0"),
    ("epsilon", "0.1", "epsilon='0.1': must be a number from 0.01 to 1.0"),
    ("epsilon", True, "epsilon=True: must be a number from 0.01 to 1.0"),
    ("epsilon", float("nan"), "epsilon=nan: must be a number from 0.01 to 1.0"),
    ("epsilon", float("inf"), "epsilon=inf: must be a number from 0.01 to 1.0"),
    ("steps", 0, "steps=0: must be a whole number from 1 to 100"),
    ("steps", 101, "steps=101: must be a whole number from 1 to 100"),
    ("steps", 2.0, "steps=2.0: must be a whole number from 1 to 100"),
    ("steps", True, "steps=True: must be a whole number from 1 to 100"),
    ("steps", "7", "steps='7': must be a whole number from 1 to 100"),
])  # fmt: skip
def test_a_value_that_is_not_allowed_is_named_with_what_is(name, value, message):
    with pytest.raises(ParameterError) as caught:
        Parameter(**ALLOWED[name]).parse(name, value)
    assert str(caught.value) == message


# ---- what a chapter declares ----


@pytest.mark.parametrize(("data", "values"), [
    ({"one_of": ["a", "b"], "values": "a"}, ["a", "a", "a"]),
    ({"some_of": ["a", "b"], "values": ["a", "a,b", "b"]}, ["a", "a,b", "b"]),
    ({"range": [1, 9], "values": [1, 2, 3]}, [1, 2, 3]),
    ({"text": True}, [None, None, None]),
])  # fmt: skip
def test_a_declared_parameter_has_three_values(data, values):
    assert Parameter.declared("x", data) == Parameter(**data | {"values": values})


@pytest.mark.parametrize(("data", "message"), [
    ({"values": 1}, "parameter 'x' needs one of one_of, some_of, range, text"),
    ({"range": [1, 9], "text": True}, "parameter 'x' needs one of"),
    ({"range": [1, 9], "value": 1}, "parameter 'x': unknown key 'value' (did you mean 'values'?)"),
    ({"range": [1, 9], "values": [1, 2]}, "parameter 'x': 'values' are one, or one for quick, standard and paper"),
    ({"range": [1, 9], "values": 10}, "x=10: must be a whole number from 1 to 9"),
    ({"one_of": [], "values": "a"}, "parameter 'x' needs one of"),
    (3, "parameter 'x' needs one of"),
])  # fmt: skip
def test_a_wrong_declaration_says_what_is_wrong(data, message):
    with pytest.raises(ValueError, match="x") as caught:
        Parameter.declared("x", data)
    assert message in str(caught.value)


@pytest.mark.parametrize(("data", "value", "departure"), [
    ({"range": [1, 9], "values": 6, "protocol": 6}, 6, ""),
    ({"range": [1, 9], "values": 6, "protocol": 6}, 3, "x 3, not 6"),
    ({"range": [1, 9], "values": 6, "at_least": 5}, 5, ""),
    ({"range": [1, 9], "values": 6, "at_least": 5}, 4, "x 4, not 5"),
    ({"some_of": ["a", "b"], "values": "a,b", "protocol": "a,b"}, ("a", "b"), ""),
    ({"some_of": ["a", "b"], "values": "a,b", "protocol": "a,b"}, ("a",), "x ('a',), not a,b"),
    ({"range": [1, 9], "values": 6}, 1, ""),
])  # fmt: skip
def test_a_value_departs_from_the_papers_protocol_or_keeps_it(data, value, departure):
    assert Parameter.declared("x", data).departure("x", value) == departure


def test_an_unknown_name_is_told_with_what_was_perhaps_meant_and_what_there_is():
    assert unknown("defence", "wrmm", {"madry": 0, "wrm": 1}) == (
        "unknown defence 'wrmm' (did you mean 'wrm'?); there are madry, wrm"
    )
    assert unknown("key", 3, ["a"]) == "unknown key 3; there are a"


# ---- the first call of a chapter ----


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_a_profile_sets_what_is_none(profile):
    run = begin(profile=profile)
    models = ("C", "D") if profile == "quick" else ("B*", "C", "D")
    assert run.profile == profile
    assert dict(run.parameters) == {**PROFILES[profile], "models": models}
    assert list(run.seeds) == list(range(PROFILES[profile]["n_seeds"]))


def test_a_parameter_overrides_its_profile_and_nothing_else():
    run = begin("epsilon = 0.1\nseed = 3", epsilon=0.1, seed=3, n_seeds=2)
    assert (run.epsilon, run.seed, run.steps, run.dataset) == (0.1, 3, 4, "digits")
    assert list(run.seeds) == [3, 4]


def test_a_check_is_a_standard_run_of_fewer_points_in_which_nothing_is_trained():
    run = begin(profile="check", check={"steps": 5, "n_seeds": 20})
    assert shelf.frozen
    assert dict(run.parameters) == {
        **PROFILES["standard"],
        "models": ("B*", "C", "D"),
        "steps": 5,  # n_seeds is below its most
    }
    begin(profile="standard", check={"steps": 5})
    assert not shelf.frozen, "a later run in the same process may train"


def test_what_an_earlier_run_has_used_is_not_of_this_one():
    shelf.note("an-earlier-artifact", {})
    begin()
    assert begin().provenance()["artifacts"] == []


def test_a_run_has_the_outcomes_at_hand_that_the_environment_names(tmp_path, monkeypatch):
    path = tmp_path / "spots.outcomes.safetensors"
    shelf.note("judged-1", {"seconds": 1}, {"value": torch.tensor([True, False])})
    outcomes_files.write(path, [outcomes_files.of_run({"parameters": {}}, {})])
    begin()
    assert shelf.outcomes == {}
    monkeypatch.setenv(outcomes_files.VARIABLE, str(path))
    begin()
    assert shelf.outcomes["judged-1"][0]["value"].tolist() == [True, False]


def test_the_defaults_of_a_profile_are_checked_too():
    wrong = {**PROFILES, "quick": {**PROFILES["quick"], "steps": 0}}
    namespace = {"profile": "quick", "device": "cpu", **dict.fromkeys(ALLOWED)}
    with pytest.raises(ParameterError, match="steps=0"):
        runs.start(declaration(wrong), namespace)


def test_an_attribute_that_is_no_parameter_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'epsilom'"):
        _ = begin().epsilom


def test_a_run_can_be_copied():
    run = begin()
    assert copy.copy(run) == run


@pytest.mark.parametrize(("injected", "namespace", "message"), [
    ("profile = 'fast'", {"profile": "fast"}, "profile='fast': allowed are quick, check, standard, paper"),
    ("profile = 'standart'", {"profile": "standart"},
     "profile='standart' (did you mean 'standard'?): allowed are quick, check, standard, paper"),
    ("dataset = 'mnits'", {"dataset": "mnits"}, "dataset='mnits' (did you mean 'mnist'?): allowed are"),
    ("epsilon = 5", {"epsilon": 5}, "epsilon=5: must be a number from 0.01 to 1.0"),
    ("epsilom = 0.1", {"epsilom": 0.1}, "unknown parameter 'epsilom' (did you mean 'epsilon'?); there are "
     "profile, device, dataset, models, epsilon, steps, seed, n_seeds"),
    ("colour = 'red'", {}, "unknown parameter 'colour'; there are profile, device"),
    ("device = 'gpu'", {"device": "gpu"}, "device='gpu': allowed are cpu"),
])  # fmt: skip
def test_a_wrong_parameter_stops_the_chapter_at_its_start(injected, namespace, message):
    with pytest.raises(ParameterError) as caught:
        begin(injected, **namespace)
    assert message in str(caught.value)


def test_only_the_injected_cell_is_compared():
    cells = ["", "epsilom = 1\nprofile = 'quick'", "# Parameters\nepsilon = 0.1\nseed = 3", "alpha = 2"]
    assert runs.injected_names({"In": cells}) == ["epsilon", "seed"]
    assert runs.injected_names({}) == []


def test_a_notebook_shows_the_message_alone():
    assert ParameterError("epsilon=5: no")._render_traceback_() == ["ParameterError: epsilon=5: no"]
    assert issubclass(ParameterError, ValueError)


# ---- devices ----


@pytest.fixture(params=[True, False], ids=["gpu", "no gpu"])
def gpu(request, monkeypatch) -> bool:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    return request.param


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_the_device_is_a_gpu_where_there_is_one(profile, gpu):
    assert runs.find_device(None, profile).type == ("cuda" if gpu else "cpu")


def test_float32_convolutions_are_not_rounded_to_tensorfloat(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    begin()
    assert not torch.backends.cudnn.allow_tf32


def test_the_paper_profile_wants_a_gpu_at_the_start_unless_the_cpu_is_insisted_on(gpu):
    assert begin(profile="paper").device == torch.device("cpu")
    if gpu:
        assert runs.find_device(None, "paper").type == "cuda"
    else:
        with pytest.raises(ParameterError, match=r"profile='paper'.*CUDA.*cpu"):
            begin(profile="paper", device=None)


def test_a_named_device_must_be_there(gpu):
    if gpu:
        assert runs.find_device("cuda", "quick").type == "cuda"
    else:
        with pytest.raises(ParameterError, match=r"device='cuda'.* cpu"):
            runs.find_device("cuda", "quick")


# ---- provenance ----


def test_provenance_says_where_the_numbers_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    monkeypatch.setattr(provenance, "started_from", lambda: "abc123")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "spots.py").write_text("x = 1\n")
    run = begin(epsilon=0.1)
    shelf.note("images-2", {})
    shelf.note("fit-1", {})
    stated = run.provenance(train="abc")
    assert stated["parameters"] == {
        **PROFILES["quick"],
        "profile": "quick",
        "models": ("C", "D"),
        "epsilon": 0.1,
    }
    assert stated["datasets"] == {"train": "abc"}
    assert stated["source_hash"] == provenance.source_hash(tmp_path / "chapters" / "spots.py")
    assert stated["git_commit"] == "abc123"
    assert stated["artifacts"] == ["fit-1", "images-2"], "whatever the run has used, by name"
    assert stated["seconds"] >= 0
    assert stated["date"].count("-") == 2
