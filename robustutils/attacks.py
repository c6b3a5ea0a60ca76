"""Attacks: how does the adversary move?

An attack is a frozen dataclass of hyperparameters and a callable ``attack(model, x, y, generator=None) -> x_adv``.
``model`` takes float32 pixels [N, C, H, W] in [0, 1] and returns logits [N, K]; ``x`` are such pixels, ``y``
int64 labels [N]; ``x_adv`` is like ``x``. A model is attacked in evaluation mode and gets its mode back. Without a
generator an attack draws from its own seed, so a call repeats itself exactly.

The gradient attacks here are one loop, :func:`ascend`, over a threat set of :mod:`robustutils.threats`. Ascents over
codes and Carlini and Wagner's searches have loops of their own, in the folders of their papers.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.speed import (
    ONCE_FLOAT32,
    FastInputGradients,
    autocast,
    does_without,
    effective,
    exact,
    own_draws,
    prepared,
    said,
)
from robustutils.threats import Linf, ThreatSet

Loss = Callable[[Tensor, Tensor], Tensor]


class Attack(Protocol):
    """What evaluation and training expect of an attack.

    It may say more of itself, and evaluation then looks at it: ``passes``, over how many passes of a randomised model it
    averages each step; ``ascent`` and ``referee``, the attacks that it is made of, where the second needs no gradients.
    """

    @property
    def threat(self) -> ThreatSet:
        """Where the attack may move."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor: ...


SATURATED = 50.0
"""By how much a label leads before :func:`cross_entropy` takes the gradient of the lead alone."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """L(h(x), y) for each example: [N].

    It is softplus(m) with m = log sum_{j != y} exp z_j - z_y. Below -:data:`SATURATED` the gradient is that of
    m, which has the same direction. The true one is exactly zero in float32 from a lead of about 104 on: the scale of the
    logits, which changes no answer, would be a defence. Within :func:`plain_gradients` it is the true one.
    """
    logits = logits.float()
    value = F.cross_entropy(logits, y, reduction="none")
    if not logits.requires_grad or _plain.get():
        return value
    true = logits.gather(1, y[:, None]).squeeze(1)
    behind = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - true
    return torch.where(behind < -SATURATED, value.detach() + behind - behind.detach(), value)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y for each example [N]: positive where the example fools the model (Carlini & Wagner)."""
    logits = logits.float()
    true = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - true


@dataclass(frozen=True)
class Hinge:
    """The margin up to a confidence: min(max_{j != y} z_j - z_y, confidence) for each example [N].

    Madry et al.'s code maximises it with a confidence of 50; an example that is fooled by more is left alone.
    """

    confidence: float = 50.0

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return margin(logits, y).clamp(max=self.confidence)


SURE = 1e-5
"""An image counts as fooling from this margin on, so that rounding in another batch does not turn the verdict."""


def decaying(progress: float) -> float:
    """A step-size schedule: from the full step down in a straight line, 1 - progress."""
    return 1 - progress


def constant(progress: float) -> float:
    """The schedule that changes nothing: of a step size, or of a learning rate."""
    return 1.0


def wide(values: Tensor, like: Tensor) -> Tensor:
    """One value for each example, [N], as [N, 1, ...]: to go with ``like`` [N, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Adam:
    """Adam's update (Kingma & Ba 2015) with its moments kept per example, for attacks that drop examples one by one.

    >>> state = Adam().start(x)  # doctest: +SKIP
    >>> movement, state = Adam()(gradient, state, step)  # doctest: +SKIP
    """

    betas: tuple[float, float] = (0.9, 0.999)
    tiny: float = 1e-12

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas}: both must lie in [0, 1)")

    def start(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments at zero, like ``delta``."""
        return torch.zeros_like(delta), torch.zeros_like(delta)

    def __call__(
        self, gradient: Tensor, state: tuple[Tensor, ...], step: int | Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """m / (sqrt(v) + tiny), both corrected for their start at zero: the ascent for a step of 1, and the next moments.

        ``step``: how many came before, the same for all or of each example, [N].
        """
        first = torch.lerp(gradient, state[0], self.betas[0])
        second = torch.lerp(gradient.square(), state[1], self.betas[1])
        done = step + 1 if isinstance(step, int) else wide(step + 1, gradient)
        mean = first / (1 - self.betas[0] ** done)
        scale = (second / (1 - self.betas[1] ** done)).sqrt()
        return mean / (scale + self.tiny), (first, second)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every part of ``model`` in evaluation mode, and each back into its own mode afterwards.

    Gradients can be computed within it even where the caller is in :class:`torch.inference_mode`, passes are as fast
    as :func:`robustutils.speed.prepared` makes them, and the model works on a copy of its images: one that changes them in
    place changes nobody else's. An exported model, which has no other mode, stays in the one that it was exported in.

    Raises:
        ValueError: ``model`` is no module, or torch's default dtype is not float32.
    """
    expect("model", model, nn.Module, "wrap it in a torch.nn.Module whose forward returns logits")
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(
            f"torch's default dtype is {torch.get_default_dtype()}: pixels are float32 here; set it back with "
            "torch.set_default_dtype(torch.float32)"
        )
    modes = [(part, part.training) for part in model.modules()]
    try:
        model.eval()
    except NotImplementedError as refused:
        does_without(model, "eval()", refused)
    hook = None
    if not isinstance(model, torch.jit.ScriptModule) and _copied not in model._forward_pre_hooks.values():
        hook = model.register_forward_pre_hook(_copied, prepend=True)
    try:
        with torch.inference_mode(False), prepared(model):
            yield
    finally:
        if hook:
            hook.remove()
        for part, training in modes:
            part.training = training


def _copied(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.clone() if isinstance(part, Tensor) else part for part in given)


def expect(name: str, value: object, kind: type | tuple[type, ...], hint: str) -> None:
    """Raises: ValueError where a value is not of its type; the message names both types, and the hint what to do."""
    if not isinstance(value, kind):
        first = kind[0] if isinstance(kind, tuple) else kind
        raise ValueError(f"{name} must be a {first.__name__}, got a {type(value).__name__}: {hint}")


# ---- the door ----

_unchecked: ContextVar[bool] = ContextVar("unchecked", default=False)
_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def _switched(switch: ContextVar[bool]) -> Iterator[None]:
    token = switch.set(True)
    try:
        yield
    finally:
        switch.reset(token)


def unchecked() -> AbstractContextManager[None]:
    """Within it attacks do not look at what they are given.

    For training, which has looked at model and data once: looking again at every step costs a pass, and makes a GPU wait.
    """
    return _switched(_unchecked)


def plain_gradients() -> AbstractContextManager[None]:
    """Within it the gradient of :func:`cross_entropy` is the true one everywhere, as in training."""
    return _switched(_plain)


def check_pixels(x: Tensor) -> None:
    """Raises: ValueError where pixels do not lie in [0, 1]."""
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got [{low:.6g}, {high:.6g}]")


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """What a model says of images [N, C, H, W], seen to be finite logits [N, K] of two classes or more.

    Raises:
        ValueError: it returns something else; the message says what.
    """
    given = x.clone()
    try:
        logits = model(given)
    except torch.OutOfMemoryError:
        raise
    except (Exception, SystemExit) as error:  # whatever a module of one's own raises
        raise ValueError(f"the model fails on images {x.dtype} {list(x.shape)}: {said(error)}") from error
    if ((given - x).abs() > 0).any():
        raise ValueError(
            "the model changes its images in place, and takes no copy: write x = x * a for x.mul_(a)"
        )
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must return logits, a tensor [N, K], got a {type(logits).__name__}: "
            "wrap it in a module whose forward returns the logits alone"
        )
    if not logits.is_floating_point():
        raise ValueError(f"the model must return logits, real numbers, got {logits.dtype}")
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(
            f"the model must return logits [{len(x)}, K] of K >= 2 classes, got shape {tuple(logits.shape)}"
        )
    bad = int((~logits.isfinite().all(1)).sum())
    if bad:
        raise ValueError(
            f"the logits of {bad} of {len(x)} images are not finite (NaN or infinite): the model gives no answer to judge"
        )
    return logits


_tried: WeakSet[nn.Module] = WeakSet()


def try_out(model: nn.Module, x: Tensor) -> Tensor:
    """Logits [N, K] of images, seen to be no probabilities; of a model that is new, also whether one image and two work.

    Attacks that leave out what is fooled end with such batches.

    Raises:
        ValueError: as :func:`logits_of`, or these are probabilities.
    """
    with exact(x):
        logits = logits_of(model, x)
        refuse_probabilities(logits)
        if model not in _tried:
            with own_draws(x.device):
                _ = [logits_of(model, x[:n]) for n in (1, 2)]
            _tried.add(model)
    return logits


def refuse_probabilities(logits: Tensor) -> None:
    """Raises: ValueError where rows [N, K] are numbers of [0, 1] that sum to 1, of eight images also rounded ones."""
    values = logits.float()
    near = 1e-5 if len(values) < 8 else min(0.05, max(0.01, 0.005 * values.shape[1]))
    if values.min() >= 0 and values.max() <= 1 + 1e-5 and ((values.sum(1) - 1).abs() <= near).all():
        raise ValueError(
            "the model must return logits, got probabilities (rows lie in [0, 1] and sum to 1): leave out its softmax"
        )


def admitted(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` and ``y`` if an attack can work on them and on the model; see :func:`unchecked`.

    Raises:
        ValueError: ``x`` is not float32 [N, C, H, W] in [0, 1] with N > 0, ``y`` not int64 [N] of known classes, the model
            returns probabilities or what :func:`logits_of` refuses, or its weights were made in
            :class:`torch.inference_mode`. The message names the offending value.
    """
    for name, part in (("x", x), ("y", y)):
        expect(name, part, Tensor, "torch.from_numpy makes one of an array")
    x, y = (part.clone() if part.is_inference() else part for part in (x, y))
    if _unchecked.get():
        return x, y
    if x.ndim != 4 or x.dtype != torch.float32 or len(x) == 0:
        raise ValueError(f"x must be float32 [N, C, H, W] with N > 0, got {x.dtype} {tuple(x.shape)}")
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise ValueError(f"y must be int64 [{len(x)}], got {y.dtype} {tuple(y.shape)}")
    check_pixels(x)
    if any(part.is_inference() for part in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "the model's weights were made in torch.inference_mode, where nothing can have gradients: load it outside"
        )
    logits = try_out(model, x)
    if not 0 <= y.min() <= y.max() < logits.shape[1]:
        raise ValueError(f"labels {y.min()}..{y.max()} do not fit a model of {logits.shape[1]} classes")
    return x, y


def guarded(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The ``__call__`` of an attack as others may call it: in evaluation mode, on inputs that are :func:`admitted`.

    Without a generator it gets one of the attack's own ``seed``, where that has one.
    """

    @functools.wraps(call)
    def wrapped(
        self: Any, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        if generator is None and hasattr(self, "seed"):
            generator = torch.Generator().manual_seed(self.seed)
        with evaluation_mode(model):
            return call(self, model, *admitted(model, x, y), generator)

    return wrapped


class NoGradient(ValueError):
    """A model whose gradient by the images cannot be computed; the message says why."""


def gradient_of(losses: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of each loss [N] by its own part of ``leaf``, [N, ...].

    Raises:
        NoGradient: none reaches it, or computing it fails.
    """
    if losses.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise NoGradient(
                f"the gradient by the images cannot be computed: {said(error)}. Attacks that follow it cannot work on the "
                "model (checkpoints need use_reentrant=False); robustutils.square.Square needs none"
            ) from error
        if gradient is not None:
            return gradient
    raise NoGradient(
        "no gradient reaches the images: something in the model is not differentiable or cuts the graph (detach, no_grad, "
        "numpy). Attacks that follow the gradient cannot work on it; robustutils.square.Square needs none"
    )


_precisions: WeakKeyDictionary[nn.Module, dict[torch.dtype, torch.dtype]] = WeakKeyDictionary()


def precision(model: nn.Module, x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """In which precision an ascent runs: ``dtype``, or float32 where that would be emulated or the model fails in it.

    Whether it does is tried once, with two images and their gradient.
    """
    dtype = effective(x.device, dtype)
    if dtype == torch.float32:
        return dtype
    known = _precisions.setdefault(model, {})
    if dtype not in known:
        known[dtype] = dtype
        try:
            leaf = x[:2].detach().clone().requires_grad_(True)
            with own_draws(x.device), torch.enable_grad(), FastInputGradients(), autocast(x.device, dtype):
                total = model(leaf).float().sum()
                torch.autograd.grad(total, leaf, allow_unused=True)
        except Exception as error:
            known[dtype] = torch.float32
            does_without(model, str(dtype), error)
    return known[dtype]


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatSet,
    delta: Tensor,
    steps: int,
    step_size: float,
    loss: Loss = cross_entropy,
    schedule: Callable[[float], float] = constant,
    drop_fooled: bool = False,
    keep_best: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Climb ``loss`` from ``delta`` inside the threat set, for all examples at once; returns images like ``x``.

    Only the gradient with respect to ``delta`` is computed. With ``keep_best`` an example's iterate of highest
    loss is returned (one more forward pass), else the last one. With ``drop_fooled`` it is the first iterate
    that fools the model, and the example leaves the batch; under bfloat16 that iterate is confirmed in float32
    before it leaves. The model must be in evaluation mode.
    """
    dtype = precision(model, x, dtype)
    x = images = x.detach()
    delta, found = delta.detach(), delta.detach().clone()
    rows = torch.arange(len(x), device=x.device)
    best, best_loss = delta, torch.full((len(x),), -torch.inf, device=x.device)
    # One autocast around all steps, so that the weights are cast once.
    with torch.enable_grad(), FastInputGradients(), autocast(x.device, dtype):
        for step in range(steps + 1 if keep_best or drop_fooled else steps):
            leaf = delta.detach().requires_grad_(True)
            logits = model(threat.perturb(x, leaf))
            losses = loss(logits, y)
            stay: Tensor | slice = slice(None)
            if keep_best:
                better = losses.detach() > best_loss
                best = torch.where(wide(better, delta), delta, best)
                best_loss = torch.where(better, losses.detach(), best_loss)
            if drop_fooled:
                fooled = (logits.argmax(1) != y).nonzero().squeeze(1)
                if dtype != torch.float32 and len(fooled):
                    with exact(x):
                        x_adv = threat.perturb(x[fooled], delta[fooled])
                    fooled = fooled[_fooled(model, x_adv, y[fooled])]
                if len(fooled):
                    found[rows[fooled]] = delta[fooled]
                    stay = torch.ones_like(y, dtype=torch.bool).index_fill(0, fooled, False)
                    rows, x, y, delta, best, best_loss = (
                        part[stay] for part in (rows, x, y, delta, best, best_loss)
                    )
            if step == steps or len(rows) == 0:
                break
            movement = threat.direction(gradient_of(losses, leaf)[stay])
            delta = threat.project(x, delta + step_size * schedule(step / steps) * movement)
    found[rows] = best if keep_best else delta
    with exact(x):
        return threat.perturb(images, found)


def _fooled(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether a fresh float32 forward pass misclassifies each example: bool [N]."""
    with exact(x):
        return model(x).argmax(1) != y


class InCube:
    """An attack whose radius ``eps`` is that of a linf ball."""

    eps: float

    @property
    def threat(self) -> Linf:
        """The linf ball of radius eps."""
        return Linf(eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class IFGSM(InCube):
    """Iterated FGSM: ``steps`` steps of eps / steps from x, clipped to [0, 1] (Kurakin et al. 2017; EAT, section 3.2)."""

    eps: float
    steps: int = 10
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _ = self.threat  # which refuses a radius out of range
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: at least one step is needed")

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """All steps; deterministic; the last iterate counts, as in the paper."""
        delta, size = torch.zeros_like(x), self.eps / self.steps
        climb = functools.partial(ascend, model, x, y, threat=self.threat, dtype=self.dtype)
        return climb(delta=delta, steps=self.steps, step_size=size, keep_best=False)


@dataclass(frozen=True, kw_only=True)
class FGSM(IFGSM):
    """Fast gradient sign method: x + eps sign(grad L(h(x), y)), clipped to [0, 1] (Goodfellow et al. 2015; EAT, eq. 2).

    >>> FGSM(eps=0.3)(model, x, y)  # doctest: +SKIP
    """

    steps: int = field(default=1, init=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class RFGSM(InCube):
    """R+FGSM: x' = clip(x + alpha sign(N(0, I))), then an FGSM step of eps - alpha at x' (EAT, eq. 7).

    ``alpha`` defaults to eps / 2, the paper's choice.
    """

    eps: float
    alpha: float | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.threat
        if self.alpha is not None and not 0 <= self.alpha <= self.eps:
            raise ValueError(f"alpha={self.alpha}: the random step must lie in [0, eps={self.eps}]")

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """One random and one gradient step."""
        alpha = self.eps / 2 if self.alpha is None else self.alpha
        noise = torch.randn(x.shape, generator=generator).sign().to(x.device, non_blocking=True)
        delta = self.threat.project(x, alpha * noise)
        climb = functools.partial(ascend, model, x, y, threat=self.threat, dtype=self.dtype)
        return climb(delta=delta, steps=1, step_size=self.eps - alpha, keep_best=False)


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent from random starts (Madry et al. 2018; BS, section 4.1; EAT, Table 8).

    x_{t+1} = project(x_t + step_size * schedule(t / steps) * direction(grad loss)).

    Args:
        threat: where to move, for example ``Linf(eps=0.3)``.
        steps, step_size: number and size of the steps, in the unit of the threat set's norm.
        loss: what to climb, :func:`cross_entropy` or :func:`margin`.
        schedule: factor of the step size over the progress in [0, 1).
        restarts: independent runs; with ``drop_fooled`` each further one sees only examples not yet fooled.
        random_start: start at random, else at x.
        diversify: steps of ``threat.eps`` along the gradient of a random sum of the logits before each run, so that starts
            differ in what the model says of them (output diversification, Tashiro et al. 2020).
        keep_best: return the iterate of highest loss, else the last.
        drop_fooled: stop work on an example at the first iterate that fools the model. With the margin loss the
            verdicts are the same, sooner; with cross-entropy, whose best iterate need not fool, a few more fall.
        dtype: of the passes: bfloat16 where the device multiplies in it, unless ``torch.float32`` is asked for. What
            fools in bfloat16 counts only if it fools in float32, and verdicts are float32's.
        seed: of the random starts, where the call brings no generator.
    """

    threat: ThreatSet
    steps: int = 40
    step_size: float = 0.01
    loss: Loss = cross_entropy
    schedule: Callable[[float], float] = constant
    restarts: int = 1
    random_start: bool = True
    diversify: int = 0
    keep_best: bool = True
    drop_fooled: bool = True
    dtype: torch.dtype = field(default=torch.bfloat16, metadata=ONCE_FLOAT32)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("restarts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least} is needed")
        if self.diversify < 0:
            raise ValueError(f"diversify={self.diversify}: must not be negative")
        if not self.step_size > 0:
            raise ValueError(f"step_size={self.step_size}: must be positive")

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Every restart on what is left; returns fooling images where one was found."""
        result, left = x.clone(), torch.arange(len(x), device=x.device)
        best = torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(self.restarts):
            found = self._once(model, x[left], y[left], generator)
            if self.restarts == 1:
                return found
            with exact(x):
                logits = model(found)
                losses = self.loss(logits, y[left])
            better = losses > best[left]
            result[left[better]], best[left[better]] = found[better], losses[better]
            if self.drop_fooled:
                fooled = logits.argmax(1) != y[left]
                result[left[fooled]] = found[fooled]
                left = left[~fooled]
            if len(left) == 0:
                break
        return result

    def _once(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """One run, from a start of its own."""
        climb = functools.partial(ascend, model, x, y, threat=self.threat, dtype=self.dtype)
        delta = self.threat.start(x, generator if self.random_start else None)
        if self.diversify:
            with exact(x):
                classes = model(x[:1]).shape[1]
            weights = torch.empty(len(x), classes).uniform_(-1, 1, generator=generator).to(x.device)
            moved = climb(
                delta=delta,
                steps=self.diversify,
                step_size=self.threat.eps,
                loss=lambda logits, _: (weights * logits.float()).sum(1),
                keep_best=False,
            )
            delta = moved - x
        settings = ("steps", "step_size", "loss", "schedule", "drop_fooled", "keep_best")
        return climb(delta=delta, **{name: getattr(self, name) for name in settings})


@dataclass(frozen=True, kw_only=True)
class WorstOf:
    """The worst case of several attacks for each example: later attacks see only what is not yet fooled.

    The threat sets must agree; an example that nothing fools keeps the last attack's image.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("attacks=(): the worst case of no attack is undefined")
        if any(attack.threat != self.attacks[0].threat for attack in self.attacks):
            raise ValueError(f"attacks with different threat sets: {[a.threat for a in self.attacks]}")

    @property
    def threat(self) -> ThreatSet:
        """The common threat set."""
        return self.attacks[0].threat

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """The first image that fools the model, attack by attack."""
        result, left = x.clone(), torch.arange(len(x), device=x.device)
        for attack in self.attacks:
            result[left] = attack(model, x[left], y[left], generator)
            left = left[~_fooled(model, result[left], y[left])]
            if len(left) == 0:
                break
        return result


class Expected(nn.Module):
    """The mean answer of a randomised model: log E[softmax(h(x))] over ``passes`` passes, as logits [N, K]."""

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.model, self.passes = model, passes

    def forward(self, x: Tensor) -> Tensor:
        each = torch.stack([self.model(x).float().log_softmax(1) for _ in range(self.passes)])
        return each.logsumexp(0) - math.log(self.passes)


@dataclass(frozen=True, kw_only=True)
class ExpectationOverTransformation:
    """Another attack on the mean answer of a randomised model: expectation over transformation (Athalye et al. 2018).

    ``passes``: draws of the model in each step; each costs a pass.
    """

    attack: Attack
    passes: int = 20

    def __post_init__(self) -> None:
        if self.passes < 2:
            raise ValueError(f"passes={self.passes}: a mean takes at least 2")

    @property
    def threat(self) -> ThreatSet:
        """That of the attack."""
        return self.attack.threat

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The attack's images for the mean answer."""
        with evaluation_mode(model):
            return self.attack(Expected(model, self.passes), x, y, generator)
