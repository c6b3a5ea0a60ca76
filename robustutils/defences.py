"""The training recipes of the papers by name, and the networks they yield: published, cached, or trained on demand."""

import dataclasses
import functools
import json
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.multiprocessing import get_context

from robustutils import artifacts, memory, models, training
from robustutils.attacks import PGD
from robustutils.bounds import dual_margins, interval_margins
from robustutils.data import Dataset
from robustutils.objectives import (
    Adversarial,
    Augmented,
    Certified,
    Clean,
    EnsembleAdversarial,
    Objective,
    RampedAdversarial,
    Stages,
    Wasserstein,
)
from robustutils.threats import Linf

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained: architecture, objective and hyperparameters."""

    architecture: str
    objective: Objective
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    schedule: Callable[[float], float] = training.constant
    max_gradient_norm: float = math.inf
    dtype: torch.dtype = torch.float32

    def replace(self, **changes: object) -> "Recipe":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


EAT_EPS = 0.3


def _eat_recipes() -> dict[str, Recipe]:
    """EAT, section C.1: Adam 1e-3, batch 64; 6 epochs for standard models, 12 for adversarially trained ones."""
    recipes = {}
    with_dropout = [f"{name}_input_dropout" for name in ("eat_a", "eat_c", "eat_d")]
    for name in ("eat_a", "eat_b", "eat_b_star", "eat_c", "eat_d", *with_dropout):
        recipes[name] = Recipe(architecture=name, objective=Clean(), epochs=6, batch_size=64)
        recipes[f"{name}_adv"] = Recipe(
            architecture=name, objective=EnsembleAdversarial(eps=EAT_EPS), epochs=12, batch_size=64
        )
    return recipes


def with_sources(recipe: Recipe, sources: Sequence["nn.Module | Network"]) -> Recipe:
    """Ensemble adversarial training: a recipe of an adversarially trained model, with static sources beside the model.

    Training copies the sources and puts them in training mode: their dropout is active, as in the authors' code (EAT,
    section 3.4).

    Raises:
        ValueError: there is no source, or the recipe does not train on single-step examples.
    """
    if not sources or not isinstance(recipe.objective, EnsembleAdversarial):
        raise ValueError(
            f"{len(sources)} sources for {type(recipe.objective).__name__}: "
            "ensemble training needs at least one source and the objective EnsembleAdversarial"
        )
    static: Any = tuple(sources)
    return recipe.replace(objective=dataclasses.replace(recipe.objective, sources=static))


def madry(architecture: str, eps: float, *, dtype: torch.dtype = torch.float32) -> Recipe:
    """Adversarial training (Madry et al. 2018) in six epochs instead of a hundred (BS, section 4.1).

    Two epochs on 3 PGD steps of a growing radius, 3.4 epochs on 10 steps of eps / 6, the rest on 40 steps of eps / 30.
    ``dtype`` is that of the attack's passes; weights and updates are float32.
    """

    def adversarial(steps: int, step_size: float) -> Adversarial:
        return Adversarial(
            attack=PGD(
                threat=Linf(eps=eps),
                steps=steps,
                step_size=step_size,
                keep_best=False,
                drop_fooled=False,
                dtype=dtype,
            )
        )

    return Recipe(
        architecture=architecture,
        objective=Stages(
            (
                (1 / 3, RampedAdversarial(eps=eps, steps=3, step_size=eps / 2, ramp=1.0, dtype=dtype)),
                (0.9, adversarial(10, eps / 6)),
                (1.0, adversarial(40, eps / 30)),
            )
        ),
        epochs=6,
        batch_size=128,
        learning_rate=5e-3,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
    )


def madry_colour(*, flip: bool) -> Recipe:
    """Adversarial training of colour images at 8/255: 10 steps of 2/255 on moved (and mirrored) images, 30 epochs.

    A PreActResNet-18 and Adam stand in for the WRN-32-10, momentum and 80,000 steps of the authors (BS, Figures 3, 9).
    """
    attack = PGD(
        threat=Linf(eps=8 / 255),
        steps=10,
        step_size=2 / 255,
        keep_best=False,
        drop_fooled=False,
        dtype=torch.bfloat16,
    )
    return Recipe(
        architecture="preact_resnet18",
        objective=Augmented(objective=Adversarial(attack=attack), pad=2, flip=flip),
        epochs=30,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
        dtype=torch.bfloat16,
    )


def natural_colour(*, flip: bool) -> Recipe:
    """The network of :func:`madry_colour` on the images alone."""
    return madry_colour(flip=flip).replace(objective=Augmented(objective=Clean(), pad=2, flip=flip))


def kolter_wong(eps: float) -> Recipe:
    """Training on a certificate (Wong & Kolter 2018; BS, Table 4): twelve epochs, the last 0.6 on the exact dual bound.

    Before that, interval bounds of a radius that rises from 0 to eps / 2: on this network about as loose as the
    dual bound at eps, and 200 times as fast.
    """
    return Recipe(
        architecture="kolter_wong_small",
        objective=Stages(
            (
                (0.95, Certified(margins=interval_margins, eps=eps / 2, start=0.0)),
                (1.0, Certified(margins=dual_margins, eps=eps, start=eps)),
            )
        ),
        epochs=12,
        batch_size=50,
        schedule=training.late_decay,
    )


def madry_in_full(eps: float) -> Recipe:
    """Madry et al. (2018) as their code has it: 100,000 steps of Adam at 1e-4 on batches of 50, 40 PGD steps of 0.01.

    91 epochs of the 55,000 images they train on (BS, section 4.1).
    """
    attack = PGD(threat=Linf(eps=eps), steps=40, step_size=0.01, keep_best=False, drop_fooled=False)
    return Recipe(
        architecture="madry_mnist",
        objective=Adversarial(attack=attack),
        epochs=91,
        batch_size=50,
        learning_rate=1e-4,
    )


def kolter_wong_in_full(eps: float) -> Recipe:
    """Wong & Kolter (2018) as their code has it: 60 epochs on the dual bound, its radius rising to eps over the first 20."""
    return Recipe(
        architecture="kolter_wong_small",
        objective=Stages(
            (
                (1 / 3, Certified(margins=dual_margins, eps=eps, start=eps / 10)),
                (1.0, Certified(margins=dual_margins, eps=eps, start=eps)),
            )
        ),
        epochs=60,
        batch_size=50,
        schedule=training.halved_after_a_third,
    )


def wrm(*, epochs: int = 25, dtype: torch.dtype = torch.float32) -> Recipe:
    """Distributionally robust training (Sinha et al. 2018; BS, Table 5): Adam 1e-3, batch 256, 25 epochs."""
    return Recipe(
        architecture="wrm_mnist",
        objective=Wasserstein(dtype=dtype),
        epochs=epochs,
        batch_size=256,
        dtype=dtype,
    )


RECIPES: dict[str, Recipe] = {
    **_eat_recipes(),
    "small_cnn": Recipe(architecture="small_cnn", objective=Clean(), epochs=6, batch_size=64),
    "madry_mnist_fast": Recipe(
        architecture="madry_mnist",
        objective=RampedAdversarial(eps=0.3, steps=3, step_size=0.15, ramp=0.4, dtype=torch.bfloat16),
        epochs=5,
        batch_size=128,
        learning_rate=5e-3,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
        dtype=torch.bfloat16,
    ),
    "madry_mnist": madry("madry_mnist", 0.3, dtype=torch.bfloat16),
    "madry_fashion_mnist": madry("madry_mnist", 0.1, dtype=torch.bfloat16),
    "natural": Recipe(
        architecture="madry_mnist",
        objective=Clean(),
        epochs=6,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        dtype=torch.bfloat16,
    ),
    "kolter_wong": kolter_wong(0.1),
    "wrm": wrm(epochs=4, dtype=torch.bfloat16),
    "wrm_in_full": wrm(dtype=torch.bfloat16),
    "madry_mnist_in_full": madry_in_full(0.3),
    "madry_fashion_mnist_in_full": madry_in_full(0.1),
    "natural_in_full": Recipe(
        architecture="madry_mnist", objective=Clean(), epochs=91, batch_size=50, learning_rate=1e-4
    ),
    "madry_cifar10": madry_colour(flip=True),
    "natural_cifar10": natural_colour(flip=True),
    "madry_gtsrb": madry_colour(flip=False),
    "natural_gtsrb": natural_colour(flip=False),
    "kolter_wong_cifar10": kolter_wong(8 / 255).replace(architecture="kolter_wong_cifar"),
    "kolter_wong_in_full": kolter_wong_in_full(0.1),
}


def recipe(name: str) -> Recipe:
    """The recipe of a defence.

    Raises:
        ValueError: no recipe has this name; the message lists those there are.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown defence {name!r}{hint}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_of(defence: str, dataset: str, *, in_full: bool = False) -> Recipe:
    """The recipe of a defence on a data set: the data set's own if there is one, else that of grey 28x28 images.

    With ``in_full`` it is the paper's length of training where one is written down. Half of a data set, as in
    ``gtsrb_half``, is trained on like the whole.

    Raises:
        ValueError: there is no recipe for it; the message lists those there are.
    """
    own = f"{defence}_{dataset.removesuffix('_half')}"
    for name in (own, defence):
        for key in (f"{name}_in_full", name) if in_full else (name,):
            if key in RECIPES:
                return RECIPES[key]
    return recipe(defence)


class Network(artifacts.Artifact):
    """The network of a recipe on a training set: called, it is there, in evaluation mode on its device.

    It is taken from the published networks (which may have been trained on another machine, or in another precision:
    their certificate says) or from the cache, and else trained now, resumably, and kept in the cache. Training on the
    CPU takes one thread, so that its weights do not depend on how many cores there are. ``siblings`` are trained side by
    side as soon as one of them is needed and not there.
    """

    def __init__(
        self, recipe: Recipe, dataset: Dataset, *, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self.recipe, self.dataset, self.seed = recipe, dataset, seed
        self._device = torch.device(device)
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
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    @property
    def key(self) -> str:
        """What results on this network depend on: its weights, so that it must be there."""
        self.make_sure()
        header = self._header()
        artifacts.shelf.note(self.name, json.loads(header["about"])["certificate"])
        return f"{self.name} {header['content']}"

    def _header(self) -> dict[str, str]:
        try:
            return artifacts.header(self.published() or self.path)
        except artifacts.Damaged:
            self._cached()  # says so and trains it anew
            return artifacts.header(self.path)

    @property
    def path(self) -> Path:
        """Its file in the cache."""
        return artifacts.folder() / f"{self.cache_key}.safetensors"

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
        if len(missing) > 1 and self.device.type == "cpu" and not artifacts.shelf.frozen:
            train_side_by_side(missing)
        else:
            self._cached()

    def __call__(self) -> nn.Module:
        if self._model is None:
            self.make_sure()
            path = self.published()
            if path is None:
                tensors, certificate = self._cached()
            else:
                tensors, about = artifacts.read(path, self.name)
                certificate = about["certificate"]
            artifacts.shelf.note(self.name, certificate)
            model = self._fresh()
            model.load_state_dict(tensors)
            self._model = model.eval()
        return self._model

    def _fresh(self) -> nn.Module:
        classes = len(self.dataset.classes)
        return models.build(self.recipe.architecture, classes=classes, seed=self.seed).to(self.device)

    def _cached(self) -> tuple[artifacts.Tensors, dict[str, Any]]:
        model = self._fresh()
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

        def build(checkpoint: Path) -> artifacts.Tensors:
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
        artifacts.read(path)
    except (artifacts.Damaged, OSError) as problem:
        log.warning("damaged network %s (%s): git restores it", path, problem)
        return False
    return True


def halves(model: nn.Module) -> artifacts.Tensors:
    """The weights of a model that :func:`robustutils.training.rounded` has rounded, as half-precision tensors."""
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }


def _ready(objective: Objective) -> Objective:
    """An objective with its static sources loaded, copied and in training mode."""
    if not isinstance(objective, EnsembleAdversarial):
        return objective
    static = [deepcopy(artifacts.value_of(s)).train().requires_grad_(False) for s in objective.sources]
    return dataclasses.replace(objective, sources=tuple(static))


def _trained(
    model: nn.Module, recipe: Recipe, dataset: Dataset, seed: int, checkpoint: Path | None = None
) -> nn.Module:
    """Train a fresh model by its recipe, on one thread on the CPU, and round its weights."""
    threads = torch.get_num_threads()
    if next(model.parameters()).device.type == "cpu":
        torch.set_num_threads(1)
    try:
        training.fit(
            model,
            dataset,
            _ready(recipe.objective),
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            schedule=recipe.schedule,
            max_gradient_norm=recipe.max_gradient_norm,
            dtype=recipe.dtype,
            seed=seed,
            checkpoint=checkpoint,
        )
    finally:
        torch.set_num_threads(threads)
    return training.rounded(model)


def train(
    recipe: Recipe, dataset: Dataset, *, seed: int = 0, device: str | torch.device = "cpu"
) -> nn.Module:
    """The model of a recipe on a training set, in evaluation mode on ``device``: see :class:`Network`.

    A recipe with parts of your own, which cannot be known by name, is trained at every call and not kept.

    Raises:
        robustutils.training.TrainingError: the loss is not finite.
        robustutils.artifacts.CacheError: the cache folder cannot be written.
    """
    network = Network(recipe, dataset, seed=seed, device=device)
    try:
        network.name  # noqa: B018
    except artifacts.Unnamed as reason:
        log.info("trained and not kept: %s", reason)
        return _trained(network._fresh(), recipe, dataset, seed)
    return network()


def train_all(
    jobs: Mapping[tuple[str, int], Recipe],
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    side_by_side: bool = True,
) -> dict[tuple[str, int], Network]:
    """The networks of several recipes, by (name, seed) like ``jobs``; none is trained before one of them is needed.

    Then, on the CPU and ``side_by_side``, all that are missing train at once, in as many processes as there are cores.
    In a run that trains nothing (profile ``check``) only those come back that are there.
    """
    networks = {
        (name, seed): Network(recipe, dataset, seed=seed, device=device)
        for (name, seed), recipe in jobs.items()
    }
    if artifacts.shelf.frozen:
        return {job: network for job, network in networks.items() if network.is_there()}
    if side_by_side:
        join(networks.values())
    return networks


def join(networks: Iterable[Network]) -> None:
    """Let networks train side by side: on the CPU all that are missing, as soon as one of them is needed."""
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
    """Train networks on the CPU in ``workers`` processes (default: one for each core), each on one thread.

    ``done`` is called with each when it is there.
    """
    if not networks:
        return
    with ProcessPoolExecutor(
        min(workers or os.cpu_count() or 1, len(networks)),
        mp_context=get_context("spawn"),
        initializer=_one_thread,
        initargs=(lowest_priority,),
    ) as pool:
        futures = {pool.submit(Network.make_sure, network): network for network in networks}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                future.result()
                log.info("%d of %d networks are ready: %s", count, len(networks), futures[future].name)
                done(futures[future])
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _one_thread(lowest_priority: bool) -> None:
    """A worker computes on one thread, leaves Ctrl-C to its parent, and does not outlive it."""
    if lowest_priority:
        os.nice(19)
    torch.set_num_threads(1)
    memory.keep_freed_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
