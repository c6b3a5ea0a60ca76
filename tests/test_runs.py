"""Parameters, profiles, devices and provenance: every wrong value stops with a message that says what is allowed."""

import copy
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from robustutils import runs
from robustutils.runs import Between, OneOf, ParameterError, SomeOf

PROFILES = {
    "quick": {"dataset": "digits", "models": "C,D", "epsilon": 0.3, "steps": 4, "seed": 0, "n_seeds": 1},
    "standard": {"dataset": "mnist", "models": "B*,C,D", "epsilon": 0.3, "steps": 9, "seed": 0, "n_seeds": 3},
    "paper": {"dataset": "mnist", "models": "B*,C,D", "epsilon": 0.3, "steps": 99, "seed": 0, "n_seeds": 5},
}
ALLOWED = {
    "dataset": OneOf(("digits", "mnist", "fashion_mnist")),
    "models": SomeOf(("B*", "C", "D")),
    "epsilon": Between(0.01, 1.0),
    "steps": Between(1, 100),
    "seed": Between(0, 10**6),
    "n_seeds": Between(1, 20),
}


def table(profiles):
    """The parameters as ``runs.start`` wants them: quick, standard, paper, what is allowed."""
    return {name: (*(profiles[p][name] for p in runs.PROFILES), rule) for name, rule in ALLOWED.items()}


def begin(injected: str = "", **namespace):
    """A run of a notebook whose parameters cell sets ``namespace``, and into which papermill injected a cell."""
    declared = {"profile": "quick", "device": "cpu", **dict.fromkeys(ALLOWED)}
    cells = ["", "profile = 'quick'", *([f"# Parameters\n{injected}"] if injected else [])]
    return runs.start("spots", {**declared, **namespace, "In": cells}, table(PROFILES))


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
    parsed = rule.parse("x", value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("dataset", "mnits", "dataset='mnits' (did you mean 'mnist'?): allowed are digits, mnist, fashion_mnist"),
    ("dataset", "imagenet", "dataset='imagenet': allowed are digits, mnist, fashion_mnist"),
    ("dataset", 3, "dataset=3: allowed are digits, mnist, fashion_mnist"),
    ("models", "C,E", "models='E': allowed are B*, C, D"),
    ("models", ["C", 1], "models=1: allowed are B*, C, D"),
    ("models", [], "models=[]: allowed are B*, C, D, at least one"),
    ("models", 5, "models=5: allowed are B*, C, D, at least one"),
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
        ALLOWED[name].parse(name, value)
    assert str(caught.value) == message


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


def test_the_defaults_of_a_profile_are_checked_too():
    wrong = {**PROFILES, "quick": {**PROFILES["quick"], "steps": 0}}
    namespace = {"profile": "quick", "device": "cpu", **dict.fromkeys(ALLOWED)}
    with pytest.raises(ParameterError, match="steps=0"):
        runs.start("spots", namespace, table(wrong))


def test_an_attribute_that_is_no_parameter_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'epsilom' is no parameter of this run"):
        _ = begin().epsilom


def test_a_run_can_be_copied():
    run = begin()
    assert copy.copy(run) == run


@pytest.mark.parametrize(("injected", "namespace", "message"), [
    ("profile = 'fast'", {"profile": "fast"}, "profile='fast': allowed are quick, standard, paper"),
    ("profile = 'standart'", {"profile": "standart"},
     "profile='standart' (did you mean 'standard'?): allowed are quick, standard, paper"),
    ("dataset = 'mnits'", {"dataset": "mnits"}, "dataset='mnits' (did you mean 'mnist'?): allowed are"),
    ("epsilon = 5", {"epsilon": 5}, "epsilon=5: must be a number from 0.01 to 1.0"),
    ("epsilom = 0.1", {"epsilom": 0.1}, "unknown parameter 'epsilom' (did you mean 'epsilon'?); spots has "
     "profile, device, dataset, models, epsilon, steps, seed, n_seeds"),
    ("colour = 'red'", {}, "unknown parameter 'colour'; spots has profile, device"),
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
        with pytest.raises(
            ParameterError, match=r"profile='paper' needs a CUDA GPU and there is none; .*cpu"
        ):
            begin(profile="paper", device=None)


def test_a_named_device_must_be_there(gpu):
    if gpu:
        assert runs.find_device("cuda", "quick").type == "cuda"
    else:
        with pytest.raises(ParameterError, match=r"device='cuda': allowed are cpu \(no CUDA GPU is there\)"):
            runs.find_device("cuda", "quick")


# ---- provenance ----


def test_provenance_says_where_the_numbers_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "repository", lambda: tmp_path)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "spots.py").write_text("x = 1\n")
    stated = begin(epsilon=0.1).provenance(train="abc")
    assert stated["parameters"] == {
        **PROFILES["quick"],
        "profile": "quick",
        "models": ("C", "D"),
        "epsilon": 0.1,
    }
    assert stated["datasets"] == {"train": "abc"}
    assert stated["source_hash"] == provenance.source_hash(tmp_path / "chapters" / "spots.py")
    assert stated["git_commit"] == "", "a copy without .git has no commit"
    assert stated["seconds"] >= 0
    assert stated["date"].count("-") == 2


def test_the_environment_names_versions_and_hardware_but_no_place():
    found = provenance.environment(torch.device("cpu"))
    assert set(found) == {
        "python", "torch", "torchvision", "numpy", "scipy", "scikit-learn",
        "platform", "processor", "threads", "device", "cores",
    }  # fmt: skip
    assert all(isinstance(value, str) for value in found.values())
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert str(Path.home()) not in " ".join(found.values())


def test_the_commit_carries_a_plus_while_tracked_files_have_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "repository", lambda: tmp_path)

    def git(*words):
        author = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    clean = provenance.git_commit()
    assert len(clean) == 12
    assert set(clean) <= set("0123456789abcdef")
    (tmp_path / "new").write_text("untracked files do not count")
    assert provenance.git_commit() == clean
    (tmp_path / "a").write_text("2")
    assert provenance.git_commit() == f"{clean}+"


# ---- the hash that makes a page stale ----

CHAPTER = """# %% [markdown]
# # A title

# %%
from robustutils import attacks
from robustutils.threats import Linf

x = attacks.FGSM(eps=0.1)
"""


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package that ``source_hash`` looks at."""
    folder = tmp_path / "robustutils"
    shutil.copytree(
        Path(runs.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__", "_font_files.py")
    )
    monkeypatch.setattr(runs, "__file__", str(folder / "runs.py"))
    return folder


def hash_of(folder: Path, text: str = CHAPTER) -> str:
    path = folder / "spots.py"
    path.write_text(text)
    return provenance.source_hash(path)


@pytest.mark.parametrize(("old", "new", "same"), [
    ("# # A title", "# # Another title\n# with a line more", True),
    ("x = attacks", "# why\nx = attacks", True),
    ("FGSM(eps=0.1)", "FGSM(\n    eps=0.1\n)", True),
    ("# %% [markdown]", '"""What this is."""\n# %% [markdown]', True),
    ("eps=0.1", "eps=0.2", False),
    ("x = attacks", "y = attacks", False),
    ("FGSM", "RFGSM", False),
])  # fmt: skip
def test_the_hash_follows_the_chapters_code_alone(package, old, new, same):
    assert CHAPTER.count(old) >= 1
    assert (hash_of(package, CHAPTER.replace(old, new)) == hash_of(package)) is same


@pytest.mark.parametrize(("module", "why", "same"), [
    ("attacks", "imported by the chapter", False),
    ("threats", "a name of it is imported", False),
    ("scoreboard", "not imported", True),
    ("pipeline", "never imported", True),
])  # fmt: skip
def test_the_hash_follows_the_code_of_the_modules_it_reaches(package, module, why, same):
    before = hash_of(package)
    source = package / f"{module}.py"
    source.write_text(f"{source.read_text()}\n\nextra = 1\n")
    assert (hash_of(package) == before) is same, why


def test_the_hash_follows_imports_of_imports_and_every_form_of_import(package):
    for name, text in {
        "one": "from robustutils import two\n",
        "two": "import robustutils.three as three\n",
        "three": "from robustutils.four import something\n",
        "four": "import torch\nsomething = 1\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    chapter = "def later():\n    from robustutils import one\n    return one\n"
    before = hash_of(package, chapter)
    (package / "four.py").write_text("import torch\n# a comment\nsomething = 1\n")
    assert hash_of(package, chapter) == before
    (package / "four.py").write_text("import torch\nsomething = 2\n")
    assert hash_of(package, chapter) != before


def test_comments_docstrings_annotations_and_layout_of_a_module_do_not_count(package):
    plain = "def f(x):\n    return x + 1\n\n\nclass A:\n    y = 2\n"
    dressed = (
        '"""A module."""\n\n# why\ndef f(x: int) -> int:\n    """One more."""\n    return (\n        x + 1\n    )\n'
        '\nclass A:\n    """A class."""\n    y = 2  # two\n'
    )
    chapter = "from robustutils import extra\n"
    (package / "extra.py").write_text(plain)
    before = hash_of(package, chapter)
    (package / "extra.py").write_text(dressed)
    assert hash_of(package, chapter) == before
    (package / "extra.py").write_text(plain.replace("x + 1", "x + 2"))
    assert hash_of(package, chapter) != before
