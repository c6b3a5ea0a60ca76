"""One run of a chapter: its profile and parameters, its device, and where its numbers come from."""

import ast
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from robustutils import provenance, speed
from robustutils.artifacts import shelf
from robustutils.book import outcomes_files
from robustutils.book.claims import Claims
from robustutils.book.criteria import NO_EVIDENCE
from robustutils.book.parameters import PROFILES, Parameter, ParameterError, shown
from robustutils.registry import unknown


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
    def dtype(self) -> torch.dtype:
        """Precision of attacks and trainings: bfloat16 where the processor has it, at ``quick`` float32."""
        return torch.float32 if self.profile == "quick" else torch.bfloat16

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
            "flags": {where: list(raised) for where, raised in sorted(shelf.flags.items())},
        }


def start(claims: Claims, namespace: Mapping[str, Any]) -> Run:
    """Check a notebook's parameters and settle its profile.

    Args:
        claims: the chapter's declaration, which has its parameters.
        namespace: the notebook's ``globals()``: every parameter must be there, ``None`` standing for the
            profile's value. What papermill injected is compared with these names, so that a misspelt
            parameter is an error.

    Raises:
        ParameterError: an unknown profile or parameter, or a value that is not allowed.
    """
    speed.keep_freed_blocks()
    torch.backends.cudnn.allow_tf32 = False  # float32 on a GPU is float32
    profile = Parameter(one_of=PROFILES).parse("profile", namespace["profile"])
    declared = ("profile", "device", *claims.parameters)
    for name in injected_names(namespace):
        if name not in declared:
            raise ParameterError(unknown("parameter", name, declared))
    settled = {
        name: parameter.of(name, profile, namespace[name]) for name, parameter in claims.parameters.items()
    }
    if settled.get("weights") and not settled.get("model"):
        raise ParameterError(f"weights={settled['weights']!r}: needs -p model")
    shelf.clear()
    shelf.outcomes = outcomes_files.at_hand()
    shelf.frozen = profile == "check"
    return Run(claims.chapter, profile, settled, find_device(namespace["device"], profile))


def injected_names(namespace: Mapping[str, Any]) -> list[str]:
    """The names assigned in the cell that papermill injected; none outside papermill."""
    # Papermill tells a kernel nothing but the cell that it injects, and a misspelt name is one more global among many:
    # the text of that cell, which IPython keeps in ``In``, is the only place that tells it apart.
    cells = "\n".join(cell for cell in map(str, namespace.get("In", ())) if cell.startswith("# Parameters"))
    names = (node for node in ast.walk(ast.parse(cells)) if isinstance(node, ast.Name))
    return [name.id for name in names if isinstance(name.ctx, ast.Store)]


def find_device(name: str | None, profile: str) -> torch.device:
    """The device of a run: the named one, else CUDA where there is one, else the CPU.

    Raises:
        ParameterError: the ``paper`` profile without a GPU and without ``device="cpu"``, or a name torch lacks.
    """
    allowed = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if name is None and profile == "paper" and "cuda" not in allowed:
        raise ParameterError("profile='paper' needs a CUDA GPU and there is none; -p device cpu insists")
    if name not in (None, *allowed):
        found = ", ".join(allowed) + ("" if "cuda" in allowed else " (no CUDA GPU is there)")
        raise ParameterError(f"device={shown(name)}: allowed are {found}")
    return torch.device(name or allowed[-1])
