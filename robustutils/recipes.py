"""How a defence is trained: recipes by name. What a single paper trains stands in its own folder."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from robustutils import registry, training
from robustutils.attacks import constant
from robustutils.bounds import interval_margins
from robustutils.objectives import (
    Adversarial,
    Certified,
    Clean,
    Objective,
    RampedAdversarial,
    Stages,
    training_pgd,
)
from robustutils.registry import choose
from robustutils.threats import L2, Linf


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained: architecture, objective and hyperparameters."""

    architecture: str
    objective: Objective
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Callable[[float], float] = constant
    max_gradient_norm: float = math.inf
    dtype: torch.dtype = torch.float32

    def settings(self) -> dict[str, Any]:
        """The hyperparameters that :func:`robustutils.training.fit` takes."""
        return {name: part for name, part in vars(self).items() if name not in ("architecture", "objective")}

    def replace(self, **changes: object) -> "Recipe":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def madry(
    architecture: str, eps: float, *, norm: type[Linf] | type[L2] = Linf, dtype: torch.dtype = torch.float32
) -> Recipe:
    """Adversarial training (Madry et al. 2018) in six epochs instead of a hundred (BS, section 4.1).

    Two epochs on 3 PGD steps of a growing radius, 3.4 epochs on 10 steps of eps / 6, the rest on 40 steps of eps / 30.
    ``dtype`` is that of the attack's passes; weights and updates are float32.
    """

    def adversarial(steps: int, step_size: float) -> Adversarial:
        return Adversarial(attack=training_pgd(norm(eps=eps), steps, step_size, dtype))

    ramped = RampedAdversarial(eps=eps, steps=3, step_size=eps / 2, ramp=1.0, dtype=dtype, norm=norm)
    return Recipe(
        architecture=architecture,
        objective=Stages(
            ((1 / 3, ramped), (0.9, adversarial(10, eps / 6)), (1.0, adversarial(40, eps / 30)))
        ),
        epochs=6,
        batch_size=128,
        learning_rate=5e-3,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
    )


def _in_full(objective: Objective) -> Recipe:
    """Madry et al. (2018) as their code has it: 100,000 steps of Adam at 1e-4 on batches of 50.

    91 epochs of the 55,000 images they train on (BS, section 4.1).
    """
    return Recipe(
        architecture="madry_mnist", objective=objective, epochs=91, batch_size=50, learning_rate=1e-4
    )


def madry_in_full(eps: float) -> Recipe:
    """The same on 40 PGD steps of 0.01."""
    return _in_full(Adversarial(attack=training_pgd(Linf(eps=eps), 40, 0.01)))


RECIPES: dict[str, Recipe] = {
    "small_cnn": Recipe(architecture="small_cnn", objective=Clean(), epochs=6, batch_size=64),
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
    "madry_mnist_in_full": madry_in_full(0.3),
    "madry_fashion_mnist_in_full": madry_in_full(0.1),
    "natural_in_full": _in_full(Clean()),
}
"""Those that several papers share; each paper's folder has its own."""


def recipe(name: str) -> Recipe:
    """The recipe of a defence.

    Raises:
        ValueError: no recipe has this name; the message lists those there are.
    """
    return registry.find("recipes", "RECIPES", name, RECIPES, "defence")


def recipe_of(defence: str, dataset: str, *, in_full: bool = False) -> Recipe:
    """The recipe of a defence on a data set: the data set's own if there is one, else that of grey 28x28 images.

    With ``in_full`` it is the paper's length of training where one is written down. Half of a data set, as in
    ``gtsrb_half``, is trained on like the whole.

    Raises:
        ValueError: there is no recipe for it; the message lists those there are.
    """
    known = registry.names("recipes", RECIPES)
    own = f"{defence}_{dataset.removesuffix('_half')}"
    for name in (own, defence):
        for key in (f"{name}_in_full", name) if in_full else (name,):
            if key in known:
                return recipe(key)
    return recipe(defence)


def recipe_in_seconds(defence: str, eps: float = 0.3) -> Recipe:
    """A defence on small networks in seconds, so that the profile quick has something to attack.

    ``eps`` is the radius of ``madry``; ``natural`` and ``kolter_wong`` have none or their own.

    Raises:
        ValueError: no such defence; the message lists those there are.
    """
    small = recipe("small_cnn").replace(learning_rate=3e-3)
    ramped = RampedAdversarial(eps=eps, steps=3, step_size=eps / 2, ramp=0.8)
    made = {
        "natural": small,
        "madry": small.replace(objective=ramped, epochs=12),
        "kolter_wong": small.replace(
            architecture="kolter_wong_small",
            objective=Certified(margins=interval_margins, eps=0.1, start=0.0),
            epochs=15,
            batch_size=50,
            schedule=training.late_decay,
        ),
    }
    choose("defence", defence, made)
    return made[defence]
