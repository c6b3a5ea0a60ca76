"""The artifact cache: trained weights and finished verdicts, kept under a key of what produced them.

A key is made of the configuration, the fingerprint of the data and a hash of the code that the computation
reaches, so that a changed hyperparameter, data set or training step can never be answered from the cache,
while an edit of a comment or of an unrelated function costs nothing.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import platformdirs
import safetensors
import safetensors.torch
import torch
from torch import Tensor

log = logging.getLogger(__name__)


class CacheError(RuntimeError):
    """The cache folder cannot be written."""


def folder() -> Path:
    """The cache folder: ``ROBUSTUTILS_CACHE``, else the user's cache folder; made on demand.

    Raises:
        CacheError: it cannot be created or written; the message names it and the variable.
    """
    root = Path(os.environ.get("ROBUSTUTILS_CACHE") or platformdirs.user_cache_dir("robustutils"))
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CacheError(
            f"the cache folder {root} cannot be written ({error.strerror}); "
            "set ROBUSTUTILS_CACHE to a folder that can"
        ) from error
    return root


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` with a temporary path beside ``path``, then move the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def describe(value: Any) -> Any:
    """A JSON-able description of a configuration value.

    Dataclasses become their class name and fields, modules (networks) their class and a hash of their weights,
    functions their qualified name.

    Raises:
        TypeError: the value cannot be described, so it cannot be part of a key.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, **fields}
    if isinstance(value, torch.nn.Module):
        kinds = {type(part) for part in value.modules() if type(part).__module__.split(".")[0] != "torch"}
        return {
            "layers": repr(value),
            "weights": tensor_hash(*value.state_dict().values()),
            "code": sorted(code_hash(kind) for kind in kinds),
        }
    if isinstance(value, Tensor):
        return {"tensor": tensor_hash(value)}
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, (FunctionType, type)) and "<" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be part of an artifact's key: {value!r}")


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 over shape, dtype and content of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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


def code_hash(*roots: Callable | type) -> str:
    """SHA-256 of the code that ``roots`` reach inside their own package.

    The walk follows the names a function or class mentions: functions, classes and plain constants of the
    same package, also through a module (``attacks.pgd``). Comments, docstrings, annotations of arguments
    and results, and layout do not count.
    """
    package = roots[0].__module__.split(".")[0]
    seen: dict[str, str] = {}
    stack: list[Any] = list(roots)
    while stack:
        item = stack.pop()
        name = f"{item.__module__}.{item.__qualname__}"
        if name in seen:
            continue
        try:
            seen[name], nodes = _parsed(item)
        except OSError:  # a class that was typed into a notebook has no source before Python 3.13
            methods = [part for part in vars(item).values() if isinstance(part, FunctionType)]
            seen[name] = repr([_compiled(method.__code__) for method in methods])
            continue
        scope = vars(sys.modules[item.__module__])
        for node in nodes:
            label, value = _mentioned(node, scope)
            if isinstance(value, (FunctionType, type)) and value.__module__.split(".")[0] == package:
                stack.append(value)
            elif isinstance(value, (int, float, str, tuple)):
                seen[f"{name}:{label}"] = repr(value)
            elif isinstance(value, (list, dict)):
                with suppress(TypeError):
                    seen[f"{name}:{label}"] = repr(describe(value))
        if isinstance(item, type):
            stack += [base for base in item.__mro__[1:] if base.__module__.split(".")[0] == package]
    return hashlib.sha256(json.dumps(sorted(seen.items())).encode()).hexdigest()


@functools.cache
def _parsed(item: Callable | type) -> tuple[str, list[ast.AST]]:
    """The bare source of ``item`` as text, and its nodes that may mention a global."""
    tree = bare_tree(inspect.getsource(item))
    return ast.dump(tree), [node for node in ast.walk(tree) if isinstance(node, (ast.Name, ast.Attribute))]


def _compiled(code: CodeType) -> list[Any]:
    """What a function does, from its bytecode."""
    constants = [_compiled(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return [code.co_code, constants, code.co_names]


def _mentioned(node: ast.AST, scope: dict[str, Any]) -> tuple[str, Any]:
    """Name and value of the global that ``node`` mentions, directly or as an attribute of a module."""
    if isinstance(node, ast.Name):
        return node.id, scope.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = scope.get(node.value.id)
        if isinstance(owner, ModuleType):
            return f"{node.value.id}.{node.attr}", getattr(owner, node.attr, None)
    return "", None


def _configured(value: Any, inside: bool = False) -> Iterator[Callable | type]:
    """The code a configuration brings along: its functions, its callable objects and what those hold."""
    if isinstance(value, FunctionType):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = inside or callable(value)
        if inside:
            yield type(value)
        for field in dataclasses.fields(value):
            yield from _configured(getattr(value, field.name), inside)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _configured(item, inside)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _configured(item, inside)


def key(config: dict[str, Any], *code: Callable | type) -> str:
    """The key of an artifact: 16 hex digits of SHA-256 over its configuration and the code it reaches."""
    roots = dict.fromkeys([*code, *_configured(config)])
    text = json.dumps({"config": describe(config), "code": code_hash(*roots)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names and content."""
    digest = {name: tensor_hash(tensor) for name, tensor in sorted(tensors.items())}
    return hashlib.sha256(json.dumps(digest).encode()).hexdigest()


def path_of(name: str, config: dict[str, Any], code: Sequence[Callable | type]) -> Path:
    """Where :func:`cached` keeps an artifact; the file is there once it has been built."""
    return folder() / f"{name}-{key(config, *code)}.safetensors"


def cached(
    name: str,
    config: dict[str, Any],
    code: tuple[Callable | type, ...],
    build: Callable[[Path], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """The tensors of an artifact: read from the cache, else built and stored there.

    Args:
        name: a readable prefix of the file name.
        config: everything the tensors depend on; see :func:`describe`.
        code: the functions and classes whose code they depend on; see :func:`code_hash`.
        build: makes them; it gets a path where it may keep a checkpoint of its own, removed on success.

    Returns:
        CPU tensors by name. A damaged file is reported in the log, removed and built anew.

    Raises:
        CacheError: the cache folder cannot be written.
    """
    path = path_of(name, config, code)
    if path.exists():
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                checksum = (file.metadata() or {}).get("sha256")
            tensors = safetensors.torch.load_file(path)
            if checksum == _checksum(tensors):
                return tensors
            problem = "its content does not match its checksum"
        except (safetensors.SafetensorError, OSError) as error:
            problem = str(error)
        log.warning("damaged cache file %s (%s): building it anew", path, problem)
        path.unlink()
    checkpoint = path.with_suffix(".checkpoint")
    tensors = {k: v.detach().cpu().contiguous() for k, v in build(checkpoint).items()}
    checksum = _checksum(tensors)
    write_atomically(path, lambda p: safetensors.torch.save_file(tensors, p, metadata={"sha256": checksum}))
    checkpoint.unlink(missing_ok=True)
    return tensors
