"""Flags: what speaks against a number, said with the number (after AutoAttack's checks; Croce & Hein 2020).

An attack that finds nothing proves nothing where it is blind. A flag is raised where

- **the gradient is exactly zero** at some images: whoever follows it does not move there;
- **two passes differ**: the model is randomised, and an attack on one draw does not meet the next one. The remedy is
  :class:`robustutils.attacks.ExpectationOverTransformation`, the expectation over transformation (Athalye et al. 2018);
- **the model computes gradients of its own** in a pass: it optimises at test time, and what it answers is not what the
  attack's gradient is of;
- **the accuracy is not above chance**: the model does not fit the data, its classes or its pixels;
- **an attack without gradients** fools images that the gradient left: see :func:`beaten`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustutils.attacks import cross_entropy, evaluation_mode, logits_of
from robustutils.speed import device_of, exact
from robustutils.statistics import wilson

IMAGES = 256
"""At most so many images, the first ones, are looked at for zero gradients and unsteady answers."""
STEADY = 1e-4
"""Logits of two passes may differ by this share of the largest one: rounding on a GPU."""


def observed(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What flags are raised of, for the first :data:`IMAGES` of some images [N, C, H, W] with labels int64 [N]; on the CPU.

    Returns:
        ``blind`` bool [n], whether the gradient of the loss is exactly zero or does not reach the image; ``unsteady`` bool
        [n], whether two passes differ; ``searching`` bool [1], whether a pass computes gradients of its own.

    Raises:
        ValueError: the model returns no finite logits.
    """
    device = device_of(model)
    x, y = images[:IMAGES].to(device), labels[:IMAGES].to(device)
    with evaluation_mode(model):
        with exact(x), _counted() as calls:
            first, second = logits_of(model, x).float(), logits_of(model, x).float()
        apart = (first - second).abs().amax(1) > STEADY * first.abs().amax(1).clamp_min(1e-30)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            loss = cross_entropy(logits_of(model, leaf), y).sum()
            gradient = torch.autograd.grad(loss, leaf, allow_unused=True)[0] if loss.requires_grad else None
    blind = torch.ones_like(apart) if gradient is None else (gradient == 0).flatten(1).all(1)
    return {"blind": blind.cpu(), "unsteady": apart.cpu(), "searching": torch.tensor([calls[0] > 0])}


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
