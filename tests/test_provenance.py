"""Commits, versions and machines behind a number, and the hash that makes a page stale."""

import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest
import torch

from robustutils import provenance
from robustutils.book.claims import Claims

CPU = torch.device("cpu")


# ---- where a number comes from ----


def test_the_environment_names_versions_and_hardware_but_no_place():
    found = provenance.environment(CPU)
    assert set(found) == {
        "python", "torch", "torchvision", "numpy", "scipy", "scikit-learn",
        "platform", "processor", "threads", "device", "cores",
    }  # fmt: skip
    assert all(isinstance(value, str) for value in found.values())
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert str(Path.home()) not in " ".join(found.values())


def test_the_commit_carries_a_plus_while_tracked_files_have_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)

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


def test_a_copy_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    assert provenance.git_commit() == ""


def test_a_process_goes_on_under_the_commit_it_has_started_from(monkeypatch, request):
    """The code that was imported is what computes, whatever is committed meanwhile."""
    commits = iter(["first", "second"])
    monkeypatch.setattr(provenance, "git_commit", lambda: next(commits))
    request.addfinalizer(provenance.started_from.cache_clear)
    provenance.started_from.cache_clear()
    assert [provenance.started_from() for _ in range(2)] == ["first", "first"]
    assert provenance.certificate(CPU, torch.float32, 1, 1)["commit"] == "first"


def test_a_certificate_says_what_made_a_number_and_when(monkeypatch):
    monkeypatch.setattr(provenance, "started_from", lambda: "abc123+")
    before = datetime.now(UTC).date().isoformat()
    found = provenance.certificate(CPU, torch.bfloat16, 12.3456, 3)
    assert before <= found.pop("date") <= datetime.now(UTC).date().isoformat()
    assert found.pop("commit") == "abc123+"
    assert found.pop("precision") == "bfloat16"
    assert found.pop("seconds") == 12.35
    assert found.pop("threads") == "3", "those of the work, whatever the process has"
    rest = provenance.environment(CPU)
    assert found == {name: rest[name] for name in rest if name != "threads"}
    assert found["device"] == "cpu"
    assert {name: found[name] for name in provenance.PACKAGES} == {
        name: metadata.version(name) for name in provenance.PACKAGES
    }


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
    shutil.copytree(Path(provenance.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
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
    ("book/scoreboard", "not imported", True),
    ("book/pipeline", "never imported", True),
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


# ---- a package without a checkout ----


def test_an_installed_package_takes_the_checkout_around_the_working_folder(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "robustutils" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(installed))
    notebooks = tmp_path / "clone" / "chapters"
    notebooks.mkdir(parents=True)
    monkeypatch.chdir(notebooks)
    assert provenance.repository() == tmp_path / "clone"


def test_a_chapter_without_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site-packages" / "robustutils" / "x.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="Clone"):
        Claims.of("blind_spot")


@pytest.mark.parametrize(("script", "reason"), [
    ("echo 'fatal: detected dubious ownership in repository' >&2; exit 128", "dubious ownership"),
    ("echo 'fatal: bad object HEAD' >&2; exit 128", "bad object"),
    (None, "no git here"),
])  # fmt: skip
def test_git_that_does_not_answer_is_said_and_stops_evidence(tmp_path, monkeypatch, caplog, script, reason):
    (tmp_path / ".git").mkdir()
    (tmp_path / "bin").mkdir()
    if script:
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    with pytest.raises(provenance.NoCommit, match=reason):
        provenance.git("status")
    assert provenance.git_commit() == ""
    assert reason in caplog.text
