"""Can a model's gradients be trusted? Symptoms of masked gradients, and a verdict in words.

A model masks its gradients where the loss around the data is bent so that its gradient points nowhere useful, while
adversarial examples remain (EAT, section 3.1; Athalye et al. 2018). The mark is an attack that knows less than the
gradient and does better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robustutils.artifacts import Artifact, kept, later
from robustutils.attacks import FGSM, IFGSM, PGD, RFGSM
from robustutils.data import Dataset
from robustutils.evaluation import (
    AttackResult,
    Model,
    adversarial,
    correct,
    evaluate,
    gradient_norms,
    losses_under,
)
from robustutils.square import Square
from robustutils.statistics import paired_difference
from robustutils.tables import Table, plain
from robustutils.threats import Linf


def beaten_by(white_box: AttackResult, others: Mapping[str, AttackResult]) -> list[str]:
    """The names of the attacks that find significantly more errors than the white-box attack does.

    Significant: the 95% interval of the paired difference (Newcombe) lies above zero.
    """
    own = (~white_box.attacked).numpy()
    return [
        name for name, other in others.items() if paired_difference((~other.attacked).numpy(), own)[1][0] > 0
    ]


def approximation_ratio(single: Tensor, strong: Tensor) -> float:
    """Mean loss of the single step over mean loss of the strongest attack, in percent (EAT, section 4.1, Table 6).

    ``single`` and ``strong`` are losses [..., N] of the same examples; the single step counts as one of the strong ones.
    Near 100 the loss is close to linear around the data; near 0 the single step has lost its way.
    """
    return float(100 * single.double().mean() / torch.maximum(single, strong).double().mean())


def perturbation_cosines(one: Tensor, other: Tensor, x: Tensor) -> Tensor:
    """Cosine between two perturbations of each image: [N]; 0 where one of them is zero (EAT, section 4.1)."""
    return F.cosine_similarity((one - x).flatten(1), (other - x).flatten(1), eps=1e-12)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the attacks found on the same examples, and what that says about the model's gradients."""

    single_step: AttackResult
    random_step: AttackResult
    iterated: AttackResult
    gradient_free: AttackResult
    transferred: Mapping[str, AttackResult]
    ratio: float
    """Approximation ratio in percent."""
    cosine: float
    """Mean cosine between the perturbations of the single step and of iterated FGSM."""
    gradient_norm: float
    """Mean l2 norm of the loss gradient."""

    def single_step_beaten_by(self) -> list[str]:
        """Which transferred single steps do better than the white-box single step."""
        return beaten_by(self.single_step, self.transferred)

    def iterated_beaten_by(self) -> list[str]:
        """Which attacks without the model's gradient do better than the iterated white-box attack."""
        return beaten_by(self.iterated, {"the gradient-free attack": self.gradient_free, **self.transferred})

    @property
    def masked(self) -> bool:
        """Whether an attack that knows less beats one that follows the gradient."""
        return bool(self.single_step_beaten_by() or self.iterated_beaten_by())

    def sentence(self) -> str:
        """The verdict in words."""
        if found := self.iterated_beaten_by():
            return (
                "masked: even the iterated attack is beaten by "
                f"{_listed(found)}; no white-box number of this model can be trusted"
            )
        fgsm, rfgsm, pgd = (
            f"{verdicts.error_rate().percent:.1f}%"
            for verdicts in (self.single_step, self.random_step, self.iterated)
        )
        if found := self.single_step_beaten_by():
            return (
                f"masked: the single step ({fgsm}) is beaten by {_listed(found)}; a random step first reaches {rfgsm}, "
                f"the iterated attack {pgd}"
            )
        if beaten_by(self.single_step, {"": self.random_step}):
            return (
                f"suspicious: a random step first raises the error from {fgsm} to {rfgsm}, but nothing that knows "
                f"less beats the gradient, and a loss that is merely far from linear would do the same; judge by the "
                f"iterated attack ({pgd})"
            )
        return f"not masked: no attack that knows less than the gradient beats it; judge by the iterated attack ({pgd})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def diagnose(
    model: Model,
    dataset: Dataset,
    *,
    eps: float,
    transferred: Mapping[str, Tensor | Artifact],
    steps: int = 40,
    queries: int = 1000,
    dtype: torch.dtype = torch.bfloat16,
) -> Diagnosis:
    """Look for masked gradients: FGSM, R+FGSM, PGD, transferred examples and the square attack on the same images.

    Args:
        model: takes float32 [N, C, H, W] in [0, 1], returns logits [N, K].
        dataset: the images to attack.
        eps: linf radius.
        transferred: by name of their source, adversarial examples [N, C, H, W] of the same images.
        steps: of PGD, each of 2.5 eps / steps.
        queries: of the square attack.
        dtype: of PGD's passes.

    Raises:
        ValueError: the model classifies no image correctly, so that nothing is left to attack.
    """
    clean = kept(correct, model, dataset.images, dataset.labels)
    if not clean.any():
        raise ValueError(
            f"the model classifies none of the {len(dataset)} images of {dataset.name} correctly: nothing is left to "
            "attack. It must take pixels in [0, 1] and know the classes in the data set's order"
        )
    fgsm = FGSM(eps=eps)
    pgd = PGD(threat=Linf(eps=eps), steps=steps, step_size=2.5 * eps / steps, dtype=dtype)
    single_step, iterated = evaluate(model, fgsm, dataset), evaluate(model, pgd, dataset)
    cosines = kept(
        perturbation_cosines,
        later(adversarial, model, fgsm, dataset),
        later(adversarial, model, IFGSM(eps=eps, dtype=dtype), dataset),
        dataset.images,
    )
    to_the_end = losses_under(model, replace(pgd, drop_fooled=False), dataset)
    return Diagnosis(
        single_step=single_step,
        random_step=evaluate(model, RFGSM(eps=eps), dataset),
        iterated=iterated,
        gradient_free=evaluate(model, Square(eps=eps, queries=queries), dataset),
        transferred={
            name: AttackResult(clean, kept(correct, model, images, dataset.labels))
            for name, images in transferred.items()
        },
        ratio=approximation_ratio(losses_under(model, fgsm, dataset), to_the_end),
        cosine=cosines.mean().item(),
        gradient_norm=kept(gradient_norms, model, dataset.images, dataset.labels).mean().item(),
    )


def table(diagnoses: Mapping[str, Diagnosis]) -> Table:
    """Errors in percent under each attack, the symptoms, and the verdict: a line for each model."""
    rows = []
    for name, seen in diagnoses.items():
        found = (seen.single_step, seen.random_step, seen.iterated, seen.gradient_free)
        rates = [verdicts.error_rate().percent for verdicts in found]
        carried = max((v.error_rate().percent for v in seen.transferred.values()), default=math.nan)
        symptoms = (seen.ratio, f"{seen.cosine:.3f}", f"{seen.gradient_norm:.4f}")
        rows.append((name, *rates, carried, *symptoms, seen.sentence()))
    attacks = "FGSM (%), R+FGSM (%), PGD (%), square (%), highest transfer (%)"
    return plain(f"model, {attacks}, ratio (%), cosine, gradient norm, verdict", rows)
