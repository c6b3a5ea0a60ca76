"""Adversarial examples on a manifold: one ascent over codes, whatever they are the codes of (DIS, section 3).

A :class:`Manifold` makes images of codes and of a base that stays as it is: pixels are their own codes, FONTS has the six
affine parameters of a glyph, a transformation those of an image, a class decoder its latent variables. A regular
adversarial example is found over pixels, an on-manifold one over the codes of a manifold.

:class:`Ascent` and :class:`CarliniAscent` are the attacks; :func:`examples`, :func:`attempts`, :func:`smallest` and
:func:`transferred` run them on a data set, several times for each point, and can be :func:`robustutils.artifacts.kept`.
What these find for a point and an attempt depends on the seed, the point and the attempt, up to rounding not on the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustutils import fonts
from robustutils._dataset import Dataset
from robustutils._files import choose
from robustutils.attacks import cross_entropy, evaluation_mode, margin
from robustutils.evaluation import rate
from robustutils.speed import FastInputGradients, exact
from robustutils.statistics import Interval, Rate, wilson

PROJECTIONS = 5
"""How often a projection alternates between box and ball (DIS, the authors' code)."""
BETAS = (0.9, 0.999)
"""Decay of the two moments of Adam in an attack."""
EDGE = 1e-5
"""Codes this far outside of the bounds still count as within: rounding puts them there."""

# ---- manifolds ----


class Manifold(Protocol):
    """Images as a differentiable function of codes."""

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


@dataclass(frozen=True, eq=False)
class Transformed:
    """A data set whose images are the bases of affine maps, the identity at first: for transformation attacks."""

    dataset: Dataset
    ranges: str = "digits"

    @property
    def manifold(self) -> fonts.Affine:
        """The maps within ``ranges``."""
        return fonts.Affine(self.ranges)

    @property
    def codes(self) -> Tensor:
        """The identity for each image, [N, 6]."""
        return torch.tensor(fonts.IDENTITY).expand(len(self.dataset), -1)

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.dataset.labels

    def bases(self, rows: Tensor) -> Tensor:
        """The images of some examples, [n, C, H, W]."""
        return self.dataset.images[rows]


def within(manifold: Manifold, codes: Tensor) -> Tensor:
    """Whether all codes of an example [N, ...] lie within the bounds of the manifold: bool [N]."""
    low, high = (bound.to(codes) for bound in manifold.bounds())
    return ((codes >= low - EDGE) & (codes <= high + EDGE)).flatten(1).all(1)


# ---- attacks ----


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack has found for N examples.

    Attributes:
        codes: float32 [N, ...].
        correct: bool [N], whether the image decoded from the codes before the attack is classified as labelled.
        success: bool [N], whether that is so and the image decoded from ``codes`` is classified as something else.
        steps: int64 [N], how many updates came before the first iterate with another label: 0 where the random start has
            one, and -1 where none has.
        linf: float32 [N], the largest change of a code.
    """

    codes: Tensor
    correct: Tensor
    success: Tensor
    steps: Tensor
    linf: Tensor


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Adam over codes, all examples at once and each by itself; a finished example leaves the batch."""

    eps: float
    steps: int
    learning_rate: float
    norm: str
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
        return direction * _wide(length / self.size(direction).clamp_min(1e-12), direction)

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
        n = len(codes)
        if n == 0 or codes.dtype != torch.float32 or labels.shape != (n,) or labels.dtype != torch.int64:
            raise ValueError(
                f"codes must be float32 [N, ...] with N > 0 and labels int64 [N], got {codes.dtype} "
                f"{list(codes.shape)} and {labels.dtype} {list(labels.shape)}"
            )
        if len(bases) != n or noise.shape != codes.shape:
            raise ValueError(
                f"{n} codes {list(codes.shape)} with {len(bases)} bases and a start of {list(noise.shape)}"
            )
        codes = codes.detach()
        if radius is None:
            radius = torch.full_like(labels, self.eps, dtype=torch.float32)
        found, steps = codes.clone(), torch.full_like(labels, -1)
        with evaluation_mode(model):
            correct = _answers(model, manifold, codes, bases) == labels
            chosen = correct.nonzero().squeeze(1) if self.keep == "first" else torch.arange(n)
            if len(chosen):
                found[chosen], steps[chosen] = self._climb(
                    _folded(model),
                    manifold,
                    *(part[chosen] for part in (codes, bases, labels, noise, radius)),
                )
            wrong = _answers(model, manifold, found, bases) != labels
        success = correct & wrong & (steps >= 0)
        return Found(found, correct, success, steps, (found - codes).flatten(1).abs().amax(1))

    def _climb(
        self,
        model: nn.Module,
        manifold: Manifold,
        codes: Tensor,
        bases: Tensor,
        labels: Tensor,
        noise: Tensor,
        radius: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The codes that are kept, and the step of the first label change."""
        low, high = (bound.to(codes) for bound in manifold.bounds())
        found, changed = codes.clone(), torch.full_like(labels, -1)
        highest = torch.full_like(radius, -torch.inf)
        rows = torch.arange(len(codes), device=codes.device)
        w = self._start(codes, noise * _wide(radius, noise), low, high)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(self.steps + 1):
            leaf = self._projected(w, codes, radius, low, high).requires_grad_(True)
            with torch.set_grad_enabled(step < self.steps):
                moved = self._codes(leaf, low, high)
                images = manifold.decode(moved, bases)
                with FastInputGradients():
                    logits = model(images).float()
                heights = self._height(logits, labels, moved - codes)
            moved = moved.detach()
            fooled = logits.argmax(1) != labels
            gradient = torch.autograd.grad(heights.sum(), leaf)[0] if step < self.steps else None
            w = leaf.detach()
            if self.keep == "best":
                changed = torch.where(fooled & (changed < 0), step, changed)
                higher = heights.detach() > highest
                found = torch.where(_wide(higher, moved), moved, found)
                highest = torch.where(higher, heights.detach(), highest)
            elif fooled.any() or gradient is None:
                found[rows] = moved
                changed[rows[fooled]] = step
                stay = ~fooled
                rows, w, codes, bases, labels, radius, first, second = (
                    part[stay] for part in (rows, w, codes, bases, labels, radius, first, second)
                )
                gradient = None if gradient is None else gradient[stay]
            if gradient is None or len(rows) == 0:
                break
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            scale = (second / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(1e-8)
            w = w.addcdiv(first, scale, value=self.learning_rate / (1 - BETAS[0] ** (step + 1)))
        return found, changed

    def _start(self, codes: Tensor, delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The variable of the search at codes + delta."""
        raise NotImplementedError

    def _projected(self, w: Tensor, codes: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The variable brought back to where it may be."""
        raise NotImplementedError

    def _codes(self, w: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The codes that it stands for."""
        raise NotImplementedError

    def _height(self, logits: Tensor, labels: Tensor, delta: Tensor) -> Tensor:
        """What is climbed, [N]."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Ascent(_Search):
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

    def _start(self, codes: Tensor, delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return codes + delta

    def _projected(self, w: Tensor, codes: Tensor, radius: Tensor, low: Tensor, high: Tensor) -> Tensor:
        eps = _wide(radius, codes)
        if self.norm == "linf":
            return w.clamp(low, high).clamp(codes - eps, codes + eps)
        for _ in range(PROJECTIONS):
            delta = w.clamp(low, high) - codes
            w = codes + delta * (eps / _wide(self.size(delta).clamp_min(1e-12), delta)).clamp_max(1)
        return w

    def _codes(self, w: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return w

    def _height(self, logits: Tensor, labels: Tensor, delta: Tensor) -> Tensor:
        return cross_entropy(logits, labels)


@dataclass(frozen=True, kw_only=True)
class CarliniAscent(_Search):
    """Carlini & Wagner's objective in l2 over codes, one constant for all (DIS, supplement; the authors' code).

    Lowers ||delta||_2 + max(z_y - max_{j != y} z_j, -``confidence``) over w, where the codes are low + (high - low)
    (tanh(w) + 1) / 2: the bounds need no projection. The radius ``eps`` bounds the random start alone, not what is found.
    In the authors' code the true logit is set to 0 before the maximum, so that other classes count from 0; here it is left
    out. :mod:`robustutils.carlini` searches the constant too, which this attack does not.
    """

    eps: float = 1.5
    steps: int = 120
    learning_rate: float = 0.005
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


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """[N] as [N, 1, ...], to go with ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _answers(model: nn.Module, manifold: Manifold, codes: Tensor, bases: Tensor) -> Tensor:
    """The class of each decoded image in float32: int64 [N]."""
    with exact(codes):
        return model(manifold.decode(codes, bases)).argmax(1)


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


# ---- several attempts on the points of a data set ----


def examples(
    model: nn.Module,
    attack: Ascent | CarliniAscent,
    data: Coded,
    *,
    points: int,
    tries: int = 5,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, Tensor]:
    """Codes that ``tries`` attempts find for each of the first ``points`` examples; on the CPU.

    Points that are wrong before the attack, or whose codes lie outside of the bounds, are not attacked.

    Returns:
        ``codes`` float32 [points, tries, ...]; ``correct``, ``success`` bool and ``steps`` int64 [points, tries] as in
        :class:`Found`; ``valid`` bool [points, tries], whether the codes of the data set lie within the bounds.

    Raises:
        ValueError: more points than examples, or no attempt.
    """
    rows = _first(data, points)
    if tries < 1:
        raise ValueError(f"tries={tries}: at least one attempt is needed")
    codes, valid = data.codes[rows], within(data.manifold, data.codes[rows])
    correct = _judged(model, data, rows, codes)
    attacked = (correct & valid).nonzero().squeeze(1)
    found = _searched(
        model,
        attack,
        data,
        attacked.repeat_interleave(tries),
        torch.arange(tries).repeat(len(attacked)),
        seed=seed,
        batch_size=batch_size,
    )
    made = codes.unsqueeze(1).repeat(1, tries, *[1] * (codes.ndim - 1))
    success, steps = torch.zeros(points, tries, dtype=torch.bool), torch.full((points, tries), -1)
    if found is not None:
        made[attacked] = found.codes.view(len(attacked), tries, *codes.shape[1:])
        success[attacked] = found.success.view(-1, tries)
        steps[attacked] = found.steps.view(-1, tries)
    each = {"correct": correct, "valid": valid}
    return {
        "codes": made,
        "success": success,
        "steps": steps,
        **{name: part.unsqueeze(1).repeat(1, tries) for name, part in each.items()},
    }


def attempts(
    model: nn.Module,
    attack: Ascent | CarliniAscent,
    data: Coded,
    *,
    points: int,
    tries: int = 5,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, Tensor]:
    """How far :func:`examples` come, without the examples: all of it [points, tries], on the CPU.

    Returns:
        ``success``, ``correct``, ``valid`` bool and ``steps`` int64 as there; ``code_linf``, ``code_l2``, ``image_linf``,
        ``image_l2`` float32, the distances between codes and between decoded images, 0 where a point was not attacked.

    Raises:
        ValueError: more points than examples, or no attempt.
    """
    found = examples(model, attack, data, points=points, tries=tries, seed=seed, batch_size=batch_size)
    made = found.pop("codes").flatten(0, 1)
    rows = torch.arange(points).repeat_interleave(tries)
    distances: dict[str, list[Tensor]] = {}
    for part, codes in zip(rows.split(1000), made.split(1000), strict=True):
        bases, before = data.bases(part), data.codes[part]
        with torch.no_grad():
            moved = (data.manifold.decode(codes, bases) - data.manifold.decode(before, bases)).flatten(1)
        for name, delta in (("code", (codes - before).flatten(1)), ("image", moved)):
            distances.setdefault(f"{name}_linf", []).append(delta.abs().amax(1))
            distances.setdefault(f"{name}_l2", []).append(delta.norm(dim=1))
    return found | {name: torch.cat(parts).view(points, tries) for name, parts in distances.items()}


def smallest(
    model: nn.Module,
    attack: Ascent,
    data: Coded,
    *,
    points: int,
    rounds: int = 10,
    seed: int = 0,
    batch_size: int = 500,
) -> dict[str, Tensor]:
    """The smallest change of codes that fools, for each of the first ``points`` examples, by bisection over the radius.

    Every point has a radius of its own: ``attack.eps`` in the first round, then halfway between the largest one that held
    and the smallest change that was found. A point that withstands ``attack.eps`` is left. All rounds take the same
    direction for the start. An attack may miss what is there, so that these are upper bounds, exact to
    eps / 2^(``rounds`` - 1) where it does not.

    Returns:
        ``size`` float32 [points] in the norm of the attack: 0 where the model is wrong already, inf where nothing was found
        within ``attack.eps``; ``valid`` bool [points] as in :func:`examples`, with a size of inf where it is false.

    Raises:
        ValueError: more points than examples, or no round.
    """
    rows = _first(data, points)
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    codes, valid = data.codes[rows], within(data.manifold, data.codes[rows])
    correct = _judged(model, data, rows, codes)
    size = torch.where(correct, torch.inf, 0.0)
    held, radius = torch.zeros(points), torch.full((points,), attack.eps)
    left = (correct & valid).nonzero().squeeze(1)
    for _ in range(rounds):
        found = _searched(
            model, attack, data, left, torch.zeros_like(left), radius[left], seed=seed, batch_size=batch_size
        )
        if found is None:
            break
        moved = attack.size(found.codes - codes[left])
        size[left] = torch.where(found.success, torch.minimum(moved, size[left]), size[left])
        held[left] = torch.where(found.success, held[left], radius[left])
        left = left[size[left].isfinite()]
        radius = (held + size) / 2
    return {"size": size.masked_fill(~valid, torch.inf), "valid": valid}


def transferred(model: nn.Module, data: Coded, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`examples` of another model do to this one.

    Returns:
        ``correct``, ``success``, ``valid`` bool [points, tries] as there, for this model: ``success`` where the point is
        correct and the other model's example, whether it fooled that one or not, is wrong.
    """
    points, tries = found["success"].shape
    rows = torch.arange(points)
    correct = _judged(model, data, rows, data.codes[rows]).unsqueeze(1).repeat(1, tries)
    each = rows.repeat_interleave(tries)
    stands = _judged(model, data, each, found["codes"].flatten(0, 1)).view(points, tries)
    return {"correct": correct, "success": correct & ~stands, "valid": found["valid"]}


def _first(data: Coded, points: int) -> Tensor:
    """The places of the first ``points`` examples."""
    if not 1 <= points <= len(data.labels):
        raise ValueError(
            f"points={points}: there are {len(data.labels)} examples, so 1 to {len(data.labels)}"
        )
    return torch.arange(points)


def _judged(model: nn.Module, data: Coded, rows: Tensor, codes: Tensor) -> Tensor:
    """Whether images decoded from ``codes`` of the examples ``rows`` are classified as labelled: bool [n] on the CPU."""
    device = next(model.parameters()).device
    with evaluation_mode(model):
        answers = [
            _answers(model, data.manifold, made.to(device), data.bases(part).to(device)).cpu()
            for part, made in zip(rows.split(1000), codes.split(1000), strict=True)
        ]
    return torch.cat(answers) == data.labels[rows]


def _searched(
    model: nn.Module,
    attack: Ascent | CarliniAscent,
    data: Coded,
    rows: Tensor,
    tries: Tensor,
    radius: Tensor | None = None,
    *,
    seed: int,
    batch_size: int,
) -> Found | None:
    """What an attack finds for some examples, each in one of its attempts, on the CPU; None for no examples."""
    device = next(model.parameters()).device
    parts = []
    for chosen in torch.arange(len(rows)).split(batch_size):
        if len(chosen) == 0:
            return None
        places = rows[chosen]
        codes = data.codes[places]
        noise = [
            attack.noise(codes[:1].shape, _generator(seed, row, attempt))
            for row, attempt in zip(places.tolist(), tries[chosen].tolist(), strict=True)
        ]
        found = attack.search(
            model,
            data.manifold,
            codes.to(device),
            data.bases(places).to(device),
            data.labels[places].to(device),
            torch.cat(noise).to(device),
            None if radius is None else radius[chosen].to(device),
        )
        parts.append([getattr(found, name).cpu() for name in Found.__dataclass_fields__])
    return Found(*map(torch.cat, zip(*parts, strict=True)))


def _generator(*key: int) -> torch.Generator:
    """A generator for each seed, point and attempt; torch's takes 32 bits."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


# ---- rates ----


def success_of_points(found: Mapping[str, Tensor], *, as_coded: bool = False) -> tuple[Tensor, Tensor]:
    """Share of the attempts that succeed at each point that counts, float64 [n] in percent, and their places, int64 [n].

    A point counts where the model is right before the attack and the codes lie within the bounds. In the authors' code, with
    ``as_coded``, it counts wherever the model is right, and never succeeds outside of the bounds: the rate is lower.

    Args:
        found: ``success``, ``correct`` and ``valid``, bool [points, tries].
        as_coded: the authors' denominator.

    Raises:
        ValueError: no point counts.
    """
    counts = found["correct"][:, 0] if as_coded else (found["correct"] & found["valid"])[:, 0]
    if not counts.any():
        raise ValueError(f"none of {len(counts)} points is correct and valid: no success rate")
    hits = (found["success"] & found["correct"] & found["valid"])[counts]
    return 100 * hits.double().mean(1), counts.nonzero().squeeze(1)


def success_rate(found: Mapping[str, Tensor], *, as_coded: bool = False) -> tuple[float, Interval]:
    """Successful attempts over all attempts on points that count, in percent, and its 95% interval (DIS, section 3.1).

    The attempts on a point go together, so the interval is Wilson's for as many trials as there are points: as if the
    attempts on a point all agreed, which at worst makes it too wide.
    """
    shares, _ = success_of_points(found, as_coded=as_coded)
    low, high = wilson(shares.sum().item() / 100, len(shares))
    return shares.mean().item(), (100 * low, 100 * high)


def worst_case(found: Mapping[str, Tensor], *, as_coded: bool = False) -> Rate:
    """Points that at least one of the attempts succeeds at, over points that count."""
    return rate(success_of_points(found, as_coded=as_coded)[0] > 0)
