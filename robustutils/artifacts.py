"""Named artifacts: trained networks and finished outcomes, known by what they are and not by the code that made them.

A name says which function was called with what: the function, its version in :data:`VERSIONS`, and the arguments that
differ from their defaults, each described by its own name and version. It is the same on every machine, and a
refactoring that moves no number moves no name; one that does raises a version, and golden runs in the tests see to it.
The key of a cached file adds what a machine adds to a result: the device and the precision that passes really run in.

What cannot be named, a model or a loss of your own, is computed at every call and not kept.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from robustutils import provenance, speed
from robustutils.storage import Damaged, Tensors, folder, header, read, tensor_hash, write

log = logging.getLogger(__name__)

VERSIONS: dict[str, int] = {"score": 2}
"""Versions above 1 of the package's functions and classes, by name.

Raise one whenever its numbers change, also by another default: what stands at its default is left out of names.
"""

FORMERLY: dict[str, str] = {"DefaultAttack": "Refereed", "ExpectationOverTransformation": "Averaged"}
"""The names under which classes of the package were published that have another name today."""

SMALL = 1 << 19
"""Artifacts of at most so many bytes are published with a chapter's outcomes; larger ones can be made again."""


class Unnamed(TypeError):
    """A value that is not known by name, so that what depends on it cannot be kept."""


class Absent(RuntimeError):
    """What a run does not have: rows that need it are recorded as not part of the run."""


class NotPublished(Absent):
    """A network would have to be trained where nothing is trained; the message names it."""


def digest(value: Any) -> str:
    """16 hex digits of SHA-256 over a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# ---- names ----


def describe(value: Any, device: torch.device | None = None) -> Any:
    """A JSON-able description of a value by name: what it is, its version, and what differs from its defaults.

    With a ``device`` the description is exact: precisions are those that passes really run in there, and artifacts
    are described by their keys. Networks are described by their layers and a hash of their weights.

    Raises:
        Unnamed: the value, or something in it, is not known by name.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Artifact):
        return {"artifact": value.name if device is None else value.key}
    if isinstance(value, torch.dtype):
        return str(value if device is None else speed.effective(device, value))
    if isinstance(value, Tensor):
        return {"tensor": tensor_hash(value)}
    if isinstance(value, nn.Module):
        state = [
            tensor
            for named in (value.named_parameters, value.named_buffers)
            for _, tensor in named(remove_duplicate=False)
        ]
        if any(tensor.is_meta for tensor in state):
            raise Unnamed(f"a {type(value).__name__} whose weights are elsewhere has no name")
        return {"layers": list(_layers(value)), "weights": tensor_hash(*state)}
    if isinstance(value, Mapping):
        return {str(key): describe(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item, device) for item in value]
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return {"data": fingerprint}
    if isinstance(value, (FunctionType, type)):
        return _named(value)
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: describe(getattr(value, field.name), device) for field in dataclasses.fields(value)
        }
        return {"is": _named(type(value)), **_without_defaults(fields, _field_defaults(type(value)), device)}
    raise Unnamed(f"a {type(value).__name__} has no name: {value!r}")


def precision_of(described: Any, device: torch.device) -> torch.dtype:
    """The lowest precision that what is described runs in on a device."""
    mixed = str(torch.bfloat16) in json.dumps(described)
    return speed.effective(device, torch.bfloat16 if mixed else torch.float32)


def _named(item: Callable | type) -> str:
    """Name and version of a function or class of the package or of torch; where it stands does not count."""
    name = item.__qualname__
    package = (item.__module__ or "").split(".")[0]
    if package not in ("robustutils", "torch") or "<" in name:
        raise Unnamed(f"{item.__module__}.{name} is not the book's own")
    if package == "torch":
        return f"torch.{name}"
    name = FORMERLY.get(name, name)
    return f"{name} {VERSIONS[name]}" if name in VERSIONS else name


def _field_defaults(kind: type) -> dict[str, Any]:
    defaults = {}
    for field in dataclasses.fields(kind):
        if "unnamed" in field.metadata:
            defaults[field.name] = field.metadata["unnamed"]
        elif field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def _without_defaults(
    fields: dict[str, Any], defaults: Mapping[str, Any], device: torch.device | None
) -> dict[str, Any]:
    return {
        name: described
        for name, described in fields.items()
        if name not in defaults or described != describe(defaults[name], device)
    }


def _layers(model: nn.Module) -> Iterator[Any]:
    """Every part of a network: what it is and how it is set."""
    for name, part in model.named_modules(remove_duplicate=False):
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        if any(hooks) or "forward" in vars(part):
            raise Unnamed(f"the layer {name!r} of a network has been given code of its own")
        plain = {key: item for key, item in vars(part).items() if key[0] != "_" and key != "training"}
        yield [name, _named(type(part)), describe(plain)]


# ---- artifacts ----


class Artifact:
    """Something that is known by name before it is there: called, it gives its value, found or made at the first call.

    ``name`` is the same on every machine, ``key`` tells apart what machines make differently; ``device`` is where it is
    computed.
    """

    name: str
    key: str
    device: torch.device

    def __call__(self) -> Any:
        raise NotImplementedError


def value_of(item: Any) -> Any:
    """The value of an artifact, also inside lists, tuples and dictionaries; anything else is itself."""
    if isinstance(item, Artifact):
        return item()
    if isinstance(item, (list, tuple)):
        return type(item)(map(value_of, item))
    if isinstance(item, dict):
        return {key: value_of(part) for key, part in item.items()}
    return item


class Call(Artifact):
    """The call of a function as an artifact. ``file``: whether its tensors are kept in the cache."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict[str, Any], *, file: bool) -> None:
        signature = inspect.signature(function)
        self._bound = signature.bind(*args, **kwargs)
        self._defaults = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.default is not parameter.empty
        }
        self.function, self._file = function, file
        self.kind = function.__name__.strip("_").lower()
        self._value: Any = None
        self._noted: tuple[str, dict[str, Any], Tensors] | None = None

    @functools.cached_property
    def name(self) -> str:  # type: ignore[override]
        """The same on every machine.

        Raises:
            Unnamed: the function or one of its arguments is not known by name.
        """
        return f"{self.kind}-{digest([self._described, None])}"

    @property
    def key(self) -> str:  # type: ignore[override]
        """The name of the file in the cache."""
        return f"{self.kind}-{digest([self._describe(self.device), self.device.type])}"

    @functools.cached_property
    def _described(self) -> list[Any]:
        return self._describe(None)

    def _describe(self, device: torch.device | None) -> list[Any]:
        fields = {name: describe(value, device) for name, value in self._bound.arguments.items()}
        return [_named(self.function), _without_defaults(fields, self._defaults, device)]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it is computed."""
        return _device(self._bound.arguments.values())

    def __call__(self) -> Any:
        if self._value is None:
            self._value = self._found() if self._file else self._made()
        elif self._noted:
            shelf.note(*self._noted)  # it may have been asked for as a part of another, and now for itself
        return self._value

    def _made(self) -> Any:
        return self.function(*map(value_of, self._bound.args), **value_of(self._bound.kwargs))

    def _found(self) -> Any:
        try:
            name = self.name
        except Unnamed as reason:
            log.info("computed and not kept: %s", reason)
            return self._made()
        if name in shelf.outcomes:
            tensors, certificate = shelf.outcomes[name]
        else:

            def build(_: Path) -> Tensors:
                with shelf.aside():
                    value = self._made()
                return {"value": value} if isinstance(value, Tensor) else value

            dtype = precision_of(self._described, self.device)
            tensors, certificate = cached(self.key, build, device=self.device, dtype=dtype)
        self._noted = name, certificate, tensors
        shelf.note(*self._noted)
        return tensors["value"] if tensors.keys() == {"value"} else tensors


def _device(values: Any) -> torch.device:
    """The device of the first network among some arguments; the CPU where there is none."""
    return next(_devices(values), torch.device("cpu"))


def _devices(values: Any) -> Iterator[torch.device]:
    for value in values:
        if isinstance(value, Artifact):
            yield value.device
        elif isinstance(value, nn.Module):
            yield speed.device_of(value)
        elif isinstance(value, (list, tuple)):
            yield from _devices(value)


def kept(function: Callable, /, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, a tensor or tensors by name on the CPU: found under its name, else made and kept.

    Arguments may be artifacts; those are loaded or made only if the call is. What cannot be named is not kept.

    Raises:
        CacheError: the cache folder cannot be written.
    """
    return later(function, *args, **kwargs)()


def later(function: Callable, /, *args: Any, **kwargs: Any) -> Call:
    """The artifact of :func:`kept`, which is looked for at its first call."""
    return Call(function, args, kwargs, file=True)


def composed(function: Callable, /, *args: Any, **kwargs: Any) -> Call:
    """A model put together from others, some of them artifacts: made at its first call, known by its parts."""
    return Call(function, args, kwargs, file=False)


def cached(
    key: str,
    build: Callable[[Path], Tensors],
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
    fits: Callable[[Tensors], bool] = lambda tensors: True,
) -> tuple[Tensors, dict[str, Any]]:
    """The tensors of an artifact: read from the cache, else built and stored there with a birth certificate.

    Args:
        key: of the file in the cache.
        build: makes them; it gets a path where it may keep a checkpoint of its own, removed on success.
        device, dtype, threads: where, in which effective precision and on how many threads (default: torch's); part of
            the certificate.
        fits: whether tensors have the names and shapes that are expected.

    Returns:
        CPU tensors by name, and their certificate. A damaged file is reported in the log, removed and built anew.

    Raises:
        CacheError: the cache folder cannot be written.
    """
    path = folder() / f"{key}.safetensors"
    try:
        tensors, about = read(path, key)
        if not fits(tensors):
            raise Damaged("its tensors have other names or shapes")
    except FileNotFoundError:
        pass
    except (Damaged, OSError) as problem:
        log.warning("damaged cache file %s (%s): building it anew", path, problem)
        path.unlink()
    else:
        return tensors, about["certificate"]
    checkpoint = path.with_suffix(".checkpoint")
    before = seconds_spent(checkpoint)
    start = time.monotonic()
    provenance.started_from()  # now: the code may be edited, or committed, while it builds
    tensors = {k: v.detach().cpu().contiguous() for k, v in build(checkpoint).items()}
    certificate = provenance.certificate(
        device, dtype, before + time.monotonic() - start, threads or torch.get_num_threads()
    )
    write(path, key, tensors, certificate=certificate)
    checkpoint.unlink(missing_ok=True)
    return tensors, certificate


def seconds_spent(checkpoint: Path) -> float:
    """What an interrupted training has cost so far, in seconds; 0 without a checkpoint that can be read."""
    try:
        return float(json.loads(header(checkpoint)["about"])["seconds"])
    except (FileNotFoundError, Damaged, OSError):
        return 0.0


class Shelf:
    """What one run has at hand and what it has used: the state of this process.

    ``outcomes``: published ones, by name, which are taken before the cache is asked; ``frozen``: nothing is trained;
    ``used``: the certificate of each artifact of the run, and ``small`` the tensors of those that can be published;
    ``flags``: what speaks against numbers of the run, in words, by what it was raised at.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a run."""
        self.frozen = False
        self.outcomes: dict[str, tuple[Tensors, dict[str, Any]]] = {}
        self.used: dict[str, dict[str, Any]] = {}
        self.small: dict[str, Tensors] = {}
        self.flags: dict[str, tuple[str, ...]] = {}
        self._within = 0

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While an artifact is made, those it is made of are not published: whoever finds it does not ask for them."""
        self._within += 1
        try:
            yield
        finally:
            self._within -= 1

    def note(self, name: str, certificate: dict[str, Any], tensors: Tensors | None = None) -> None:
        """Remember that an artifact was used, and its tensors where they are small enough to be published."""
        self.used[name] = certificate
        if tensors is None or self._within:
            return
        if sum(tensor.nbytes for tensor in tensors.values()) <= SMALL:
            self.small[name] = tensors


shelf = Shelf()
