"""Adversarial examples on a manifold: one ascent over codes, whatever they are the codes of (DIS, section 3)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustutils.attacks import cross_entropy, evaluation_mode, margin, wide
from robustutils.data import Dataset
from robustutils.registry import choose
from robustutils.speed import FastInputGradients, exact

PROJECTIONS = 5
"""How often a projection alternates between box and ball (DIS, the authors' code)."""
BETAS = (0.9, 0.999)
"""Decay of the two moments of Adam in an attack."""
EDGE = 1e-5
"""Codes this far outside of the bounds still count as within: rounding puts them there."""

# ---- manifolds ----


class Manifold(Protocol):
    """Images as a differentiable function of codes, and of a base for each that stays as it is.

    Pixels are their own codes, FONTS has the six affine parameters of a glyph, a transformation those of an image, a class
    decoder its latent variables. A regular adversarial example is found over pixels, an on-manifold one over other codes.
    """

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] of codes [N, ...] and of what does not change, [N, ...]."""
        ...

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest codes; they broadcast against codes."""
        ...


class Coded(Protocol):
    """A data set whose images have codes on a manifold."""

    @property
    def manifold(self) -> Manifold:
        """What the codes are the codes of."""
        ...

    @property
    def codes(self) -> Tensor:
        """float32 [N, ...]."""
        ...

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        ...

    def bases(self, rows: Tensor) -> Tensor:
        """What stays as it is, for some examples, int64 [n]: [n, ...]."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Every image: the codes are its pixels, and the bases are not looked at."""

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        return codes

    def bounds(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(0.0), torch.tensor(1.0)


@dataclass(frozen=True, eq=False)
class InPixels:
    """A data set whose codes are its pixels: what a regular attack changes."""

    dataset: Dataset

    @property
    def manifold(self) -> Pixels:
        """All images."""
        return Pixels()

    @property
    def codes(self) -> Tensor:
        """The images."""
        return self.dataset.images

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.dataset.labels

    def bases(self, rows: Tensor) -> Tensor:
        """Nothing is needed: ``rows`` itself."""
        return rows


def within(manifold: Manifold, codes: Tensor) -> Tensor:
    """Whether all codes of an example [N, ...] lie within the bounds of the manifold: bool [N]."""
    low, high = (bound.to(codes) for bound in manifold.bounds())
    return ((codes >= low - EDGE) & (codes <= high + EDGE)).flatten(1).all(1)


def answers(model: nn.Module, manifold: Manifold, codes: Tensor, bases: Tensor) -> Tensor:
    """The class of the image decoded from each of the codes, in float32: int64 [N]."""
    with exact(codes):
        return model(manifold.decode(codes, bases)).argmax(1)


# ---- attacks ----


def check_inputs(codes: Tensor, bases: Tensor, labels: Tensor, noise: Tensor) -> None:
    """Check what an attack is given: codes and noise float32 [N, ...], N > 0, bases [N, ...] and labels int64 [N].

    Raises:
        ValueError: they have other types or do not fit each other.
    """
    n = len(codes)
    of_types = n > 0 and (codes.dtype, labels.dtype) == (torch.float32, torch.int64)
    if not of_types or len(bases) != n or labels.shape != (n,) or noise.shape != codes.shape:
        raise ValueError(
            "codes must be float32 [N, ...] with N > 0, labels int64 [N], bases as many and the start like the codes, got "
            f"{codes.dtype} {list(codes.shape)} and {labels.dtype} {list(labels.shape)} with {len(bases)} bases "
            f"and a start of {list(noise.shape)}"
        )


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack has found for N examples.

    Attributes:
        codes: float32 [N, ...].
        correct: bool [N], whether the image decoded from the codes before the attack is classified as labelled.
        success: bool [N], whether that is so and the image decoded from ``codes`` is classified as something else.
        steps: int64 [N], how many updates came before the first iterate with another label: 0 where the random start has
            one, and -1 where none has.
    """

    codes: Tensor
    correct: Tensor
    success: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Projected ascent of the cross-entropy over codes, with Adam (DIS, section 3.1; the authors' code).

    An iterate is projected before it is looked at, ``steps`` + 1 of them: clipped to the bounds of the manifold, then to the
    ball of radius ``eps`` around the codes. In l2 the two alternate up to ``PROJECTIONS`` times. In linf, and for codes
    within the bounds in l2 too, once is enough, because the second clip does not undo the first. Of codes whose ball does
    not reach into the bounds, the point of the ball is taken.

    Args:
        eps: radius of the ball in code space; the authors take 0.3, in l2 1.5 for pixels and 0.3 for codes.
        steps: number of updates.
        learning_rate: of Adam.
        norm: "linf" or "l2".
        keep: "first" stops an example at its first change of label; "best" makes all steps and keeps the iterate of highest
            loss, as in training.

    >>> Ascent()(model, Pixels(), images, images, labels).success  # doctest: +SKIP
    """

    eps: float = 0.3
    steps: int = 40
    learning_rate: float = 0.005
    norm: str = "linf"
    keep: str = "first"

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf") or not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"eps={self.eps}, learning_rate={self.learning_rate}: "
                "eps must be finite and not negative, the learning rate finite and positive"
            )
        if self.steps < 0:
            raise ValueError(f"steps={self.steps}: must not be negative")
        choose("norm", self.norm, ("linf", "l2"))
        choose("keep", self.keep, ("first", "best"))

    def __call__(
        self,
        model: nn.Module,
        manifold: Manifold,
        codes: Tensor,
        bases: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Found:
        """Attack from a random start. Without a generator it is drawn from torch's own.

        Args:
            model: takes float32 [N, C, H, W] in [0, 1], returns logits [N, K]; attacked in evaluation mode.
            manifold: makes images of codes.
            codes: float32 [N, ...], N > 0.
            bases: [N, ...], what the manifold asks for.
            labels: int64 [N].
            generator: of the CPU.

        Raises:
            ValueError: codes, bases and labels do not fit each other.
        """
        return self.search(
            model, manifold, codes, bases, labels, self.noise(codes.shape, generator).to(codes.device)
        )

    def noise(self, shape: torch.Size, generator: torch.Generator | None = None) -> Tensor:
        """Random starts for a radius of 1, float32 of ``shape`` [N, ...], on the CPU.

        A direction drawn from N(0, I) is scaled to a length that is uniform in [0, 1]. So small lengths are more frequent
        than in a uniform draw from the ball.
        """
        direction = torch.randn(shape, generator=generator)
        length = torch.rand(len(direction), generator=generator)
        return direction * wide(length / self.size(direction).clamp_min(1e-12), direction)

    def size(self, delta: Tensor) -> Tensor:
        """The norm of changes [N, ...]: [N]."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def search(
        self,
        model: nn.Module,
        manifold: Manifold,
        codes: Tensor,
        bases: Tensor,
        labels: Tensor,
        noise: Tensor,
        radius: Tensor | None = None,
    ) -> Found:
        """Attack from ``codes`` + radius * ``noise``, with a radius for each example, [N], or ``eps``.

        With ``keep`` = "first" examples that are wrong before the attack are left as they are.
        """
        check_inputs(codes, bases, labels, noise)
        codes = codes.detach()
        if radius is None:
            radius = torch.full_like(labels, self.eps, dtype=torch.float32)
        found, steps = codes.clone(), torch.full_like(labels, -1)
        with evaluation_mode(model):
            correct = answers(model, manifold, codes, bases) == labels
            chosen = correct.nonzero().squeeze(1) if self.keep == "first" else torch.arange(len(codes))
            if len(chosen):
                given = (part[chosen] for part in (codes, bases, labels, noise, radius))
                found[chosen], steps[chosen] = self.climb(_folded(model), manifold, *given)
            wrong = answers(model, manifold, found, bases) != labels
        return Found(found, correct, correct & wrong & (steps >= 0), steps)

    def climb(self, model: nn.Module, manifold: Manifold, *given: Tensor) -> tuple[Tensor, Tensor]:
        """The codes that are kept, and the step of the first label change, of what :meth:`search` is given."""
        codes, bases, labels, noise, radius = given
        low, high = (bound.to(codes) for bound in manifold.bounds())
        found, changed = codes.clone(), torch.full_like(labels, -1)
        rows, highest = torch.arange(len(codes), device=codes.device), torch.full_like(radius, -torch.inf)
        w = self._start(codes, noise * wide(radius, noise), low, high)
        moments = [torch.zeros_like(w), torch.zeros_like(w)]
        for step in range(self.steps + 1):
            w = self._projected(w, codes, radius, low, high).requires_grad_(True)
            with torch.set_grad_enabled(step < self.steps):
                z = self._codes(w, low, high)
                images = manifold.decode(z, bases)
                with FastInputGradients():
                    logits = model(images).float()
                height = self._height(logits, labels, z - codes)
            fooled, higher = logits.argmax(1) != labels, height.detach() > highest
            highest = torch.where(higher, height.detach(), highest)
            if self.keep == "best":
                z = torch.where(wide(higher, z), z, found)
            found[rows] = z.detach()
            changed[rows] = torch.where(fooled & (changed[rows] < 0), step, changed[rows])
            if step == self.steps or (self.keep == "first" and fooled.all()):
                break
            (gradient,) = torch.autograd.grad(height.sum(), w)
            batch = [rows, highest, codes, bases, labels, radius, w.detach(), gradient, *moments]
            if self.keep == "first" and fooled.any():
                batch = [part[~fooled] for part in batch]
            rows, highest, codes, bases, labels, radius, w, gradient, *moments = batch
            w = self._after(w, gradient, moments, step)
        return found, changed

    def _after(self, w: Tensor, gradient: Tensor, moments: list[Tensor], step: int) -> Tensor:
        """The variable after an update of Adam (Kingma & Ba 2015), which changes its two moments in place."""
        first, second = moments
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (second / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(1e-8)
        return w.addcdiv(first, scale, value=self.learning_rate / (1 - BETAS[0] ** (step + 1)))

    def _start(self, codes: Tensor, delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The variable of the search at codes + delta."""
        return codes + delta

    def _projected(self, w: Tensor, codes: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The variable brought back to where it may be."""
        eps = wide(radius, codes)
        if self.norm == "linf":
            return w.clamp(low, high).clamp(codes - eps, codes + eps)
        for _ in range(PROJECTIONS):
            delta = w.clamp(low, high) - codes
            w = codes + delta * (eps / wide(self.size(delta).clamp_min(1e-12), delta)).clamp_max(1)
        return w

    def _codes(self, w: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The codes that the variable stands for."""
        return w

    def _height(self, logits: Tensor, labels: Tensor, delta: Tensor) -> Tensor:
        """What is climbed, [N]."""
        return cross_entropy(logits, labels)


@dataclass(frozen=True, kw_only=True)
class CarliniAscent(Ascent):
    """Carlini & Wagner's objective in l2 over codes, one constant for all (DIS, supplement; the authors' code).

    Lowers ||delta||_2 + max(z_y - max_{j != y} z_j, -``confidence``) over w, where the codes are low + (high - low)
    (tanh(w) + 1) / 2: the bounds need no projection. The radius ``eps`` bounds the random start alone, not what is found.
    In the authors' code the true logit is set to 0 before the maximum, so that other classes count from 0; here it is left
    out. :mod:`.carlini` searches the constant too, which this attack does not.
    """

    eps: float = 1.5
    steps: int = 120
    norm: str = "l2"
    confidence: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.confidence >= 0:
            raise ValueError(f"confidence={self.confidence}: must not be negative")

    def _start(self, codes: Tensor, delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
        inside = ((codes + delta).clamp(low, high) - low) / (high - low)
        return torch.atanh((2 * inside - 1) * (1 - 1e-5))  # the bounds themselves lie at infinity

    def _projected(self, w: Tensor, codes: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return w

    def _codes(self, w: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return low + (high - low) * (torch.tanh(w) + 1) / 2

    def _height(self, logits: Tensor, labels: Tensor, delta: Tensor) -> Tensor:
        return margin(logits, labels).clamp_max(self.confidence) - delta.flatten(1).norm(dim=1)


def _folded(model: nn.Module) -> nn.Module:
    """The same function in evaluation mode, up to rounding, without batch normalisation where convolutions can do it.

    It saves about a tenth of an attack's time on a chain of convolutions; other networks come back as they are.
    """
    if type(model) is not nn.Sequential:
        return model
    parts: list[nn.Module] = []
    for part in model:
        if type(part) is nn.BatchNorm2d and parts and type(parts[-1]) is nn.Conv2d:
            parts[-1] = fuse_conv_bn_eval(parts[-1], part)
        else:
            parts.append(_folded(part))
    return nn.Sequential(*parts)
