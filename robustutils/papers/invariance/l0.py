"""How many pixels must change until a model is fooled? Two attacks, and what they find for a set of images.

The adversary may set a pixel to any value in [0, 1]; what counts is how many it touches, a pixel of several channels once.
:class:`SigmaZero` follows gradients and is led astray where they are masked, :class:`GreedyPixels` asks for logits only.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustutils.attacks import SURE, Adam, guarded, margin, wide
from robustutils.evaluation import correct
from robustutils.speed import FastInputGradients, device_of, exact
from robustutils.threats import Linf, check_inside

BOX = Linf(eps=1.0)
"""All of the box: the number of pixels is what an attack keeps small."""


def l0_distance(x: Tensor, x_adv: Tensor) -> Tensor:
    """The number of pixels that differ in any channel between images [N, C, H, W]: int64 [N]."""
    return (x_adv != x).any(1).flatten(1).sum(1)


class _FewPixels:
    """An attack that may use all of the box and is called like any other; :meth:`_search` is its own."""

    threat: ClassVar[Linf] = BOX

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: None) -> Tensor:
        """Fooling images; x itself, bit for bit, where it is misclassified already or nothing was found.

        A fresh pass says what fools.

        Raises:
            ValueError: a gradient that it follows was not finite.
        """
        result, left = x.clone(), correct(model, x, y).to(x.device).nonzero().squeeze(1)
        if len(left):
            made = self._search(model, x[left], y[left])
            fooled = ~correct(model, made, y[left]).to(x.device)
            result[left[fooled]] = made[fooled]
        return result

    def _search(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Images that may fool, of images that are classified correctly."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SigmaZero(_FewPixels):
    """Sigma-zero: the fewest changed pixels by gradients of a smooth l0 norm (Cina et al. 2025, section 2).

    Minimises max(0, z_y - max_{j != y} z_j) + mean_i d_i^2 / (d_i^2 + sigma), where d_i is the change of pixel i, by Adam
    on gradients of linf norm 1. After each step a pixel that changed by less than tau returns to its value. tau rises by
    ``threshold_step`` times the learning rate while the image fools the model and falls by it otherwise, so the search
    goes to and fro across the border; the fooling iterate with the fewest changed pixels counts. The learning rate falls
    to a tenth on a half cosine.

    Nothing is drawn at random. Where gradients vanish it finds nothing, which is no sign of robustness.

    Args:
        steps: forward and backward passes.
        learning_rate: of Adam at the first step; pixels lie in [0, 1].
        sigma: the smaller, the nearer is the smooth norm to l0.
        threshold: tau at the first step.
        threshold_step: the change of tau in a step, as a share of the learning rate.
    """

    steps: int = 1000
    learning_rate: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: at least 1 is needed")
        for name in ("learning_rate", "sigma", "threshold_step"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold}: must lie in [0, 1]")

    def _search(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        made = best = x
        fewest = torch.full((len(x),), torch.inf, device=x.device)
        tau = torch.full_like(fewest, self.threshold)
        adam = Adam()
        state = adam.start(x)
        with torch.enable_grad(), FastInputGradients():
            # The image of the last step is judged too.
            for step in range(self.steps + 1):
                leaf = made.detach().requires_grad_(True)
                gain = margin(model(leaf), y)
                fools, pixels = gain > SURE, l0_distance(x, made).float()
                fewer = fools & (pixels < fewest)
                best = torch.where(wide(fewer, x), made, best)
                fewest = torch.where(fewer, pixels, fewest)
                if step == self.steps:
                    break
                squared = (leaf - x).square().sum(1).flatten(1)
                loss = (2 * SURE - gain).clamp_min(0) + (squared / (squared + self.sigma)).mean(1)
                (gradient,) = torch.autograd.grad(loss.sum(), leaf)
                gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
                movement, state = adam(-gradient, state, step)
                rate = self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * step / self.steps))
                tau = (tau + self.threshold_step * torch.where(fools, rate, -rate)).clamp(0, 1)
                made = (made + rate * movement).clamp(0, 1)
                slight = (made - x).abs().amax(1, keepdim=True) < wide(tau, x)
                made = torch.where(slight, x, made)
        lost = ~made.isfinite().flatten(1).all(1)
        if lost.any():
            raise ValueError(f"the model's gradient is not finite on {int(lost.sum())} of {len(x)} images")
        return best


@dataclass(frozen=True, kw_only=True)
class GreedyPixels(_FewPixels):
    """Set one pixel after the other to black or white, always the one that raises the margin of a wrong class most.

    The first pixel is chosen among all changes of one pixel; the next ones among the ``candidates`` that came first then,
    which costs a third of the passes and hardly a pixel. It asks for logits only, about 1,000 forward passes for an image
    of 28x28 and ``candidates`` more for each further pixel. Masked gradients do not mislead it; where no single pixel moves
    the margin it is blind.

    Args:
        max_pixels: after so many pixels the search is given up.
        candidates: changes of one pixel that are tried for each pixel but the first.
        batch_size: images in a forward pass.
    """

    max_pixels: int = 50
    candidates: int = 200
    batch_size: int = 2000

    def __post_init__(self) -> None:
        for name in ("max_pixels", "candidates", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")

    def _search(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with exact(x):
            return torch.stack([self._one(model, image, label) for image, label in zip(x, y, strict=True)])

    def _one(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The search on one image [C, H, W]."""
        made, count = x.flatten(1), x[0].numel()
        place = torch.arange(count, device=x.device).repeat(2)
        value = torch.arange(2.0, device=x.device).repeat_interleave(count)
        left = (made[:, place] != value).any(0)
        for pixels in range(1, self.max_pixels + 1):
            place, value = place[left], value[left]
            if len(place) == 0:
                break
            tried = made.repeat(len(place), 1, 1)
            tried[torch.arange(len(place), device=x.device), :, place] = value[:, None]
            parts = (part.view(-1, *x.shape) for part in tried.split(self.batch_size))
            gains = torch.cat([margin(model(part), y.expand(len(part))) for part in parts])
            best = gains.argmax()
            made = tried[best]
            if gains[best] > SURE:
                return made.view_as(x)
            left = place != place[best]
            if pixels == 1:
                first = gains.topk(min(self.candidates, len(gains))).indices
                left &= torch.zeros_like(left).index_fill(0, first, True)
        return x


def minimal_l0(
    model: nn.Module,
    attack: SigmaZero | GreedyPixels,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 100,
) -> Tensor:
    """How many pixels the attack has to change in each image: float32 [N] on the CPU.

    0 where the model is wrong already, and inf where no adversarial example was found, both by a fresh float32 forward
    pass. The true numbers are at most these: of several attacks the smallest number counts.
    """
    device = device_of(model)
    distances = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        x, y = x.to(device), y.to(device)
        x_adv = attack(model, x, y)
        check_inside(BOX, x, x_adv, tolerance=0)
        distances.append(l0_distance(x, x_adv).float().cpu().masked_fill(correct(model, x_adv, y), torch.inf))
    return torch.cat(distances)
