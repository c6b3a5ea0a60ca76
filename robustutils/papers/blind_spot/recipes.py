"""How the defences that BS alone attacks are trained."""

import dataclasses

import torch

from robustutils import recipes, training
from robustutils.bounds import interval_margins
from robustutils.objectives import Adversarial, Certified, Clean, Stages, training_pgd
from robustutils.papers.blind_spot.dual import dual_margins
from robustutils.papers.blind_spot.objectives import Augmented, Wasserstein
from robustutils.recipes import Recipe
from robustutils.threats import Linf


def madry_colour(*, flip: bool) -> Recipe:
    """Adversarial training of colour images at 8/255: 10 steps of 2/255 on moved (and mirrored) images, 30 epochs.

    A PreActResNet-18 and Adam stand in for the WRN-32-10, momentum and 80,000 steps of the authors (BS, Figures 3, 9).
    """
    attack = training_pgd(Linf(eps=8 / 255), 10, 2 / 255, torch.bfloat16)
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
    on_intervals = Certified(margins=interval_margins, eps=eps / 2, start=0.0)
    on_dual = Certified(margins=dual_margins, eps=eps, start=eps)
    return Recipe(
        architecture="kolter_wong_small",
        objective=Stages(((0.95, on_intervals), (1.0, on_dual))),
        epochs=12,
        batch_size=50,
        schedule=training.late_decay,
    )


def halved_after_a_third(progress: float) -> float:
    """A learning-rate schedule: full for a third of the training, then halved after each further sixth."""
    return 0.5 ** max(0, int(6 * progress + 1e-9) - 2)


def kolter_wong_in_full(eps: float) -> Recipe:
    """Wong & Kolter (2018) as their code has it: 60 epochs on the dual bound, its radius rising to eps over the first 20."""
    rising = Certified(margins=dual_margins, eps=eps, start=eps / 10)
    stages = ((1 / 3, rising), (1.0, dataclasses.replace(rising, start=eps)))
    return kolter_wong(eps).replace(objective=Stages(stages), epochs=60, schedule=halved_after_a_third)


def wrm(*, epochs: int = 25, dtype: torch.dtype = torch.float32) -> Recipe:
    """Distributionally robust training (Sinha et al. 2018; BS, Table 5): Adam 1e-3, batch 256, 25 epochs."""
    return Recipe(
        architecture="wrm_mnist",
        objective=Wasserstein(dtype=dtype),
        epochs=epochs,
        batch_size=256,
        dtype=dtype,
    )


RECIPES = {
    "kolter_wong": kolter_wong(0.1),
    "wrm": wrm(epochs=4, dtype=torch.bfloat16),
    "wrm_in_full": wrm(dtype=torch.bfloat16),
    "madry_cifar10": madry_colour(flip=True),
    "natural_cifar10": natural_colour(flip=True),
    "madry_gtsrb": madry_colour(flip=False),
    "natural_gtsrb": natural_colour(flip=False),
    "kolter_wong_cifar10": kolter_wong(8 / 255).replace(architecture="kolter_wong_cifar"),
    "kolter_wong_in_full": kolter_wong_in_full(0.1),
}


def recipe_in_seconds(defence: str, eps: float = 0.3) -> Recipe:
    """:func:`robustutils.recipes.recipe_in_seconds`, and ``wrm`` too."""
    if defence == "wrm":
        return wrm(epochs=1).replace(objective=Wasserstein(steps=5), batch_size=64)
    return recipes.recipe_in_seconds(defence, eps)
