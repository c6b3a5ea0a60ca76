"""What does training minimise? Each objective is a callable ``objective(model, x, y, progress) -> loss``.

``x`` is float32 [N, C, H, W] in [0, 1], ``y`` int64 [N]; ``progress`` runs from 0 to 1 over the training; the
loss is a scalar. An objective leaves the model in the mode it found it in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.attacks import PGD, cross_entropy
from robustutils.threats import Linf


class Objective(Protocol):
    """What :func:`robustutils.training.fit` minimises."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor: ...


@dataclass(frozen=True)
class Clean:
    """Cross-entropy on the images as they are: E[L(h(x), y)]."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        return F.cross_entropy(model(x), y)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Adversarial training: the share ``clean`` of the loss on x, the rest on ``attack(model, x, y)``.

    With ``clean=0`` this is Madry et al. (2018): min E[max L(h(x + delta), y)] (BS, section 2).
    """

    attack: Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
    clean: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.clean < 1:
            raise ValueError(f"clean={self.clean}: the clean share of the loss must lie in [0, 1)")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        loss = F.cross_entropy(model(self.attack(model, x, y, generator)), y)
        return (
            loss if self.clean == 0 else self.clean * F.cross_entropy(model(x), y) + (1 - self.clean) * loss
        )


@dataclass(frozen=True, kw_only=True)
class RampedAdversarial:
    """Adversarial training on PGD examples of a radius that grows from eps / 6 to eps: E[max L(h(x + delta), y)].

    Both the radius and the step size rise in a straight line over the share ``ramp`` of the training. At the full
    radius from the start, the loss of the MNIST network stays for epochs where guessing puts it.
    """

    eps: float
    steps: int
    step_size: float
    ramp: float
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp={self.ramp}: the share of the training must lie in (0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        scale = min(1.0, (1 + 5 * progress / self.ramp) / 6)
        attack = PGD(
            threat=Linf(eps=scale * self.eps),
            steps=self.steps,
            step_size=scale * self.step_size,
            keep_best=False,
            drop_fooled=False,
            dtype=self.dtype,
        )
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return cross_entropy(model(attack(model, x, y, generator)), y).mean()


@dataclass(frozen=True, kw_only=True)
class EnsembleAdversarial:
    """Single-step adversarial training on examples from the model itself and from static, pre-trained sources.

    Each batch draws one source uniformly from {``sources``..., the model itself}; the loss is
    (L(h(x), y) + L(h(x_adv), y)) / 2 with x_adv from :func:`single_step` on that source. Without sources this
    is plain FGSM adversarial training, whose gradients get masked (EAT, sections 3.1, 3.4 and C.1).
    """

    eps: float
    sources: tuple[nn.Module, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps={self.eps}: a linf radius for pixels in [0, 1] must lie in (0, 1]")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        candidates = (*self.sources, model)
        drawn = int(torch.randint(len(candidates), ())) if self.sources else 0
        x_adv = single_step(candidates[drawn], x, self.eps)
        return F.cross_entropy(model(torch.cat([x, x_adv])), torch.cat([y, y]))


def single_step(source: nn.Module, x: Tensor, eps: float) -> Tensor:
    """The training attack of EAT: x + eps sign(grad L(h(x), argmax h(x))), clipped to [0, 1].

    It uses the source's own prediction in place of the label, which avoids label leaking, and the mode the
    source is in: during training dropout is active, as in the authors' code. Returns a tensor like ``x``.
    """
    x = x.detach().requires_grad_(True)
    logits = source(x)
    loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return (x + eps * gradient.sign()).clamp(0, 1).detach()
