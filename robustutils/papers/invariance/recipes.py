"""How the classifiers of INV, Table 1, its generator and the voters that stand in for people are trained."""

import torch

from robustutils import training
from robustutils.objectives import Clean, Stages
from robustutils.papers.invariance.abs import EvidenceBound
from robustutils.papers.invariance.acgan import Generative
from robustutils.papers.invariance.objectives import AffineAugmented, CrownIbp
from robustutils.recipes import Recipe, madry, recipe
from robustutils.threats import L2


def at_radius(eps: float) -> Recipe:
    """A narrow network of Madry et al. (2018), trained at a linf radius like :func:`madry`; at 0 on the images alone."""
    if eps == 0:
        return recipe("natural").replace(architecture="madry_mnist_narrow")
    return madry("madry_mnist_narrow", eps, dtype=torch.bfloat16)


def crown_ibp(eps: float) -> Recipe:
    """CROWN-IBP training (Zhang et al. 2020) on a pure robust loss: 51 epochs, the first on the images alone.

    The radius rises to eps in the next 30. The paper's networks with pure robust losses train for 100 epochs of half as
    many steps, 60 of them with a rising radius. Theirs of four convolutions takes five times as long; this one has the
    shape of their smaller ones.
    """
    return Recipe(
        architecture="kolter_wong_small",
        objective=Stages(((1 / 51, Clean()), (1.0, CrownIbp(eps=eps, ramp=0.6)))),
        epochs=51,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
    )


def acgan() -> Recipe:
    """An AC-GAN in a quarter of the channels and 18,000 steps of critic and generator at once (INV, section 4).

    They stand in for two million steps of the generator, each after five of the critic, on batches of 100 at 1e-4.
    """
    return Recipe(
        architecture="acgan_mnist_narrow",
        objective=Generative(critic_steps=1),
        epochs=15,
        batch_size=50,
        learning_rate=3e-4,
        betas=(0.5, 0.9),
        schedule=training.late_decay,
        dtype=torch.bfloat16,
    )


def acgan_in_full() -> Recipe:
    """The AC-GAN of the authors' code, for a million steps: 200,000 of the generator instead of up to two million."""
    return Recipe(
        architecture="acgan_mnist",
        objective=Generative(),
        epochs=1667,
        batch_size=100,
        learning_rate=1e-4,
        betas=(0.5, 0.9),
    )


RECIPES = {
    "madry_l2": madry("madry_mnist", 2.0, norm=L2, dtype=torch.bfloat16),
    "inv_cnn": Recipe(
        architecture="inv_cnn",
        objective=Clean(),
        epochs=5,
        batch_size=256,
        schedule=training.warm_up_and_decay,
        dtype=torch.bfloat16,
    ),
    "inv_cnn_in_full": Recipe(architecture="inv_cnn", objective=Clean(), epochs=20, batch_size=256),
    "resnet": Recipe(
        architecture="resnet_mnist",
        objective=Clean(),
        epochs=4,
        batch_size=256,
        learning_rate=3e-3,
        schedule=training.warm_up_and_decay,
        dtype=torch.bfloat16,
    ),
    "affine_cnn": Recipe(
        architecture="small_cnn",
        objective=AffineAugmented(objective=Clean()),
        epochs=12,
        batch_size=256,
        learning_rate=3e-3,
        schedule=training.warm_up_and_decay,
    ),
    **{
        name: Recipe(
            architecture=f"{name}_mnist",
            objective=EvidenceBound(),
            epochs=14,
            batch_size=128,
            learning_rate=2e-3,
            schedule=training.warm_up_and_decay,
        )
        for name in ("abs", "binary_abs")
    },
    "l0_sparse": Recipe(
        architecture="l0_sparse_mnist",
        objective=Clean(),
        epochs=5,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        dtype=torch.bfloat16,
    ),
    "crown_ibp": crown_ibp(0.4),
    "acgan": acgan(),
    "acgan_in_full": acgan_in_full(),
}
