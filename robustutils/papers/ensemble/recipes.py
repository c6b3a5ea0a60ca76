"""How the models of EAT are trained."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from robustutils import training
from robustutils.artifacts import Artifact
from robustutils.attacks import RFGSM
from robustutils.objectives import Adversarial, Clean, RampedAdversarial
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.models import ARCHITECTURES
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.recipes import Recipe


def with_sources(recipe: Recipe, sources: Sequence[nn.Module | Artifact]) -> Recipe:
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


# EAT, section C.1: Adam 1e-3, batch 64; 6 epochs for standard models, 12 for adversarially trained ones.
_STANDARD = Recipe(architecture="eat_a", objective=Clean(), epochs=6, batch_size=64)
_ADVERSARIAL = _STANDARD.replace(objective=EnsembleAdversarial(eps=0.3), epochs=12)
RECIPES = {
    **{name: _STANDARD.replace(architecture=name) for name in ARCHITECTURES},
    **{f"{name}_adv": _ADVERSARIAL.replace(architecture=name) for name in ARCHITECTURES},
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
}

STATIC = {"A": "ACD", "B": "BCD", "C": "ACD", "D": "ACD"}
"""The architectures of the three static sources of ens3, by that of the model (EAT, section 4.2 and Table 8)."""


def by_name(name: str, seed: int, settings: Any, networks: Family) -> Recipe:
    """How a model is trained, by the name it has in the paper's tables.

    Args:
        name: such as C, C_adv, C_adv-ens, C_adv-ens3, C_adv-input-dropout, C_adv, epoch 2, R+FGSM (A, trained on these
            examples) or Madry net.
        settings: what a run sets: ``epsilon``, ``dtype``, ``n_train``, ``epochs``, and ``epochs_adv``, ``epochs_rfgsm`` and
            ``epochs_madry``.
        seed, networks: static sources are standard models of another seed among these.
    """
    eps, dtype = settings.epsilon, settings.dtype
    if name == "R+FGSM":
        random_step = Adversarial(attack=RFGSM(eps=eps, dtype=dtype))
        return RECIPES["eat_a"].replace(objective=random_step, epochs=settings.epochs_rfgsm, dtype=dtype)
    if name == "Madry net":
        madry = RECIPES["madry_mnist_fast"]
        objective: Any = madry.objective
        near = dataclasses.replace(objective, eps=eps, step_size=eps / 2, dtype=dtype)
        size = min(madry.batch_size, settings.n_train)
        return madry.replace(objective=near, batch_size=size, epochs=settings.epochs_madry, dtype=dtype)
    architecture, _, training = name.partition("_")
    training, _, epochs = training.partition(", epoch ")
    own = f"eat_{architecture.lower().replace('*', '_star')}"
    if not training:
        return RECIPES[own].replace(epochs=settings.epochs, dtype=dtype)
    recipe = RECIPES[f"{own}_input_dropout_adv" if training == "adv-input-dropout" else f"{own}_adv"].replace(
        objective=EnsembleAdversarial(eps=eps), epochs=int(epochs or settings.epochs_adv), dtype=dtype
    )
    sources = {"adv-ens": [architecture], "adv-ens3": STATIC.get(architecture)}.get(training)
    static = [networks[a, networks.other(seed, 2)] for a in sources or ()]
    return with_sources(recipe, static) if static else recipe
