"""One run of a chapter: its profile and parameters, its device, and where its numbers come from."""

import ast
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Protocol

import torch

from robustutils import memory, outcomes, provenance
from robustutils.artifacts import shelf
from robustutils.criteria import NO_EVIDENCE, PROFILES

COLUMNS = {"quick": 0, "check": 1, "standard": 1, "paper": 2}
"""Which of a parameter's three values is a profile's default."""


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
    def is_evidence(self) -> bool:
        """Whether the profile measures what a verdict may rest on."""
        return self.profile not in NO_EVIDENCE

    @property
    def seeds(self) -> range:
        """The training seeds: ``n_seeds`` of them from ``seed`` on."""
        return range(self.parameters["seed"], self.parameters["seed"] + self.parameters["n_seeds"])

    def provenance(self, **fingerprints: str) -> dict[str, Any]:
        """Where the numbers come from: parameters, data, code, machine, date and seconds so far."""
        source = provenance.repository() / "chapters" / f"{self.chapter}.py"
        return {
            "parameters": {"profile": self.profile, **self.parameters},
            "datasets": fingerprints,
            "environment": provenance.environment(self.device),
            "source_hash": provenance.source_hash(source) if source.exists() else "",
            "git_commit": provenance.started_from(),
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(time.perf_counter() - self.started, 1),
            "artifacts": sorted(shelf.used),
        }


def start(
    chapter: str,
    namespace: Mapping[str, Any],
    parameters: Mapping[str, tuple[Any, Any, Any, Allowed]],
    check: Mapping[str, Any] | None = None,
) -> Run:
    """Check a notebook's parameters and settle its profile: the first call of every chapter.

    Args:
        chapter: the chapter's name.
        namespace: the notebook's ``globals()``: every parameter must be there, ``None`` standing for the
            profile's value. What papermill injected is compared with these names, so that a misspelt
            parameter is an error.
        parameters: for each name its value in the profiles quick, standard and paper, and what it may be.
        check: the most that the profile ``check`` takes of some numbers, whose other defaults are those of standard.

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
    column = COLUMNS[profile]
    settled = {
        name: row[3].parse(name, row[column] if namespace[name] is None else namespace[name])
        for name, row in parameters.items()
    }
    shelf.clear()
    shelf.outcomes = outcomes.at_hand()
    if profile == "check":
        shelf.frozen = True
        settled |= {name: min(most, settled[name]) for name, most in (check or {}).items()}
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
