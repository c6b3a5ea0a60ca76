"""The parameters of a chapter: what each profile takes, what is allowed, and what the paper's protocol asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from robustutils.registry import unknown

PROFILES = ("quick", "check", "standard", "paper")
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
    """A selection of names, as a list or as a string with commas; a name may be a whole number."""

    options: Sequence[str]

    def parse(self, name: str, value: Any) -> tuple[str, ...]:
        """The selected names in the order of the options, each once."""
        parts = str(value).split(",") if isinstance(value, str | int) else value
        if not isinstance(parts, (list, tuple)) or not parts:
            raise ParameterError(f"{name}={value!r}: allowed are {', '.join(self.options)}, at least one")
        chosen = [str(part).strip() if isinstance(part, str | int) else part for part in parts]
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


_KINDS: dict[str, Any] = {
    "one_of": lambda options: OneOf(tuple(options)),
    "some_of": lambda options: SomeOf(tuple(options)),
    "range": lambda ends: Between(*ends),
    "text": lambda _: Text(),
}
_KEYS = {*_KINDS, "about", "values", "check", "protocol", "at_least", "otherwise"}


@dataclass(frozen=True)
class Parameter:
    """One parameter as a chapter's TOML declares it.

    ``about`` says in a few words what it is.

    ``values`` are the defaults of quick, standard and paper; ``check`` the most that the profile check takes. A run keeps
    the paper's protocol where the value is ``protocol``, or ``at_least`` so much; else its rows are ``otherwise``.
    """

    values: tuple[Any, Any, Any]
    allowed: Allowed
    check: Any = None
    protocol: Any = None
    at_least: Any = None
    otherwise: str = "reduced"
    about: str = ""

    @classmethod
    def parse(cls, name: str, data: Any) -> "Parameter":
        """The declaration of one parameter. Raises: ValueError that names the parameter and the key."""
        kinds = [key for key in _KINDS if key in data] if isinstance(data, dict) else []
        if len(kinds) != 1:
            raise ValueError(f"parameter {name!r} needs one of {', '.join(_KINDS)}")
        for key in data:
            if key not in _KEYS:
                raise ValueError(f"parameter {name!r}: {unknown('key', key, sorted(_KEYS))}")
        values = data.get("values")
        values = tuple(values) if isinstance(values, list) else (values,) * 3
        allowed = _KINDS[kinds[0]](data[kinds[0]])
        if len(values) != 3:
            raise ValueError(f"parameter {name!r}: 'values' are one, or one for quick, standard and paper")
        for value in values:
            allowed.parse(name, value)
        others = {
            key: data[key] for key in ("about", "check", "protocol", "at_least", "otherwise") if key in data
        }
        return cls(values, allowed, **others)

    def of(self, name: str, profile: str, given: Any) -> Any:
        """The value of a run. Raises: ParameterError for one that is not allowed."""
        value = self.allowed.parse(name, self.values[COLUMNS[profile]] if given is None else given)
        return min(self.check, value) if profile == "check" and self.check is not None else value

    def departure(self, name: str, value: Any) -> str:
        """How a value departs from the paper's protocol, in words; nothing where it keeps it."""
        if self.protocol is not None and self.allowed.parse(name, value) != self.allowed.parse(
            name, self.protocol
        ):
            return f"{name} {value}, not {self.protocol}"
        if self.at_least is not None and value < self.at_least:
            return f"{name} {value}, not {self.at_least}"
        return ""


def cell(parameters: Mapping[str, Parameter]) -> str:
    """The source of the cell of parameters that papermill reads: a line for each, in the order of the declaration."""
    first = 'profile = "quick"  # quick, check, standard or paper: sets every None below'
    last = "device = None  # cpu or cuda; None takes a GPU where there is one"
    return "\n".join([first, *(f"{name} = None  # {one.about}" for name, one in parameters.items()), last])
