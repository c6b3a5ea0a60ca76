"""The strategies of training that DIS compares, and its VAE-GANs."""

from dataclasses import dataclass

import torch

from robustutils.objectives import Clean, Objective
from robustutils.papers.disentangling.latent import Ascent, Coded
from robustutils.papers.disentangling.strategies import (
    Mixture,
    OnManifoldAdversarial,
    RegularAdversarial,
    Trades,
    TransformationAdversarial,
    TransformationAugmentation,
)
from robustutils.papers.disentangling.vae_gan import VaeGanLoss
from robustutils.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """A learning-rate schedule: ``decay`` to the number of epochs begun, parts of an epoch counted from its beginning.

    At progress t of ``epochs`` it is decay^(epochs t + 1): in epoch e and at its share f, decay^(e + 1 + f) (DIS, the
    authors' code, with 0.95 for classifiers and 0.9 for VAE-GANs).
    """

    decay: float
    epochs: int

    def __post_init__(self) -> None:
        if not (0 < self.decay <= 1 and self.epochs >= 1):
            raise ValueError(
                f"decay={self.decay}, epochs={self.epochs}: decay must lie in (0, 1], epochs be at least 1"
            )

    def __call__(self, progress: float) -> float:
        return self.decay ** (self.epochs * progress + 1)


def vae_gan(beta: float, *, narrow: bool = False, epochs: int = 30) -> Recipe:
    """A VAE-GAN (DIS, supplement): Adam with betas (0.5, 0.9), 30 epochs of batches of 100, L2 of 1e-4.

    The learning rate falls by 10% in each of the 30 epochs, and over fewer or more ``epochs`` to the same end. With
    ``narrow`` it has half of the channels and trains in bfloat16, for the CPU.

    Args:
        beta: weight of the reconstruction, see :func:`.vae_gan.vae_gan_beta`.
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
        schedule=Exponential(decay=0.9, epochs=30),
        dtype=torch.bfloat16 if narrow else torch.float32,
    )


def _recipe(objective: Objective) -> Recipe:
    """DIS, section 3.4: Adam with betas (0.5, 0.9), 20 epochs of batches of 100, L2 of 1e-4, and 5% less rate each epoch."""
    return Recipe(
        architecture="dis_cnn",
        objective=objective,
        epochs=20,
        batch_size=100,
        learning_rate=0.01,
        betas=(0.5, 0.9),
        weight_decay=1e-4,
        schedule=Exponential(decay=0.95, epochs=20),
    )


def _ascent(steps: int) -> Ascent:
    """The attack in training: 40 steps of 0.005 in the paper, else steps that add up to the same 0.2; all are made."""
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1")
    return Ascent(steps=steps, learning_rate=0.2 / steps, keep="best")


def normal() -> Recipe:
    """Training on the images as they are (DIS, section 3.4)."""
    return _recipe(Clean())


def regular(steps: int = 40) -> Recipe:
    """Half of each batch adversarial in pixels (DIS, section 3.4); ``steps`` of the attack, 40 in the paper."""
    return _recipe(RegularAdversarial(attack=_ascent(steps)))


def on_manifold(data: Coded, steps: int = 40, *, independent: bool = False) -> Recipe:
    """Half of each batch adversarial in the codes of ``data``, the training set (DIS, section 3.4).

    ``independent`` for codes on learned manifolds: see :class:`.strategies.OnManifoldAdversarial`.
    """
    return _recipe(OnManifoldAdversarial(data=data, attack=_ascent(steps), independent=independent))


def transformation_adversarial(ranges: str, steps: int = 40) -> Recipe:
    """Half of each batch adversarially transformed (DIS, section 3.4); ``ranges``: "hard" for FONTS, "digits" else."""
    return _recipe(TransformationAdversarial(attack=_ascent(steps), ranges=ranges))


def transformation_augmentation(ranges: str, *, identity: bool = True) -> Recipe:
    """Half of each batch transformed at random (DIS, section 3.4); ``identity=False`` as in the released code."""
    return _recipe(TransformationAugmentation(ranges=ranges, identity=identity))


def mixture(data: Coded, steps: int = 40, *, independent: bool = False) -> Recipe:
    """A third of each batch clean, a third adversarial in pixels and a third in codes (DIS, Figure 7)."""
    attack = _ascent(steps)
    on_manifold = OnManifoldAdversarial(data=data, attack=attack, independent=independent)
    return _recipe(Mixture(on_manifold=on_manifold, attack=attack))


def trades(steps: int = 40) -> Recipe:
    """TRADES (Zhang et al. 2019) in the place of the paper's strategies."""
    return _recipe(Trades(steps=steps))


def strategies(coded: Coded, ranges: str, steps: int = 40, *, independent: bool = False) -> dict[str, Recipe]:
    """The paper's strategies by name, for a training set with its codes (DIS, section 3.4)."""
    return {
        "normal": normal(),
        "regular": regular(steps),
        "on_manifold": on_manifold(coded, steps, independent=independent),
        "transformation_adversarial": transformation_adversarial(ranges, steps),
        "transformation_augmentation": transformation_augmentation(ranges),
    }
