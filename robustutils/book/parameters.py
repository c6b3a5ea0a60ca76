"""The parameters of a chapter: what each profile takes, what is allowed, and what the paper's protocol asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from robustutils.registry import unknown

PROFILES = ("quick", "check", "standard", "paper")
COLUMNS = {"quick": 0, "check": 1, "standard": 1, "paper": 2}
"""Which of a parameter's three values is a profile's default."""


class ParameterError(ValueError):
    """A chapter got a parameter it cannot use; a notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def shown(value: Any) -> str:
    """A value in a message, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a number without end"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _option(name: str, value: Any, options: Sequence[str]) -> str:
    if value not in options:
        near = get_close_matches(value[:80], options, 1) if isinstance(value, str) else []
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ParameterError(f"{name}={shown(value)}{hint}: allowed are {', '.join(options)}")
    return str(value)


@dataclass(frozen=True)
class Parameter:
    """One parameter as a chapter's TOML declares it, of one of four kinds.

    ``about`` says in a few words what it is. It is ``one_of`` some names, or ``some_of`` them (as a list or a string with
    commas; a name may be a whole number), a number in a closed ``range`` (a whole one if both ends are), or any ``text``.

    ``values`` are the defaults of quick, standard and paper; ``check`` the most that the profile check takes. A run keeps
    the paper's protocol where the value is ``protocol``, or ``at_least`` so much; else its rows are ``otherwise``.
    """

    values: Sequence[Any] = ()
    one_of: Sequence[str] = ()
    some_of: Sequence[str] = ()
    range: Sequence[float] = ()
    text: bool = False
    check: Any = None
    protocol: Any = None
    at_least: Any = None
    otherwise: str = "reduced"
    about: str = ""

    @classmethod
    def declared(cls, name: str, data: Any) -> "Parameter":
        """The declaration of one parameter. Raises: ValueError that names the parameter and the key."""
        kinds = ("one_of", "some_of", "range", "text")
        if not isinstance(data, dict) or len([kind for kind in kinds if data.get(kind)]) != 1:
            raise ValueError(f"parameter {name!r} needs one of {', '.join(kinds)}")
        for key in data:
            if key not in cls.__match_args__:
                raise ValueError(f"parameter {name!r}: {unknown('key', key, cls.__match_args__)}")
        values = data.get("values")
        found = cls(**data | {"values": values if isinstance(values, list) else [values] * 3})
        if len(found.values) != 3:
            raise ValueError(f"parameter {name!r}: 'values' are one, or one for quick, standard and paper")
        for value in found.values:
            found.parse(name, value)
        return found

    def parse(self, name: str, value: Any) -> Any:
        """The value; a selection in the order of the options. Raises: ParameterError naming it and what is allowed."""
        if self.one_of:
            return _option(name, value, self.one_of)
        if self.some_of:
            parts = (
                value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
            )
            if not isinstance(parts, list | tuple) or not parts:
                raise ParameterError(
                    f"{name}={shown(value)}: allowed are {', '.join(self.some_of)}, at least one"
                )
            parts = [shown(part) if isinstance(part, int) else part for part in parts]
            parts = [part.strip() if isinstance(part, str) else part for part in parts]
            chosen = [_option(name, part, self.some_of) for part in parts]
            return tuple(option for option in self.some_of if option in chosen)
        if self.range:
            low, high = self.range
            whole = isinstance(low, int) and isinstance(high, int)
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise ParameterError(f"{name}={shown(value)}: must be {kind} from {low} to {high}")
            return value if whole else float(value)
        if value is not None and not isinstance(value, str):
            raise ParameterError(f"{name}={shown(value)}: must be a text")
        return value

    def of(self, name: str, profile: str, given: Any) -> Any:
        """The value of a run. Raises: ParameterError for one that is not allowed."""
        value = self.parse(name, self.values[COLUMNS[profile]] if given is None else given)
        return min(self.check, value) if profile == "check" and self.check is not None else value

    def departure(self, name: str, value: Any) -> str:
        """How a value departs from the paper's protocol, in words; nothing where it keeps it."""
        if self.protocol is not None and self.parse(name, value) != self.parse(name, self.protocol):
            return f"{name} {value}, not {self.protocol}"
        if self.at_least is not None and value < self.at_least:
            return f"{name} {value}, not {self.at_least}"
        return ""


def cell(parameters: Mapping[str, Parameter]) -> str:
    """The source of the cell of parameters that papermill reads: a line for each, in the order of the declaration."""
    first = 'profile = "quick"  # quick, check, standard or paper: sets every None below'
    last = "device = None  # cpu or cuda; None takes a GPU where there is one"
    return "\n".join([first, *(f"{name} = None  # {one.about}" for name, one in parameters.items()), last])
