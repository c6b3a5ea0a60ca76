"""The training recipes of the papers by name, trained on demand and kept in the artifact cache."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from robustutils import artifacts, models, training
from robustutils.data import Dataset
from robustutils.objectives import Clean, EnsembleAdversarial, Objective


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
    for name in ("eat_a", "eat_b", "eat_b_star", "eat_c", "eat_d"):
        recipes[name] = Recipe(architecture=name, objective=Clean(), epochs=6, batch_size=64)
        recipes[f"{name}_adv"] = Recipe(
            architecture=name, objective=EnsembleAdversarial(eps=EAT_EPS), epochs=12, batch_size=64
        )
    return recipes


RECIPES: dict[str, Recipe] = {
    **_eat_recipes(),
    "small_cnn": Recipe(architecture="small_cnn", objective=Clean(), epochs=6, batch_size=64),
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


def train(
    recipe: Recipe, dataset: Dataset, *, seed: int = 0, device: str | torch.device = "cpu"
) -> nn.Module:
    """The model of a recipe on a training set: from the cache, else trained now, resumably, and kept there.

    Returns the model in evaluation mode on ``device``. The cache's key holds the recipe, the data's fingerprint,
    the seed, the kind of device and the code that training reaches.

    Raises:
        robustutils.training.TrainingError: the loss is not finite.
        robustutils.artifacts.CacheError: the cache folder cannot be written.
    """
    model = models.build(recipe.architecture, classes=len(dataset.classes), seed=seed).to(device)

    def build(checkpoint: Path) -> dict[str, Tensor]:
        training.fit(
            model,
            dataset,
            recipe.objective,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            schedule=recipe.schedule,
            max_gradient_norm=recipe.max_gradient_norm,
            dtype=recipe.dtype,
            seed=seed,
            checkpoint=checkpoint,
        )
        return model.state_dict()

    config = {
        "recipe": recipe,
        "data": dataset.fingerprint,
        "seed": seed,
        "device": torch.device(device).type,
    }
    code = (models.architecture(recipe.architecture), training.fit, type(recipe.objective), recipe.schedule)
    model.load_state_dict(artifacts.cached(f"model-{recipe.architecture}", config, code, build))
    return model.eval()
