"""One run of a chapter: its profile and parameters, its device, and where its numbers come from."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import torch

from robustutils import memory
from robustutils.artifacts import bare_tree

PROFILES = ("quick", "standard", "paper")


class ParameterError(ValueError):
    """A chapter got a parameter it cannot use; a notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Allowed(Protocol):
    """What values a parameter may take."""

    def parse(self, name: str, value: Any) -> Any:
        """The value, or a ParameterError that names it and what is allowed."""
        ...


@dataclass(frozen=True)
class OneOf:
    """One of some names."""

    options: Sequence[str]

    def parse(self, name: str, value: Any) -> str:
        """The value itself."""
        if value not in self.options:
            near = get_close_matches(str(value), self.options, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ParameterError(f"{name}={value!r}{hint}: allowed are {', '.join(self.options)}")
        return str(value)


@dataclass(frozen=True)
class SomeOf:
    """A selection of names, as a list or as a string with commas."""

    options: Sequence[str]

    def parse(self, name: str, value: Any) -> tuple[str, ...]:
        """The selected names in the order of the options, each once."""
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)) or not parts:
            raise ParameterError(f"{name}={value!r}: allowed are {', '.join(self.options)}, at least one")
        chosen = [part.strip() if isinstance(part, str) else part for part in parts]
        for part in chosen:
            OneOf(self.options).parse(name, part)
        return tuple(option for option in self.options if option in chosen)


@dataclass(frozen=True)
class Between:
    """A number in a closed interval; a whole one if both ends are whole numbers given as int."""

    low: float
    high: float

    def parse(self, name: str, value: Any) -> float:
        """The value as int or float."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        kind = "a whole number" if whole else "a number"
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            raise ParameterError(f"{name}={value!r}: must be {kind} from {self.low} to {self.high}")
        return value if whole else float(value)


@dataclass(frozen=True)
class Text:
    """Any text, or nothing."""

    def parse(self, name: str, value: Any) -> str | None:
        """The value itself."""
        if value is not None and not isinstance(value, str):
            raise ParameterError(f"{name}={value!r}: must be a text")
        return value


@dataclass(frozen=True)
class Run:
    """A checked set of parameters; each is an attribute, for example ``run.epsilon``."""

    chapter: str
    profile: str
    parameters: Mapping[str, Any]
    device: torch.device
    started: float = field(default_factory=time.perf_counter)

    def __getattr__(self, name: str) -> Any:
        parameters = vars(self).get("parameters", {})
        if name not in parameters:
            raise AttributeError(f"{name!r} is no parameter of this run")
        return parameters[name]

    @property
    def seeds(self) -> range:
        """The training seeds: ``n_seeds`` of them from ``seed`` on."""
        return range(self.parameters["seed"], self.parameters["seed"] + self.parameters["n_seeds"])

    def provenance(self, **fingerprints: str) -> dict[str, Any]:
        """Where the numbers come from: parameters, data, code, machine, date and seconds so far."""
        source = repository() / "chapters" / f"{self.chapter}.py"
        return {
            "parameters": {"profile": self.profile, **self.parameters},
            "datasets": fingerprints,
            "environment": environment(self.device),
            "source_hash": source_hash(source) if source.exists() else "",
            "git_commit": git_commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(time.perf_counter() - self.started, 1),
        }


def start(
    chapter: str,
    namespace: Mapping[str, Any],
    parameters: Mapping[str, tuple[Any, Any, Any, Allowed]],
) -> Run:
    """Check a notebook's parameters and settle its profile: the first call of every chapter.

    Args:
        chapter: the chapter's name.
        namespace: the notebook's ``globals()``: every parameter must be there, ``None`` standing for the
            profile's value. What papermill injected is compared with these names, so that a misspelt
            parameter is an error.
        parameters: for each name its value in the profiles quick, standard and paper, and what it may be.

    Raises:
        ParameterError: an unknown profile or parameter, or a value that is not allowed.
    """
    memory.keep_freed_blocks()
    torch.backends.cudnn.allow_tf32 = False  # float32 on a GPU is float32
    profile = OneOf(PROFILES).parse("profile", namespace["profile"])
    declared = ("profile", "device", *parameters)
    for name in injected_names(namespace):
        if name not in declared:
            near = get_close_matches(name, declared, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ParameterError(f"unknown parameter {name!r}{hint}; {chapter} has {', '.join(declared)}")
    column = PROFILES.index(profile)
    settled = {
        name: row[3].parse(name, row[column] if namespace[name] is None else namespace[name])
        for name, row in parameters.items()
    }
    return Run(chapter, profile, settled, find_device(namespace["device"], profile))


def injected_names(namespace: Mapping[str, Any]) -> list[str]:
    """The names assigned in the cell that papermill injected; none outside papermill."""
    cells = [str(cell) for cell in namespace.get("In", ()) if str(cell).startswith("# Parameters")]
    return [
        target.id
        for cell in cells
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def find_device(name: str | None, profile: str) -> torch.device:
    """The device of a run: the named one, else CUDA where there is one, else the CPU.

    Raises:
        ParameterError: the ``paper`` profile without a GPU and without ``device="cpu"``, or a name torch lacks.
    """
    available = torch.cuda.is_available()
    if name is None:
        if profile == "paper" and not available:
            raise ParameterError("profile='paper' needs a CUDA GPU and there is none; -p device cpu insists")
        return torch.device("cuda" if available else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not available):
        found = "cpu, cuda" if available else "cpu (no CUDA GPU is there)"
        raise ParameterError(f"device={name!r}: allowed are {found}")
    return torch.device(name)


def repository() -> Path:
    """The checkout that this package was imported from (the folder above the package)."""
    return Path(__file__).resolve().parent.parent


def git_commit() -> str:
    """The checkout's commit, with ``+`` where tracked files have changed; empty outside a checkout."""
    if not (repository() / ".git").exists():
        return ""

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository()), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "--untracked-files=no") else commit


def environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware."""
    packages = ("torch", "torchvision", "numpy", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": str(os.cpu_count()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def source_hash(source: Path) -> str:
    """SHA-256 of a chapter's code and of the package modules it imports, comments and docstrings stripped.

    Published pages carry it; a page whose hash has moved on is labelled stale.
    """
    package = Path(__file__).resolve().parent
    seen: dict[str, str] = {}
    stack = [source]
    while stack:
        path = stack.pop()
        if path.name in seen:
            continue
        tree = bare_tree(path.read_text())
        seen[path.name] = ast.dump(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.name:
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            files = [
                package / f"{name.split('.')[1]}.py" for name in names if name.startswith(f"{package.name}.")
            ]
            stack += [file for file in files if file.exists()]
    return hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()
