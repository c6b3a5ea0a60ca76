"""Flags: what speaks against a number, said with the number (after AutoAttack's checks; Croce & Hein 2020).

An attack that finds nothing proves nothing where it is blind. A flag is raised where

- **the gradient is exactly zero** at some images: whoever follows it does not move there;
- **two passes differ**: the model is randomised, and an attack on one draw does not meet the next one. The remedy is
  :class:`robustutils.attacks.ExpectationOverTransformation`, the expectation over transformation (Athalye et al. 2018);
- **the answer depends on the other images of the batch**: the model is not a function of an image, and what it says of one
  in a batch says nothing of one alone;
- **the model computes gradients of its own** in a pass: it optimises at test time, and what it answers is not what the
  attack's gradient is of;
- **the accuracy is not above chance**: the model does not fit the data, its classes or its pixels;
- **the usual scalings of pixels** do far better than [0, 1] does: see :func:`scaled`;
- **an attack without gradients** fools images that the gradient left: see :func:`beaten`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from robustutils.attacks import NoGradient, cross_entropy, evaluation_mode, gradient_of, logits_of, try_out
from robustutils.speed import device_of, exact, own_draws
from robustutils.statistics import wilson

IMAGES = 256
"""At most so many images, the first ones, are looked at for zero gradients and unsteady answers."""
STEADY = 1e-4
"""Logits of two passes may differ by this share of the largest one: rounding on a GPU."""
ALONE = 1e-2
"""So may those of an image in a batch and alone, which other kernels compute."""


def observed(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What flags are raised of, for the first :data:`IMAGES` of some images [N, C, H, W] with labels int64 [N]; on the CPU.

    Returns:
        ``blind`` bool [n], whether the gradient of the loss is exactly zero or does not reach the image; ``unsteady`` bool
        [n], whether two passes differ; ``searching`` bool [1], whether a pass computes gradients of its own. ``mixed`` bool
        [m], whether the answer to each of the first images differs when it is alone, where one does and passes are steady.

    Raises:
        ValueError: as :func:`robustutils.attacks.try_out`.
    """
    device = device_of(model)
    x, y = images[:IMAGES].to(device), labels[:IMAGES].to(device)
    with evaluation_mode(model):
        with exact(x), _counted() as calls:
            first, second = try_out(model, x).float(), logits_of(model, x).float()
        apart = _differ(first, second, STEADY)
        with exact(x), own_draws(x.device):
            alone = torch.cat([logits_of(model, one).float() for one in x[:8].split(1)])
        mixed = _differ(first[:8], alone, ALONE)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            try:
                blind = (gradient_of(cross_entropy(logits_of(model, leaf), y), leaf) == 0).flatten(1).all(1)
            except NoGradient:
                blind = torch.ones_like(apart)
    seen = {"blind": blind.cpu(), "unsteady": apart.cpu(), "searching": torch.tensor([calls[0] > 0])}
    return seen | ({"mixed": mixed.cpu()} if mixed.any() and not apart.any() else {})


def _differ(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Whether logits [n, K] differ by more than a share of the largest: bool [n]."""
    return (one - other).abs().amax(1) > share * one.abs().amax(1).clamp_min(1e-30)


@contextmanager
def _counted() -> Iterator[list[int]]:
    """How often gradients are computed within it, whoever asks for them."""
    calls = [0]
    grad, backward = torch.autograd.grad, torch.autograd.backward

    def counting(function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            with torch.enable_grad():
                return function(*args, **kwargs)

        return counted

    torch.autograd.grad, torch.autograd.backward = counting(grad), counting(backward)
    try:
        yield calls
    finally:
        torch.autograd.grad, torch.autograd.backward = grad, backward


def sentences(
    seen: Mapping[str, Tensor], clean: Tensor, classes: int, *, averaged: int = 0
) -> tuple[str, ...]:
    """The flags that are raised, in words.

    Args:
        seen: of :func:`observed`, and of a gradient-free referee ``left`` and ``refereed``, bool [N]: which images are
            classified correctly after the gradient's attack and after the referee's. What is missing was not looked at.
        clean: which images are classified correctly before the attack, bool [N].
        classes: of the data set.
        averaged: over how many passes of a randomised model each step was taken.
    """
    single = "attacked on single draws, see attacks.ExpectationOverTransformation"
    how = f"attacked over {averaged} passes" if averaged else single
    said = {
        "blind": "the gradient is exactly zero at {}: attacks that follow it do not move there",
        "unsteady": f"two passes differ on {{}}: the model is randomised, {how}",
        "mixed": "the answer depends on the other images of the batch, seen on {}: it is no function of an image",
        "searching": "the model computes gradients of its own in a pass: it optimises at test time",
    }
    raised = [
        flag.format(f"{100 * seen[name].float().mean().item():.0f}% of {len(seen[name])} images")
        for name, flag in said.items()
        if name in seen and seen[name].any()
    ]
    if "refereed" in seen:
        raised += beaten(seen["left"] & clean, ~seen["refereed"], "the square attack")
    hits, n = int(clean.sum()), len(clean)
    if hits < n and wilson(hits, n)[0] <= 1 / classes:
        raised.append(
            f"the accuracy of {100 * hits / n:.1f}% is not above chance, {100 / classes:.1f}% for {classes} classes"
        )
    return tuple(raised)


_CHANNELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "MNIST": ((0.1307,), (0.3081,)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
}
"""Means and standard deviations by which models of grey and of coloured images often want their pixels."""


def scaled(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[str, ...]:
    """The flag of a model that wants its pixels in another scale than [0, 1], which is named.

    It is raised where it makes at most half of the errors on the first :data:`IMAGES` of some images [N, C, H, W] with
    labels int64 [N], and the 95% intervals do not meet.
    """
    device = device_of(model)
    x, y = images[:IMAGES].to(device), labels[:IMAGES].to(device)
    scales = {
        "2x - 1, in [-1, 1]": 2 * x - 1,
        "255x, in [0, 255]": 255 * x,
        "1 - x, dark and light exchanged": 1 - x,
    }
    for name, (mean, deviation) in _CHANNELS.items():
        if len(mean) == x.shape[1]:
            moved = (x - x.new_tensor(mean).view(-1, 1, 1)) / x.new_tensor(deviation).view(-1, 1, 1)
            scales[f"(x - mean) / deviation of {name}'s channels"] = moved

    def right(pixels: Tensor) -> int:
        return int((logits_of(model, pixels).argmax(1) == y).sum())

    with evaluation_mode(model), exact(x), own_draws(device):
        own, n = right(x), len(x)
        found = {}
        for name, pixels in scales.items():
            with suppress(ValueError):  # no finite logits there
                found[name] = right(pixels)
    best = max(found, key=lambda name: found[name], default="")
    if not best or n - found[best] > (n - own) / 2 or wilson(found[best], n)[0] <= wilson(own, n)[1]:
        return ()
    return (
        f"of {n} images {100 * found[best] / n:.1f}% are right where pixels x are given as {best}, and {100 * own / n:.1f}% "
        "as they are: put this scaling into the model",
    )


def beaten(left: Tensor, fooled: Tensor, name: str) -> tuple[str, ...]:
    """The flag of an attack that needs no gradient and fools images which the gradient left standing.

    ``left`` and ``fooled`` are bool [N] over the same images. It is raised where the share of those it fools is above 1%
    with 95% confidence: the gradient is masked, or its attack too weak.
    """
    n, hits = int(left.sum()), int((left & fooled).sum())
    if n == 0 or wilson(hits, n)[0] <= 0.01:
        return ()
    return (
        f"{name} fools {hits} of {n} images that the gradient left: it is masked, or its attack too weak",
    )
