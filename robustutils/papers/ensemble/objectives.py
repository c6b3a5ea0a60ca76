"""What ensemble adversarial training minimises (EAT, section 3.4)."""

import dataclasses
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.artifacts import value_of
from robustutils.outcomes import Measurement
from robustutils.statistics import wilson


@dataclass(frozen=True, kw_only=True)
class EnsembleAdversarial:
    """Single-step adversarial training on examples from the model itself and from static, pre-trained sources.

    Each batch draws one source uniformly from {``sources``..., the model itself}; the loss is
    (L(h(x), y) + L(h(x_adv), y)) / 2 with x_adv from :func:`single_step` on that source. Without sources this
    is plain FGSM adversarial training, whose gradients get masked (EAT, sections 3.1, 3.4 and C.1).
    """

    eps: float
    sources: tuple[nn.Module, ...] = ()
    """In a recipe they may be artifacts, which training replaces by their networks."""

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps={self.eps}: a linf radius for pixels in [0, 1] must lie in (0, 1]")

    def ready(self) -> "EnsembleAdversarial":
        """The same with its static sources loaded, copied and in training mode (EAT, section 3.4)."""
        static = [deepcopy(value_of(source)).train().requires_grad_(False) for source in self.sources]
        return dataclasses.replace(self, sources=tuple(static))

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


def share_of_own_steps(n_sources: int, image: Tensor, label: Tensor, *, batches: int = 4000) -> Measurement:
    """In what share of batches ensemble adversarial training makes its examples on the model itself (EAT, section 3.4).

    Linear models stand for the model and its ``n_sources`` static sources; ``image`` is [1, C, H, W], ``label`` [1].
    """
    torch.manual_seed(0)
    own, *static = (nn.Sequential(nn.Flatten(), nn.Linear(image.numel(), 10)) for _ in range(1 + n_sources))
    calls: list[None] = []
    own.register_forward_hook(lambda *_: calls.append(None))
    objective = EnsembleAdversarial(eps=0.3, sources=tuple(static))
    for _ in range(batches):
        objective(own, image, label, 0.0)
    drawn = len(calls) - batches  # a batch runs the model once, and once more as a source
    return Measurement(drawn / batches, wilson(drawn, batches), batches, [0])
