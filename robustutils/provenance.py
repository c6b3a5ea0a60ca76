"""Where a number comes from: the commit, the libraries and the machine that made it."""

import ast
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import torch

log = logging.getLogger(__name__)
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn")


def repository() -> Path:
    """The checkout that this package belongs to: the folder above the package.

    A package that was installed by copying has none; then it is the nearest checkout around the working folder, if any.
    """
    home = Path(__file__).resolve().parent.parent
    around = (Path.cwd(), *Path.cwd().parents)
    return next((place for place in (home, *around) if (place / "chapters").is_dir()), home)


class NoCommit(ValueError):
    """Git does not say what the checkout holds; the message has git's own words."""


def git(*words: str) -> str:
    """What git says of the checkout; empty outside a checkout.

    Raises:
        NoCommit: there is no git, or it refuses, such as a checkout of another user.
    """
    if not (repository() / ".git").exists():
        return ""
    command = ["git", "-C", str(repository()), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    except FileNotFoundError as error:
        raise NoCommit("there is no git here, which says what code this is: install it") from error
    except subprocess.CalledProcessError as error:
        raise NoCommit(f"git does not say what code this is: {' '.join(error.stderr.split())}") from error
    return done.stdout.strip()


def git_commit() -> str:
    """The checkout's commit, with ``+`` where tracked files have changed; empty outside a checkout.

    Where git does not say it, it is empty too, and the reason is logged: evidence asks :func:`git` first.
    """
    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+" if commit and git("status", "--porcelain", "--untracked-files=no") else commit
    except NoCommit as reason:
        log.warning("%s", reason)
        return ""


@functools.cache
def started_from() -> str:
    """:func:`git_commit` at the first call: of the code that this process has imported, whatever is edited later."""
    return git_commit()


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": str(os.cpu_count()),
    }


def certificate(
    device: torch.device, precision: torch.dtype, seconds: float, threads: int
) -> dict[str, str | float]:
    """The birth certificate of an artifact: commit, date, versions, machine, effective precision, seconds of making."""
    return {
        "commit": started_from(),
        "date": datetime.now(UTC).date().isoformat(),
        **environment(device),
        "threads": str(threads),
        "precision": str(precision).removeprefix("torch."),
        "seconds": round(seconds, 2),
    }


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def bare_tree(source: str) -> ast.Module:
    """The syntax tree of ``source`` without docstrings and without annotations of functions."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def source_hash(source: Path) -> str:
    """SHA-256 of a chapter's code and of the package modules it reaches, comments and docstrings stripped.

    A module is reached by an import, and with one module of a paper's folder all of that folder, which is looked into by
    name. Published pages carry the hash; a page whose hash has moved on since it was last checked says so.
    """
    package = Path(__file__).resolve().parent
    seen: dict[str, str] = {}
    stack = [source]
    while stack:
        path = stack.pop()
        known = str(path.relative_to(package)) if path.is_relative_to(package) else path.name
        if known in seen:
            continue
        tree = bare_tree(path.read_text(encoding="utf-8"))
        seen[known] = ast.dump(tree)
        stack += [file for name in imported(tree) for file in files_of(name, package)]
        if path.parent.parent == package / "papers":
            stack += path.parent.glob("*.py")
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()


def imported(tree: ast.AST) -> set[str]:
    """Everything that a module imports anywhere, in full: ``torch.nn``, ``robustutils.threats``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def files_of(name: str, package: Path) -> list[Path]:
    """The file of a module of the package in the folder ``package``, by its full name; none where it is no module."""
    top, *parts = name.split(".")
    place = package.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_suffix(".py")) if parts else ()
    return [file for file in candidates if top == package.name and file.is_file()]
