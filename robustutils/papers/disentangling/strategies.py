"""Training strategies: which images make a batch? Objectives for :func:`robustutils.training.fit` (DIS, section 3.4).

A part of the batch stays as it is, the rest is replaced by images that one ascent finds on a manifold, from codes that each
strategy chooses. In training the attack is an ``Ascent(keep="best")``: it makes all its steps, on the model in evaluation
mode, and the image of highest loss is taken. The loss is the mean cross-entropy of the whole batch in one pass, so that in
training mode batch normalisation sees both kinds together.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.attacks import ascend, evaluation_mode
from robustutils.papers.disentangling import fonts
from robustutils.papers.disentangling.latent import Ascent, Coded, Manifold, Pixels, within
from robustutils.threats import Linf


@dataclass(frozen=True, kw_only=True)
class RegularAdversarial:
    """Adversarial training on pixels: the second half of the batch becomes x + delta, ||delta||_inf <= eps."""

    attack: Ascent

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        half = len(x) // 2
        return _replaced(model, x, y, _found(self.attack, model, Pixels(), x[half:], x[half:], y[half:]))


@dataclass(frozen=True, kw_only=True)
class OnManifoldAdversarial:
    """Adversarial training on a manifold: the second half becomes dec(z + zeta), ||zeta||_inf <= eta (DIS, equation 4).

    Args:
        data: the training set with its codes; the labels and their order are those of the training set.
        attack: the ascent.
        independent: whether the second half is drawn anew from the examples whose codes lie within the manifold's bounds, as
            the authors do for learned manifolds, instead of being the examples of the batch. It then has their labels.

    Raises:
        ValueError: the batch's places in the training set are not given, the labels there are others, or none of the codes
            lies within the bounds.
    """

    data: Coded
    attack: Ascent
    independent: bool = False
    wants_rows: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, progress: float, *, rows: Tensor | None = None
    ) -> Tensor:
        half = len(x) // 2
        made, labels = self.examples(model, y[half:], None if rows is None else rows[half:])
        return _replaced(model, x, torch.cat([y[:half], labels]), made)

    def examples(self, model: nn.Module, y: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Adversarial images for a part of a batch, or as many independent ones, and their labels."""
        if rows is None:
            raise ValueError(
                "rows=None: training on a manifold needs the places of the batch in the training set"
            )
        rows = rows.cpu()
        if not torch.equal(self.data.labels[rows], y.cpu()):
            raise ValueError("the labels of the data set with codes are not those of the training set")
        if self.independent:
            valid = within(self.data.manifold, self.data.codes).nonzero().squeeze(1)
            if len(valid) == 0:
                raise ValueError(
                    f"none of the {len(self.data.codes)} codes lies within the bounds of the manifold"
                )
            rows = valid[torch.randint(len(valid), rows.shape)]
        codes, bases, labels = (
            part.to(y.device)
            for part in (self.data.codes[rows], self.data.bases(rows), self.data.labels[rows])
        )
        return _found(self.attack, model, self.data.manifold, codes, bases, labels), labels


@dataclass(frozen=True, kw_only=True)
class TransformationAdversarial:
    """Adversarial training on affine maps: the second half becomes T(x; theta), ||theta - identity||_inf <= eps.

    ``ranges`` names bounds of theta in :data:`.fonts.RANGES`, "hard" for FONTS and "digits" else.
    """

    attack: Ascent
    ranges: str

    def __post_init__(self) -> None:
        fonts.theta_bounds(self.ranges)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        half = len(x) // 2
        codes = x.new_tensor(fonts.IDENTITY).repeat(len(x) - half, 1)
        return _replaced(
            model, x, y, _found(self.attack, model, fonts.Affine(self.ranges), codes, x[half:], y[half:])
        )


@dataclass(frozen=True, kw_only=True)
class TransformationAugmentation:
    """Data augmentation: the second half becomes T(x; theta), theta uniform with ||theta - identity||_inf <= ``eps``.

    theta is then clipped to the ``ranges``, see :class:`TransformationAdversarial`. With ``identity=False`` it is drawn
    around zero, as in the released code, so that the scale is its smallest for every image. There each half has an optimiser
    step of its own; here one step is taken on their mean, as in the other strategies.
    """

    ranges: str
    eps: float = 0.3
    identity: bool = True

    def __post_init__(self) -> None:
        fonts.theta_bounds(self.ranges)
        if not self.eps > 0:
            raise ValueError(f"eps={self.eps}: the radius must be positive")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        half = len(x) // 2
        low, high = (bound.to(x) for bound in fonts.theta_bounds(self.ranges))
        theta = self.eps * (2 * torch.rand(len(x) - half, 6) - 1).to(x)
        if self.identity:
            theta = theta + theta.new_tensor(fonts.IDENTITY)
        return _replaced(model, x, y, fonts.render(x[half:], theta.clamp(low, high)))


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Both kinds of adversarial training: a third clean, a third regular, a third on the manifold (DIS, Figure 7).

    The paper gives no shares; the released code has a variant of thirds. ``attack`` is that on pixels.
    """

    on_manifold: OnManifoldAdversarial
    attack: Ascent
    wants_rows: ClassVar[bool] = True

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, progress: float, *, rows: Tensor | None = None
    ) -> Tensor:
        third = len(x) // 3
        images = x[third : 2 * third]
        regular = _found(self.attack, model, Pixels(), images, images, y[third : 2 * third])
        rest = None if rows is None else rows[2 * third :]
        made, labels = self.on_manifold.examples(model, y[2 * third :], rest)
        return _replaced(model, x, torch.cat([y[: 2 * third], labels]), torch.cat([regular, made]))


@dataclass(frozen=True, kw_only=True)
class Trades:
    """TRADES (Zhang et al. 2019): L(h(x), y) + beta KL(p(x) || p(x')), x' of largest KL with ||x' - x||_inf <= eps.

    x' is found from 0.001 N(0, I) in ``steps`` sign steps that add up to 4/3 eps: 0.01 each for 40 steps at 0.3. Unlike in
    the strategies of DIS, the clean and the adversarial images are the whole batch each; one pass takes both.
    """

    beta: float = 6.0
    eps: float = 0.3
    steps: int = 40

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and 0 < self.eps <= 1 and self.steps >= 1):
            raise ValueError(
                f"beta={self.beta}, eps={self.eps}, steps={self.steps}: beta must not be negative, "
                "eps lie in (0, 1], steps be at least 1"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        with evaluation_mode(model):
            with torch.no_grad():
                clean = model(x).log_softmax(1)
            x_adv = ascend(
                model,
                x,
                y,
                threat=Linf(eps=self.eps),
                delta=0.001 * torch.randn(x.shape).to(x),
                steps=self.steps,
                step_size=4 / 3 * self.eps / self.steps,
                loss=lambda logits, _: _divergence(clean, logits.log_softmax(1)),
                keep_best=False,
            )
        natural, attacked = model(torch.cat([x, x_adv])).chunk(2)
        divergence = _divergence(natural.log_softmax(1), attacked.log_softmax(1)).mean()
        return F.cross_entropy(natural, y) + self.beta * divergence


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of each row of two log-probabilities: [N]."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def _replaced(model: nn.Module, x: Tensor, y: Tensor, made: Tensor) -> Tensor:
    """The mean cross-entropy of a batch whose last images are ``made``."""
    return F.cross_entropy(model(torch.cat([x[: len(x) - len(made)], made])), y)


def _found(
    attack: Ascent, model: nn.Module, manifold: Manifold, codes: Tensor, bases: Tensor, y: Tensor
) -> Tensor:
    """The images of the codes that an ascent finds, from a generator that torch's seeds."""
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    codes = attack(model, manifold, codes, bases, y, generator).codes
    with torch.no_grad():
        return manifold.decode(codes, bases)
