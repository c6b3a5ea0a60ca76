"""How the code hangs together: who imports whom, what is documented, what is pinned."""

import ast
import doctest
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustutils
from robustutils import models, provenance, recipes, registry

ROOT = provenance.repository()
PACKAGE = ROOT / "robustutils"
FILES = sorted(PACKAGE.rglob("*.py"))
CHAPTERS = sorted((ROOT / "chapters").glob("*.py"))
PAPERS = sorted(path.name for path in (PACKAGE / "papers").iterdir() if (path / "__init__.py").exists())

BUDGETS = {
    "top": 5800,
    "book": 3015,
    "tools": 970,
    "papers/ensemble": 700,
    "papers/disentangling": 2645,
    "papers/blind_spot": 1405,
    "papers/invariance": 1750,
}
"""Most lines of each folder. A budget is raised by a commit that says what the new lines give a user."""
MOST_LINES = 16_280
"""Of the whole package."""
EXCEPTIONS = {
    "book.catalogue": {f"papers/{name}" for name in PAPERS},
    "__main__": {
        "book",
        "tools",
        "papers/disentangling",
    },  # the command that makes FONTS of a folder of fonts
}
"""Modules that may import from more rooms than their own room may, and from which."""
EXECUTION = {"papermill", "jupytext", "nbclient", "nbformat", "jupyter_book"}


def name_of(path: Path) -> str:
    """A module of the package by its name below ``robustutils``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(path: Path) -> str:
    """The room that a module of the package stands in."""
    parts = path.relative_to(PACKAGE).parts
    if parts[0] == "papers":
        return "/".join(parts[:2]) if len(parts) > 2 else "top"
    return parts[0] if parts[0] in BUDGETS else "top"


def modules_of(path: Path) -> set[Path]:
    """The modules of the package that a file imports anywhere."""
    tree = ast.parse(path.read_text())
    relative = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path} imports relatively in lines {relative}"
    found = {file for name in provenance.imported(tree) for file in provenance.files_of(name, PACKAGE)}
    return {file for file in found if file.name != "__init__.py" or file.parent.name == "data"}


GRAPH = {path: modules_of(path) for path in FILES}


def outside(path: Path) -> set[str]:
    """The packages that a file imports, by their first name."""
    return {name.split(".")[0] for name in provenance.imported(ast.parse(path.read_text()))}


# ---- who imports whom ----


def test_the_import_graph_is_seen():
    assert not set(PAPERS) - PAGES.keys(), "a paper's folder needs its pages in PAGES of this file"
    rooms = {f"papers/{name}" for name in PAPERS}
    assert not rooms - BUDGETS.keys(), "a paper's folder needs a budget of lines in BUDGETS of this file"
    assert {room_of(path) for path in FILES} == BUDGETS.keys()
    assert PACKAGE / "threats.py" in GRAPH[PACKAGE / "attacks.py"]
    assert PACKAGE / "data" / "__init__.py" in GRAPH[PACKAGE / "evaluation.py"]
    assert PACKAGE / "papers" / "blind_spot" / "blind_spots.py" in GRAPH[PACKAGE / "tools" / "examine.py"]
    assert GRAPH[PACKAGE / "threats.py"] == set()


def allowed_rooms(path: Path) -> set[str]:
    """Where a module of the package may import from."""
    room = room_of(path)
    papers = {f"papers/{name}" for name in PAPERS} if room == "tools" else set()
    return {"top", room} | papers | EXCEPTIONS.get(name_of(path), set())


def test_imports_go_from_a_room_to_the_top_and_from_no_paper_to_another():
    wrong = [
        f"{name_of(path)} imports {name_of(other)}"
        for path, others in GRAPH.items()
        for other in others
        if room_of(other) not in allowed_rooms(path)
    ]
    assert wrong == []


def test_a_chapter_imports_the_top_its_own_paper_the_study_and_the_tools():
    for path in CHAPTERS:
        modules = modules_of(path)
        papers = {room_of(file) for file in modules if room_of(file).startswith("papers/")}
        assert len(papers) <= 1, f"{path.name} imports from {sorted(papers)}"
        book = {name_of(file) for file in modules if room_of(file) == "book"}
        assert book <= {"book.study", "book.parameters"}, f"{path.name}: {sorted(book)}"
        private = {name_of(file) for file in modules if file.name[0] == "_" and file.name != "__init__.py"}
        assert not private, f"{path.name} uses {sorted(private)}"
        others = {other.stem for other in CHAPTERS}
        assert not outside(path) & {"papermill", "chapters", *others}, path.name


def test_nothing_imports_a_chapter_and_execution_belongs_to_the_pipeline():
    strangers = {"chapters", "tests", "benchmarks", *(path.stem for path in CHAPTERS)}
    for path in FILES:
        forbidden = strangers if name_of(path) in ("book.pipeline", "__main__") else strangers | EXECUTION
        assert not outside(path) & forbidden, f"{name_of(path)}: {sorted(outside(path) & forbidden)}"
        if path != PACKAGE / "__main__.py":
            assert not GRAPH[path] & {PACKAGE / "book" / "pipeline.py", PACKAGE / "__main__.py"}, name_of(
                path
            )


def test_there_is_no_import_cycle():
    left = {path: others - {path} for path, others in GRAPH.items()}
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    assert left == {}, f"a cycle among {', '.join(sorted(map(name_of, left)))}"


def test_every_room_keeps_its_budget():
    lines: dict[str, int] = dict.fromkeys([*BUDGETS, *map(room_of, FILES)], 0)
    for path in FILES:
        lines[room_of(path)] += len(path.read_text().splitlines())
    budgets = {room: BUDGETS.get(room, 0) for room in lines}
    over = [
        f"{room} has {found} lines, its budget is {budgets[room]}"
        for room, found in lines.items()
        if found > budgets[room]
    ]
    assert over == [], (
        f"{'; '.join(over)}: write less, or raise BUDGETS in a commit that says what the lines give a user"
    )
    assert sum(lines.values()) <= MOST_LINES


def test_every_folder_has_its_api_page():
    text = "".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
    for room in BUDGETS:
        assert f"<!-- modules: {room} -->".replace(" top", "") in text, room


def test_what_a_paper_provides_is_there_and_nothing_else():
    tables = {"models": "ARCHITECTURES", "recipes": "RECIPES", "data": "READERS"}
    for paper in registry.paper_packages():
        for module, names in paper.PROVIDES.items():
            found = getattr(importlib.import_module(f"{paper.__name__}.{module}"), tables[module])
            assert sorted(names) == sorted(found), f"{paper.__name__}.{module}"
    for module, table in (("models", models.ARCHITECTURES), ("recipes", recipes.RECIPES), ("data", {})):
        every = registry.names(module, table)
        assert len(set(every)) == len(every), f"two papers share a name of {module}"


PAGES = {
    "ensemble": {"ensemble_adversarial_training"},
    "disentangling": {"disentangling"},
    "blind_spot": {"blind_spot", "examine"},  # the examination of a model looks at its blind spots
    "invariance": {"excessive_invariance"},
}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_change_in_one_papers_folder_leaves_the_labels_of_other_pages_alone(paper, tmp_path, monkeypatch):
    copy = tmp_path / "robustutils"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(copy / "provenance.py"))
    before = {path.stem: provenance.source_hash(path) for path in CHAPTERS}
    for changed in (copy / "papers" / paper).glob("*.py"):
        changed.write_text(f"{changed.read_text()}\n\nCHANGED = 1\n")
    touched = {path.stem for path in CHAPTERS if provenance.source_hash(path) != before[path.stem]}
    assert touched == PAGES.get(paper), f"PAGES of this file says which chapters import papers/{paper}"


IMPORT_EACH_ANEW = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [module for module in sys.modules if module.split(".")[0] == "robustutils"]:
        if loaded != "robustutils.data._torchvision":  # it registers operators, which a process can do once
            del sys.modules[loaded]
    importlib.import_module(name)
"""


def test_every_module_can_be_imported_first_and_without_a_warning():
    names = [f"robustutils.{name_of(path)}" for path in FILES if path != PACKAGE / "__init__.py"]
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ANEW, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- what is documented ----


def test_public_names_have_a_docstring_and_public_functions_types():
    for path in FILES:
        tree, name = ast.parse(path.read_text()), name_of(path)
        assert ast.get_docstring(tree), f"{name} says nothing about itself"
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                untyped = [argument.arg for argument in arguments if argument.annotation is None]
                assert not untyped, f"{name}.{node.name}: no type for {', '.join(untyped)}"
                assert node.returns is not None, f"{name}.{node.name} does not say what it returns"


def test_library_code_does_not_print():
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [
            call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
        ]
        assert path.name == "__main__.py" or not prints, f"{name_of(path)} prints in lines {prints}"


def test_text_is_read_and_written_as_utf_8():
    text_methods, guessed = ("read_text", "write_text", "open"), []
    for path in [*FILES, *CHAPTERS, *(ROOT / "book" / "_extensions").glob("*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            of = getattr(getattr(call.func, "value", None), "id", "")
            modes = [value.value for value in call.args if isinstance(value, ast.Constant)]
            binary = any(isinstance(mode, str) and re.fullmatch(r"[rwxa]\+?b\+?", mode) for mode in modes)
            named = any(word.arg == "encoding" for word in call.keywords) or binary
            if name in text_methods and of not in ("os", "Image", "zipfile") and not named:
                guessed.append(f"{path.name}:{call.lineno}")
    assert guessed == [], "the encoding of the machine is taken there"


def test_the_examples_of_docstrings_are_true():
    names = [name_of(path) for path in FILES if ">>>" in path.read_text()]
    results = {name: doctest.testmod(importlib.import_module(f"robustutils.{name}")) for name in names}
    assert sum(result.attempted for result in results.values()) > 0
    assert [name for name, result in results.items() if result.failed] == []


# ---- what is pinned ----


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, the extras included."""
    extras = project()["optional-dependencies"].values()
    return [
        Requirement(line)
        for line in [*project()["dependencies"], *(line for lines in extras for line in lines)]
    ]


BUILDS = {"torch", "torchvision"}
"""Packages with many builds, each with a hash of its own."""


def pins() -> dict[str, str]:
    """The version of each package that the lock and the constraints pin."""
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "constraints.txt").read_text()
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def test_the_lock_pins_exact_versions_with_their_hashes_and_leaves_builds_open():
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.txt").read_text().strip())
    entry = r"[\w.-]+==[0-9][\w.]*( ;[^\\\n]*)?( \\\n    --hash=sha256:[0-9a-f]{64})+"
    assert [found.splitlines()[0] for found in entries if not re.fullmatch(entry, found)] == []
    names = [canonicalize_name(found.split("==")[0]) for found in entries]
    assert len(set(names)) == len(names), "each package once"
    assert not BUILDS & set(names)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines if not line.startswith("#")} == BUILDS


def test_actions_are_pinned_by_commit():
    used = re.findall(r"uses: (\S+)", (ROOT / ".github" / "workflows" / "book.yml").read_text())
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_a_range_and_pinned_within_it(requirement):
    assert not any(part.operator in ("==", "===") for part in requirement.specifier), (
        "ranges in pyproject.toml"
    )
    assert len(requirement.specifier) > 0, "a least version"
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"neither requirements.txt nor constraints.txt pins {name}"
    assert requirement.specifier.contains(pins()[name]), f"{requirement} excludes the pinned {pins()[name]}"


def test_what_dependencies_depend_on_is_pinned_too():
    loose, seen = set(), set()
    stack = [requirement for requirement in requirements() if installed(requirement.name)]
    while stack:
        requirement = stack.pop()
        name = canonicalize_name(requirement.name)
        exact = any(
            part.operator == "==" for part in requirement.specifier
        )  # as torch pins its CUDA libraries
        if name not in pins() and not exact:
            loose.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in metadata.requires(name) or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    stack += [needed] if installed(needed.name) else []
    assert len(seen) > 50, "the walk reaches the whole environment"
    assert sorted(loose) == [], "packages that requirements.txt leaves open"


def installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_third_party_imports_of_the_package_are_declared():
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    providers = metadata.packages_distributions()
    used = {name for path in FILES for name in outside(path)}
    third_party = used - set(sys.stdlib_module_names) - {"robustutils"}
    undeclared = {
        name
        for name in third_party
        if not {canonicalize_name(found) for found in providers.get(name, ())} & declared
    }
    assert undeclared <= {"torchattacks"}, "a peer, used where it is installed"


def test_the_version_is_stated_once():
    assert "version" in project()["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", robustutils.__version__)
