"""How the models of EAT are trained."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from robustutils import training
from robustutils.artifacts import Artifact
from robustutils.objectives import Clean, RampedAdversarial
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
