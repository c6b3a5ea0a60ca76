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
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.recipes import Recipe

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


RECIPES = {
    **_eat_recipes(),
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

OF_ARCHITECTURE = {"A": "eat_a", "B": "eat_b", "B*": "eat_b_star", "C": "eat_c", "D": "eat_d"}
"""Recipes by the paper's names of their architectures."""
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
    if not training:
        return RECIPES[OF_ARCHITECTURE[architecture]].replace(epochs=settings.epochs, dtype=dtype)
    kind = "input_dropout_adv" if training == "adv-input-dropout" else "adv"
    recipe = RECIPES[f"{OF_ARCHITECTURE[architecture]}_{kind}"].replace(
        objective=EnsembleAdversarial(eps=eps), epochs=int(epochs or settings.epochs_adv), dtype=dtype
    )
    sources = {"adv-ens": [architecture], "adv-ens3": STATIC.get(architecture)}.get(training)
    return (
        with_sources(recipe, [networks[a, networks.other(seed, 2)] for a in sources]) if sources else recipe
    )
