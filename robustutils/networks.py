"""Networks that are known before they are there: published, cached, or trained as soon as one is needed."""

import functools
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.multiprocessing import get_context

from robustutils import artifacts, models, speed, storage, training
from robustutils.data import Dataset
from robustutils.recipes import Recipe

log = logging.getLogger(__name__)

MOST_ON_A_GPU = 12
"""At most so many networks train at once on a GPU: each process has a CUDA context of its own."""


class Network(artifacts.Artifact):
    """The network of a recipe on a training set: called, it is there, in evaluation mode on its device.

    It is taken from the published networks (which may have been trained on another machine, or in another precision:
    their certificate says) or from the cache, and else trained now, resumably, and kept in the cache. Training on the
    CPU takes one thread, so that its weights do not depend on how many cores there are. ``siblings`` are trained side by
    side as soon as one of them is needed and not there. With parts of your own, which cannot be known by name, a recipe
    is trained at the first call and not kept.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, *, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.recipe, self.dataset, self.seed = recipe, dataset, seed
        self.device = torch.device(device)
        self.siblings: Sequence[Network] = ()
        self._model: nn.Module | None = None

    @functools.cached_property
    def name(self) -> str:  # type: ignore[override]
        """The same on every machine.

        Raises:
            robustutils.artifacts.Unnamed: a part of the recipe is not known by name.
        """
        return self._named(None)

    @functools.cached_property
    def cache_key(self) -> str:
        """The name of its file in the cache."""
        return self._named(self.device)

    def _named(self, device: torch.device | None) -> str:
        parts = (models.architecture(self.recipe.architecture), training.fit, self.recipe, self.dataset)
        described = [artifacts.describe(part, device) for part in (*parts, self.seed)]
        digest = artifacts.digest([described, None if device is None else device.type])
        return f"model-{self.recipe.architecture}-{digest}"

    @property
    def key(self) -> str:  # type: ignore[override]
        """What results on this network depend on: its weights, so that it must be there."""
        self.make_sure()
        header = self._header()
        artifacts.shelf.note(self.name, json.loads(header["about"])["certificate"])
        return f"{self.name} {header['content']}"

    def _header(self) -> dict[str, str]:
        try:
            return storage.header(self.published() or self.path)
        except storage.Damaged:
            self._cached()  # says so and trains it anew
            return storage.header(self.path)

    @property
    def path(self) -> Path:
        """Its file in the cache."""
        return storage.folder() / f"{self.cache_key}.safetensors"

    def published(self) -> Path | None:
        """Its file among the published networks, or None; a damaged one is reported in the log, and none."""
        for path, header in models.published_headers().items():
            if header["key"] == self.name and _is_whole(path, path.stat().st_mtime_ns):
                return path
        return None

    def is_there(self) -> bool:
        """Whether it need not be trained."""
        try:
            return self.published() is not None or self.path.exists()
        except artifacts.NotPublished:  # of a static source
            return False

    def make_sure(self) -> None:
        """Train it if it is not there, and its missing siblings beside it.

        Raises:
            robustutils.artifacts.NotPublished: nothing may be trained in this run.
            robustutils.training.TrainingError: the loss is not finite.
        """
        if self.is_there():
            return
        missing = [other for other in self.siblings if not other.is_there()]
        if len(missing) > 1 and not artifacts.shelf.frozen:
            train_side_by_side(missing)
        else:
            self._cached()

    def __call__(self) -> nn.Module:
        if self._model is None:
            self._model = self._found()
        return self._model

    def _found(self) -> nn.Module:
        model = self._fresh()
        try:
            self.make_sure()
        except artifacts.Unnamed as reason:
            log.info("trained and not kept: %s", reason)
            return _trained(model, self.recipe, self.dataset, self.seed)
        if path := self.published():
            tensors, about = storage.read(path, self.name)
            certificate = about["certificate"]
        else:
            tensors, certificate = self._cached()
        artifacts.shelf.note(self.name, certificate)
        model.load_state_dict(tensors)
        return model.eval()

    def _fresh(self) -> nn.Module:
        classes = len(self.dataset.classes)
        return models.build(self.recipe.architecture, classes=classes, seed=self.seed).to(self.device)

    def _cached(self) -> tuple[storage.Tensors, dict[str, Any]]:
        model = self._fresh()
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

        def build(checkpoint: Path) -> storage.Tensors:
            if artifacts.shelf.frozen:
                raise artifacts.NotPublished(f"{self.name} is not published, and this profile trains nothing")
            return halves(_trained(model, self.recipe, self.dataset, self.seed, checkpoint))

        return artifacts.cached(
            self.cache_key,
            build,
            device=self.device,
            dtype=artifacts.precision_of(artifacts.describe(self.recipe), self.device),
            threads=1 if self.device.type == "cpu" else None,
            fits=lambda tensors: {name: tensor.shape for name, tensor in tensors.items()} == shapes,
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"siblings": (), "_model": None}


@functools.cache
def _is_whole(path: Path, modified: int) -> bool:
    """Whether the file of a published network, as it was last modified, holds what its header says."""
    try:
        storage.read(path)
    except (storage.Damaged, OSError) as problem:
        log.warning("damaged network %s (%s): git restores it", path, problem)
        return False
    return True


def halves(model: nn.Module) -> storage.Tensors:
    """The weights of a model that :func:`robustutils.training.rounded` has rounded, as half-precision tensors."""
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }


def _trained(
    model: nn.Module, recipe: Recipe, dataset: Dataset, seed: int, checkpoint: Path | None = None
) -> nn.Module:
    """Train a fresh model by its recipe, on one thread on the CPU, and round its weights."""
    threads = torch.get_num_threads()
    if speed.device_of(model).type == "cpu":
        torch.set_num_threads(1)
    try:
        objective = recipe.objective.ready() if hasattr(recipe.objective, "ready") else recipe.objective
        training.fit(model, dataset, objective, seed=seed, checkpoint=checkpoint, **recipe.settings())
    finally:
        torch.set_num_threads(threads)
    return training.rounded(model)


class Networks(dict[Any, Network]):
    """The networks of a run by what its chapter calls them; asking for one that it does not have raises ``Absent``."""

    def __missing__(self, name: Any) -> Network:
        parts = name if isinstance(name, tuple) else (name,)
        raise artifacts.Absent(f"this run has no network {', '.join(map(str, parts))}")


def join(networks: Iterable[Network]) -> None:
    """Let networks train side by side: all that are missing, as soon as one of them is needed."""
    siblings = list(networks)
    for network in siblings:
        network.siblings = siblings


def train_side_by_side(
    networks: Sequence[Network],
    *,
    workers: int | None = None,
    lowest_priority: bool = False,
    done: Callable[[Network], None] = lambda network: None,
) -> None:
    """Train networks in ``workers`` processes, each on one thread.

    By default there is a process for each core, on a GPU at most :data:`MOST_ON_A_GPU`: a small network keeps the GPU busy
    for a part of each step only. ``done`` is called with each when it is there.
    """
    if not networks:
        return
    cores = os.cpu_count() or 1
    if any(network.device.type == "cuda" for network in networks):
        cores = min(cores, MOST_ON_A_GPU)
    processes = min(workers or cores, len(networks))
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_one_thread, initargs=(lowest_priority,)
    ) as pool:
        futures = {pool.submit(Network.make_sure, network): network for network in networks}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                future.result()
                log.info("%d of %d networks are ready: %s", count, len(networks), futures[future].name)
                done(futures[future])
        except BaseException as error:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                lost = [network.name for network in networks if not network.is_there()][:processes]
                raise training.TrainingError(
                    f"a process that trained {' or '.join(lost)} was killed, perhaps for want of memory; "
                    "the next call goes on from the last checkpoint, with fewer workers in less memory"
                ) from error
            raise


def _one_thread(lowest_priority: bool) -> None:
    """A worker computes on one thread, leaves Ctrl-C to its parent, and does not outlive it."""
    if lowest_priority:
        os.nice(19)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # as in a run: float32 on a GPU is float32
    speed.keep_freed_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
