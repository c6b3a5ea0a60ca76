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


_CLEAN = Recipe(
    architecture="inv_cnn",
    objective=Clean(),
    epochs=5,
    batch_size=256,
    schedule=training.warm_up_and_decay,
    dtype=torch.bfloat16,
)
_ABS = _CLEAN.replace(
    objective=EvidenceBound(), epochs=14, batch_size=128, learning_rate=2e-3, dtype=torch.float32
)
# The AC-GAN of the authors' code, for a million steps: 200,000 of the generator instead of up to two million.
_ACGAN_IN_FULL = Recipe(
    architecture="acgan_mnist",
    objective=Generative(),
    epochs=1667,
    batch_size=100,
    learning_rate=1e-4,
    betas=(0.5, 0.9),
)
# A quarter of the channels and 18,000 steps of critic and generator at once stand in for two million steps of the
# generator, each after five of the critic, on batches of 100 at 1e-4 (INV, section 4).
_ACGAN = _ACGAN_IN_FULL.replace(
    architecture="acgan_mnist_narrow",
    objective=Generative(critic_steps=1),
    epochs=15,
    batch_size=50,
    learning_rate=3e-4,
    schedule=training.late_decay,
    dtype=torch.bfloat16,
)

RECIPES = {
    "madry_l2": madry("madry_mnist", 2.0, norm=L2, dtype=torch.bfloat16),
    "inv_cnn": _CLEAN,
    "inv_cnn_in_full": Recipe(architecture="inv_cnn", objective=Clean(), epochs=20, batch_size=256),
    "resnet": _CLEAN.replace(architecture="resnet_mnist", epochs=4, learning_rate=3e-3),
    "affine_cnn": _CLEAN.replace(
        architecture="small_cnn",
        objective=AffineAugmented(objective=Clean()),
        epochs=12,
        learning_rate=3e-3,
        dtype=torch.float32,
    ),
    "abs": _ABS.replace(architecture="abs_mnist"),
    "binary_abs": _ABS.replace(architecture="binary_abs_mnist"),
    "l0_sparse": _CLEAN.replace(architecture="l0_sparse_mnist", batch_size=128),
    # On a pure robust loss (Zhang et al. 2020), the first epoch on the images alone; the radius rises in the next 30. The
    # paper's networks train for 100 epochs of half as many steps, 60 of them with a rising radius. Theirs of four
    # convolutions takes five times as long; this one has the shape of their smaller ones.
    "crown_ibp": Recipe(
        architecture="kolter_wong_small",
        objective=Stages(((1 / 51, Clean()), (1.0, CrownIbp(eps=0.4, ramp=0.6)))),
        epochs=51,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=5,
    ),
    "acgan": _ACGAN,
    "acgan_in_full": _ACGAN_IN_FULL,
}
