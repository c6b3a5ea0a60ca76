"""Tensor files that know what they are: each carries its own key, a hash of its content and a checksum over both."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import safetensors
import safetensors.torch
import torch
from torch import Tensor

Tensors = dict[str, Tensor]


class CacheError(RuntimeError):
    """The cache folder cannot be written."""


class Damaged(ValueError):
    """A file is not the whole artifact that it should be; the message says why."""


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


def write_atomically(path: Path, write: Callable[[Path], object], *, new: bool = False) -> None:
    """Call ``write`` with a temporary path beside ``path``, then move the result into place; with ``new`` over no file.

    Raises:
        OSError: as :func:`write_together`; FileExistsError where ``new`` finds a file.
    """
    write_together({path: write}, new=new)


def write_together(writes: Mapping[Path, Callable[[Path], object]], *, new: bool = False) -> None:
    """Write files aside and onto the disk, each with its function, then move them all into place in their order.

    Raises:
        OSError: one cannot be written; the message names it, why, and what to do. If it could not be written aside, none
            has changed.
    """
    path = Path()
    partials = {path: partial_path(path) for path in writes}
    try:
        for path, write in writes.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            write(partials[path])
            _to_disk(partials[path], os.O_RDWR)
        for path, partial in partials.items():
            if new:
                path.touch(exist_ok=False)
            partial.replace(path)
        if os.name == "posix":
            for parent in {path.parent for path in writes}:
                _to_disk(parent, os.O_RDONLY)
    except (OSError, safetensors.SafetensorError) as error:
        if new and isinstance(error, FileExistsError) and path.exists():
            raise FileExistsError(f"{path} was made meanwhile and was left as it is") from error
        raise OSError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or error}), and what was there is unchanged: "
            "free some space or permit writing there, then call again (ROBUSTUTILS_CACHE sets another cache folder)"
        ) from error
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where this process makes a file or a folder before it is moved to ``path``."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@functools.cache
def sweep(parent: Path) -> None:
    """Remove what processes that are gone have left half made in a folder, once a process."""
    for path in parent.glob("*.*.part"):
        number = path.suffixes[-2][1:]
        with contextlib.suppress(OSError):  # another process sweeps too
            # On a shared disk the process may be another machine's, but such a one writes on.
            if (
                number.isdecimal()
                and not psutil.pid_exists(int(number))
                and time.time() - path.stat().st_mtime > 60
            ):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _to_disk(path: Path, mode: int) -> None:
    file = os.open(path, mode)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write(path: Path, key: str, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors as a safetensors file with its key, JSON ``about`` it, a hash of its content and one of all three."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"key": key, "about": json.dumps(about, sort_keys=True), "content": _content(plain)}
    metadata["sha256"] = _checksum(metadata)

    def save(partial: Path) -> None:
        safetensors.torch.save_file(plain, partial, metadata)
        partial.chmod(0o644)

    write_atomically(path, save)


def read(path: Path, key: str | None = None) -> tuple[Tensors, dict[str, Any]]:
    """Tensors of a file that :func:`write` made, and what it says about them.

    Raises:
        Damaged: it is no such file, its content does not match its checksum, or it is another artifact than ``key``.
        FileNotFoundError: there is no file.
    """
    metadata = header(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise Damaged(str(error)) from error
    if metadata["content"] != _content(tensors):
        raise Damaged("its content does not match its checksum")
    if key is not None and metadata["key"] != key:
        raise Damaged(f"it holds {metadata['key']}")
    return tensors, json.loads(metadata["about"])


def header(path: Path) -> dict[str, str]:
    """What a file says of itself, without its tensors: ``key``, ``about`` in JSON, ``content`` (a hash of its tensors).

    Raises:
        Damaged, FileNotFoundError: as :func:`read`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise Damaged(str(error)) from error
    if missing := {"key", "about", "content", "sha256"} - metadata.keys():
        raise Damaged(f"it says nothing of its {', '.join(sorted(missing))}")
    if metadata["sha256"] != _checksum(metadata):
        raise Damaged("its header does not match its checksum")
    return metadata


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 over shape, dtype and content of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _content(tensors: Mapping[str, Tensor]) -> str:
    hashes = {name: tensor_hash(tensor) for name, tensor in sorted(tensors.items())}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _checksum(metadata: Mapping[str, str]) -> str:
    parts = [metadata[name] for name in ("key", "about", "content")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
