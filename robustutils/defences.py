"""The training recipes of the papers by name."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from robustutils import training
from robustutils.artifacts import Artifact
from robustutils.attacks import PGD
from robustutils.bounds import dual_margins, interval_margins
from robustutils.generative import Generative
from robustutils.latent import Ascent, Coded
from robustutils.objectives import (
    Adversarial,
    AffineAugmented,
    Augmented,
    Certified,
    Clean,
    CrownIbp,
    EnsembleAdversarial,
    Objective,
    RampedAdversarial,
    Stages,
    Wasserstein,
)
from robustutils.parameters import unknown
from robustutils.strategies import (
    Mixture,
    OnManifoldAdversarial,
    RegularAdversarial,
    Trades,
    TransformationAdversarial,
    TransformationAugmentation,
)
from robustutils.synthesis import EvidenceBound
from robustutils.threats import L2, Linf
from robustutils.vae_gan import VaeGanLoss


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


def madry(
    architecture: str, eps: float, *, norm: type[Linf] | type[L2] = Linf, dtype: torch.dtype = torch.float32
) -> Recipe:
    """Adversarial training (Madry et al. 2018) in six epochs instead of a hundred (BS, section 4.1).

    Two epochs on 3 PGD steps of a growing radius, 3.4 epochs on 10 steps of eps / 6, the rest on 40 steps of eps / 30.
    ``dtype`` is that of the attack's passes; weights and updates are float32.
    """

    def adversarial(steps: int, step_size: float) -> Adversarial:
        return Adversarial(
            attack=PGD(
                threat=norm(eps=eps),
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
                (
                    1 / 3,
                    RampedAdversarial(eps=eps, steps=3, step_size=eps / 2, ramp=1.0, dtype=dtype, norm=norm),
                ),
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


def at_radius(eps: float) -> Recipe:
    """A narrow network of Madry et al. (2018), trained at a linf radius like :func:`madry`; at 0 on the images alone."""
    if eps == 0:
        return recipe("natural").replace(architecture="madry_mnist_narrow")
    return madry("madry_mnist_narrow", eps, dtype=torch.bfloat16)


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


def madry_in_full(eps: float) -> Recipe:
    """Madry et al. (2018) as their code has it: 100,000 steps of Adam at 1e-4 on batches of 50, 40 PGD steps of 0.01.

    91 epochs of the 55,000 images they train on (BS, section 4.1).
    """
    attack = PGD(
        threat=Linf(eps=eps),
        steps=40,
        step_size=0.01,
        keep_best=False,
        drop_fooled=False,
        dtype=torch.float32,
    )
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


def dis_vae_gan(beta: float, *, narrow: bool = False, epochs: int = 30) -> Recipe:
    """A VAE-GAN (DIS, supplement): Adam with betas (0.5, 0.9), 30 epochs of batches of 100, L2 of 1e-4.

    The learning rate falls by 10% in each of the 30 epochs, and over fewer or more ``epochs`` to the same end. With
    ``narrow`` it has half of the channels and trains in bfloat16, for the CPU.

    Args:
        beta: weight of the reconstruction, see :func:`robustutils.vae_gan.vae_gan_beta`.
        narrow: whether the architecture is "vae_gan_narrow" instead of "vae_gan".
        epochs: how long it trains.
    """
    return Recipe(
        architecture="vae_gan_narrow" if narrow else "vae_gan",
        objective=VaeGanLoss(beta=beta),
        epochs=epochs,
        batch_size=100,
        learning_rate=5e-3,
        betas=(0.5, 0.9),
        weight_decay=1e-4,
        schedule=training.Exponential(decay=0.9, epochs=30),
        dtype=torch.bfloat16 if narrow else torch.float32,
    )


def _dis(objective: Objective) -> Recipe:
    """DIS, section 3.4: Adam with betas (0.5, 0.9), 20 epochs of batches of 100, L2 of 1e-4, and 5% less rate each epoch."""
    return Recipe(
        architecture="dis_cnn",
        objective=objective,
        epochs=20,
        batch_size=100,
        learning_rate=0.01,
        betas=(0.5, 0.9),
        weight_decay=1e-4,
        schedule=training.Exponential(decay=0.95, epochs=20),
    )


def _dis_ascent(steps: int) -> Ascent:
    """The attack in training: 40 steps of 0.005 in the paper, else steps that add up to the same 0.2; all are made."""
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    return Ascent(steps=steps, learning_rate=0.2 / steps, keep="best")


def dis_normal() -> Recipe:
    """Training on the images as they are (DIS, section 3.4)."""
    return _dis(Clean())


def dis_regular(steps: int = 40) -> Recipe:
    """Half of each batch adversarial in pixels (DIS, section 3.4); ``steps`` of the attack, 40 in the paper."""
    return _dis(RegularAdversarial(attack=_dis_ascent(steps)))


def dis_on_manifold(data: Coded, steps: int = 40, *, independent: bool = False) -> Recipe:
    """Half of each batch adversarial in the codes of ``data``, the training set (DIS, section 3.4).

    ``independent`` for codes on learned manifolds: see :class:`robustutils.strategies.OnManifoldAdversarial`.
    """
    return _dis(OnManifoldAdversarial(data=data, attack=_dis_ascent(steps), independent=independent))


def dis_transformation_adversarial(ranges: str, steps: int = 40) -> Recipe:
    """Half of each batch adversarially transformed (DIS, section 3.4); ``ranges``: "hard" for FONTS, "digits" else."""
    return _dis(TransformationAdversarial(attack=_dis_ascent(steps), ranges=ranges))


def dis_transformation_augmentation(ranges: str, *, identity: bool = True) -> Recipe:
    """Half of each batch transformed at random (DIS, section 3.4); ``identity=False`` as in the released code."""
    return _dis(TransformationAugmentation(ranges=ranges, identity=identity))


def dis_mixture(data: Coded, steps: int = 40, *, independent: bool = False) -> Recipe:
    """A third of each batch clean, a third adversarial in pixels and a third in codes (DIS, Figure 7)."""
    attack = _dis_ascent(steps)
    on_manifold = OnManifoldAdversarial(data=data, attack=attack, independent=independent)
    return _dis(Mixture(on_manifold=on_manifold, attack=attack))


def dis_trades(steps: int = 40) -> Recipe:
    """TRADES (Zhang et al. 2019) in the place of the paper's strategies."""
    return _dis(Trades(steps=steps))


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
    "natural": Recipe(
        architecture="madry_mnist",
        objective=Clean(),
        epochs=6,
        batch_size=128,
        schedule=training.warm_up_and_decay,
        dtype=torch.bfloat16,
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
    "kolter_wong": kolter_wong(0.1),
    "crown_ibp": crown_ibp(0.4),
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
    "acgan": acgan(),
    "acgan_in_full": acgan_in_full(),
}


def recipe(name: str) -> Recipe:
    """The recipe of a defence.

    Raises:
        ValueError: no recipe has this name; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(unknown("defence", name, RECIPES))
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


def recipe_in_seconds(defence: str, eps: float = 0.3) -> Recipe:
    """A defence of the blind-spot chapter on small networks in seconds, so that the profile quick has something to attack.

    ``eps`` is the radius of ``madry``; ``natural``, ``kolter_wong`` and ``wrm`` have none or their own.

    Raises:
        ValueError: no such defence; the message lists those there are.
    """
    small = recipe("small_cnn")
    ramped = RampedAdversarial(eps=eps, steps=3, step_size=eps / 2, ramp=0.8)
    intervals = Certified(margins=interval_margins, eps=0.1, start=0.0)
    made = {
        "natural": small.replace(learning_rate=3e-3),
        "madry": small.replace(objective=ramped, epochs=12, learning_rate=3e-3),
        "kolter_wong": recipe("kolter_wong").replace(objective=intervals, epochs=15, learning_rate=3e-3),
        "wrm": wrm(epochs=1).replace(objective=Wasserstein(steps=5), batch_size=64),
    }
    if defence not in made:
        raise ValueError(unknown("defence", defence, made))
    return made[defence]
