"""How the code hangs together: who imports whom, what is documented, what is pinned."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustutils
from robustutils import provenance

ROOT = provenance.repository()
PACKAGE = ROOT / "robustutils"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
PUBLIC = [name for name in MODULES if not name.startswith("_")]
LIBRARY = [name for name in PUBLIC if name != "pipeline"]
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, in full: ``robustutils.threats``, ``torch.nn``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively in line {node.lineno}"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def siblings(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their short names."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("robustutils.")}
    return found & set(MODULES)


GRAPH = {name: siblings(PACKAGE / f"{name}.py") for name in MODULES}


# ---- who imports whom ----


def test_the_import_graph_is_seen():
    assert GRAPH["__main__"] >= {"pipeline", "parameters"}
    assert "threats" in GRAPH["attacks"]
    assert GRAPH["threats"] == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_chapter_or_the_pipeline(module):
    allowed = {"pipeline"} if module == "__main__" else set()
    assert GRAPH[module] & {"pipeline", "__main__"} <= allowed
    outside = {name.split(".")[0] for name in imported(PACKAGE / f"{module}.py")}
    assert not outside & {"chapters", "tests", "benchmarks", *CHAPTERS}
    if module not in ("pipeline", "__main__"):
        assert not outside & {"papermill", "jupytext", "nbclient", "nbformat", "jupyter_book"}, (
            "execution and rendering belong to the pipeline"
        )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_chapter_imports_another_or_the_pipeline(chapter):
    path = ROOT / "chapters" / f"{chapter}.py"
    assert not siblings(path) & {"pipeline", "__main__"}
    assert not {name.split(".")[0] for name in imported(path)} & {"papermill", "chapters", *CHAPTERS}
    private = sorted(name for name in siblings(path) if name.startswith("_"))
    assert private == [], "a chapter uses public modules"


def test_there_is_no_import_cycle():
    left = {name: set(imports) for name, imports in GRAPH.items()}
    while free := [name for name, imports in left.items() if not imports & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}, f"a cycle among {', '.join(sorted(left))}"


def test_every_public_module_is_in_one_group():
    grouped = [name for modules in robustutils.GROUPS.values() for name in modules]
    assert sorted(grouped) == sorted(LIBRARY)


def test_every_group_has_its_api_page():
    pages = {path.stem: path.read_text() for path in (ROOT / "book" / "api").glob("*.md")}
    assert pages.keys() == robustutils.GROUPS.keys()
    assert all(f"<!-- modules: {group} -->" in text for group, text in pages.items())


IMPORT_EACH_ANEW = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [module for module in sys.modules if module.split(".")[0] == "robustutils"]:
        if loaded != "robustutils._torchvision":  # it registers operators, which a process can do once
            del sys.modules[loaded]
    importlib.import_module(f"robustutils.{name}")
"""


def test_every_module_can_be_imported_first_and_without_a_warning():
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ANEW, *MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


# ---- what is documented ----


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_a_docstring_and_public_functions_types(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    assert ast.get_docstring(tree), f"{module} says nothing about itself"
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [argument.arg for argument in arguments if argument.annotation is None]
            assert not untyped, f"{module}.{node.name}: no type for {', '.join(untyped)}"
            assert node.returns is not None, f"{module}.{node.name} does not say what it returns"


@pytest.mark.parametrize("module", MODULES)
def test_library_code_does_not_print(module):
    if module == "__main__":
        return
    calls = [
        node
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
        if isinstance(node, ast.Call)
    ]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


WITH_EXAMPLES = [name for name in MODULES if ">>>" in (PACKAGE / f"{name}.py").read_text()]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_docstrings_are_true(module):
    result = doctest.testmod(importlib.import_module(f"robustutils.{module}"))
    assert result.failed == 0


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


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stated = [line.split("#")[0].strip() for line in lines]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in stated if "==" in line}


def test_constraints_are_exact_pins_and_nothing_else():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    wrong = [
        line for line in lines if line and not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)
    ]
    assert wrong == [], "an exact version, without a local part, a marker or an address"
    names = [canonicalize_name(line.split("==")[0]) for line in lines if line]
    assert len(set(names)) == len(names), "each package once"


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_a_range_and_pinned_within_it(requirement):
    assert not any(part.operator in ("==", "===") for part in requirement.specifier), (
        "ranges in pyproject.toml"
    )
    assert len(requirement.specifier) > 0, "a least version"
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"constraints.txt does not pin {name}"
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
    assert sorted(loose) == [], "packages that constraints.txt leaves open"


def installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_third_party_imports_of_the_package_are_declared():
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    providers = metadata.packages_distributions()
    used = {name.split(".")[0] for module in MODULES for name in imported(PACKAGE / f"{module}.py")}
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
