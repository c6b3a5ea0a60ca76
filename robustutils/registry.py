"""What is known by name before it is loaded: networks, recipes and data sets, those of a paper in the paper's own folder.

A paper's package says in ``PROVIDES`` which names its modules ``models``, ``recipes`` and ``data`` stand for. The module is
imported when one of its names is asked for, so that who asks for none depends on none of it.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from robustutils import papers


def unknown(what: str, given: object, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """The message about a name that is not one of those allowed: what was perhaps meant, and what there is."""
    names = [str(name) for name in allowed]
    near = get_close_matches(str(given), names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {given!r}{hint}; there are {', '.join(names)}"


def choose(what: str, given: object, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse a name that is not one of those allowed. Raises: ValueError, see :func:`unknown`."""
    if given not in allowed:
        raise ValueError(unknown(what, given, allowed))


def paper_packages() -> list[ModuleType]:
    """The package of each paper, in alphabetical order; their modules stay unloaded."""
    found = (info.name for info in pkgutil.iter_modules(papers.__path__))
    return [importlib.import_module(f"{papers.__name__}.{name}") for name in found]


def names(module: str, shared: Mapping[str, Any]) -> list[str]:
    """The names of one kind that all papers share or one of them has, such as all of ``recipes``."""
    return [*shared, *(name for paper in paper_packages() for name in paper.PROVIDES.get(module, ()))]


def find(module: str, table: str, name: str, shared: Mapping[str, Any], what: str) -> Any:
    """What a name stands for: looked up in ``shared``, else in the ``table`` of the paper that provides it.

    Raises:
        ValueError: nobody knows the name; the message calls it a ``what`` and lists those there are.
    """
    if name in shared:
        return shared[name]
    for paper in paper_packages():
        if name in paper.PROVIDES.get(module, ()):
            return getattr(importlib.import_module(f"{paper.__name__}.{module}"), table)[name]
    raise ValueError(unknown(what, name, names(module, shared)))
