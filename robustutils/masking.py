"""Can a model's gradients be trusted? Symptoms of masked gradients, and a verdict in words.

A model masks its gradients where the loss around the data is bent so that its gradient points nowhere useful, while
adversarial examples remain (EAT, section 3.1; Athalye et al. 2018). The mark is an attack that knows less than the
gradient and does better.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    loss_gradients,
    losses,
    losses_under,
)
from robustutils.outcomes import Measurement
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


@dataclass(frozen=True, eq=False)
class Ratios:
    """Losses [S, N] of the single step and of the strongest attack, S training seeds on the same N examples (EAT, Table 6).

    Measured as the approximation ratio in percent: the ratio of the mean losses of each seed, which no example with a tiny
    loss can dominate. Its interval over the examples is that of 1,000 bootstrap resamples, the same ones for every ratio
    over as many examples, so that two ratios are compared on the same resamples.
    """

    single: np.ndarray
    strong: np.ndarray
    seeds: Sequence[int]
    note: str = ""

    @functools.cached_property
    def per_seed(self) -> np.ndarray:
        """The ratio of each seed: [S]."""
        return self._ratio(slice(None))

    @functools.cached_property
    def resampled(self) -> np.ndarray:
        """The ratio of each seed over each resample: [1000, S]."""
        n = self.single.shape[1]
        resamples = np.random.default_rng(0).integers(n, size=(1000, n))
        return np.stack([self._ratio(chosen) for chosen in resamples])

    def _ratio(self, chosen: Any) -> np.ndarray:
        strongest = np.maximum(self.single, self.strong)
        return 100 * self.single[:, chosen].mean(1) / strongest[:, chosen].mean(1)

    @functools.cached_property
    def each(self) -> np.ndarray:
        """The ratio of each example: [S, N], in percent."""
        strongest = np.maximum(self.single, self.strong)
        unmoved = strongest == 0  # no attack raises a loss that rounds to zero
        return 100 * np.where(unmoved, 1.0, self.single / np.where(unmoved, 1.0, strongest))

    @property
    def mean(self) -> float:
        """The mean over examples of their ratios, the other reading of the paper, averaged over seeds."""
        return float(self.each.mean())

    @property
    def median(self) -> float:
        """The median over examples of their ratios, averaged over seeds."""
        return float(np.median(self.each, axis=1).mean())

    def measured(self, reference: Self | None = None) -> Measurement:
        """The ratio; its effect is the difference to that of a reference, on the seeds that both have."""
        effect: dict[str, Any] = {}
        if reference is not None:
            apart = self - reference
            effect = {"effect": apart.value, "effect_ci95": apart.ci95, "effect_per_seed": apart.per_seed}
        return Measurement(
            self.per_seed.mean(), _central(self.resampled), self.single.shape[1], self.seeds,
            per_seed=self.per_seed, note=self.note, **effect,
            outcomes={"single-step loss": self.single, "strong loss": self.strong},
        )  # fmt: skip

    def __sub__(self, other: Self) -> Measurement:
        """The difference of two ratios in points, on the seeds that both have."""
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        mine, yours = ([list(part.seeds).index(seed) for seed in seeds] for part in (self, other))
        each = self.per_seed[mine] - other.per_seed[yours]
        ends = _central(self.resampled[:, mine] - other.resampled[:, yours])
        return Measurement(each.mean(), ends, self.single.shape[1], seeds, per_seed=each, note=self.note)


def _central(values: np.ndarray) -> tuple[float, float]:
    """The central 95% of bootstrap values [B, S], averaged over seeds first."""
    low, high = np.percentile(np.mean(values, axis=1), [2.5, 97.5])
    return float(low), float(high)


def perturbation_cosines(one: Tensor, other: Tensor, x: Tensor) -> Tensor:
    """Cosine between two perturbations of each image: [N]; 0 where one of them is zero (EAT, section 4.1)."""
    return F.cosine_similarity((one - x).flatten(1), (other - x).flatten(1), eps=1e-12)


def loss_surface(
    model: nn.Module, x: Tensor, y: Tensor, vertical: Tensor, horizontal: Tensor, steps: Tensor
) -> Tensor:
    """The loss at clip(x + s vertical + t horizontal) for all pairs of ``steps`` s, t [P]: [P, P] (EAT, Figures 4, 5).

    ``x`` and the directions are one image [1, C, H, W], ``y`` its label [1].
    """
    s, t = torch.meshgrid(steps, steps, indexing="ij")
    images = x + s.reshape(-1, 1, 1, 1) * vertical + t.reshape(-1, 1, 1, 1) * horizontal
    return losses(model, images.clamp(0, 1), y.expand(len(images))).view(len(steps), len(steps))


def gradient_sign(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """The sign of the loss gradient at each image, +1 where it is zero: like ``x``; kept."""
    sign = kept(loss_gradients, model, x, y).sign()
    return torch.where(sign == 0, 1.0, sign)


def made_orthogonal(along: Tensor, across: Tensor, *, seed: int = 0) -> Tensor:
    """``across`` with as few signs flipped, at random, as make it orthogonal to ``along``; both are of signs +1 and -1.

    An odd number of pixels leaves a product of one (EAT, Figure 4).
    """
    agreement = (along * across).flatten()
    excess = int(agreement.sum()) // 2
    agreeing = (agreement == np.sign(excess)).nonzero().flatten()
    shuffled = torch.randperm(len(agreeing), generator=torch.Generator().manual_seed(seed))
    flipped = agreeing[shuffled[: abs(excess)]]
    flat = across.flatten()
    return flat.index_copy(0, flipped, -flat[flipped]).view_as(across)


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
    threat = Linf(eps=eps)
    fgsm = FGSM(eps=eps)
    pgd = PGD(threat=threat, steps=steps, step_size=2.5 * eps / steps, dtype=dtype)
    single_step, iterated = evaluate(model, fgsm, dataset), evaluate(model, pgd, dataset)
    to_the_end = PGD(threat=threat, steps=steps, step_size=2.5 * eps / steps, drop_fooled=False, dtype=dtype)
    return Diagnosis(
        single_step=single_step,
        random_step=evaluate(model, RFGSM(eps=eps), dataset),
        iterated=iterated,
        gradient_free=evaluate(model, Square(eps=eps, queries=queries), dataset),
        transferred={
            name: AttackResult(clean, kept(correct, model, images, dataset.labels))
            for name, images in transferred.items()
        },
        ratio=approximation_ratio(
            losses_under(model, fgsm, dataset), losses_under(model, to_the_end, dataset)
        ),
        cosine=kept(
            perturbation_cosines,
            later(adversarial, model, fgsm, dataset),
            later(adversarial, model, IFGSM(eps=eps, dtype=dtype), dataset),
            dataset.images,
        )
        .mean()
        .item(),
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
