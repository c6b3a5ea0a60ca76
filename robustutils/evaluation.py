"""What did an attack achieve? Verdicts for every example, and rates that name their denominator.

An error rate is over all inputs, clean mistakes included (EAT). A success rate is over the inputs that the model
classified correctly before the attack (BS, DIS). Robust accuracy is over all inputs, and an example counts only if
it is classified correctly clean and under every attack. The three are never mixed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from robustutils import artifacts
from robustutils.attacks import Attack, Loss, cross_entropy, evaluation_mode
from robustutils.bounds import Margins
from robustutils.data import Dataset
from robustutils.intervals import wilson
from robustutils.threats import check


@dataclass(frozen=True)
class Rate:
    """``count`` of ``n`` examples, with its 95% Wilson interval."""

    count: int
    n: int

    @property
    def percent(self) -> float:
        """The rate in percent."""
        return 100 * self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval in percent."""
        low, high = wilson(self.count, self.n)
        return 100 * low, 100 * high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.percent:.1f}% [{low:.1f}, {high:.1f}]"


@dataclass(frozen=True, eq=False)
class Verdicts:
    """For each example: was it classified correctly before the attack, after it, and at what loss?

    ``clean`` and ``attacked`` are bool [N], ``losses`` is the cross-entropy after the attack, float32 [N].
    """

    clean: Tensor
    attacked: Tensor
    losses: Tensor

    def error_rate(self) -> Rate:
        """Errors under attack over all inputs."""
        return _rate(~self.attacked)

    def success_rate(self) -> Rate:
        """Errors under attack over the inputs that were classified correctly before it.

        Raises:
            ValueError: there is no such input.
        """
        if not self.clean.any():
            raise ValueError(f"none of {len(self.clean)} inputs is classified correctly: no success rate")
        return _rate(~self.attacked[self.clean])

    def robust_accuracy(self) -> Rate:
        """Inputs classified correctly before and after the attack, over all inputs."""
        return _rate(self.clean & self.attacked)

    def __and__(self, other: Self) -> Self:
        """The worst case of two attacks for each example: fooled by either, the higher loss."""
        return type(self)(
            self.clean & other.clean, self.attacked & other.attacked, torch.maximum(self.losses, other.losses)
        )


def _rate(hits: Tensor) -> Rate:
    return Rate(int(hits.sum()), len(hits))


def correct(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 1000) -> Tensor:
    """Which images a fresh float32 forward pass in evaluation mode classifies as labelled: bool [N] on the CPU."""
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.no_grad():
        hits = [
            model(x.to(device)).argmax(1) == y.to(device)
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    return torch.cat(hits).cpu()


def judged(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """:func:`correct`, kept in the artifact cache: verdicts on images that were made elsewhere."""

    def build(_: Path) -> dict[str, Tensor]:
        return {"correct": correct(model, images, labels)}

    config = {
        "model": model,
        "images": images,
        "labels": labels,
        "device": next(model.parameters()).device.type,
    }
    return artifacts.cached("judged", config, (correct,), build)["correct"]


def certified(
    model: nn.Module, margins: Margins, dataset: Dataset, *, eps: float, batch_size: int = 50
) -> Tensor:
    """Which images no perturbation of linf radius ``eps`` within [0, 1] can take from their label: bool [N] on the CPU.

    ``margins`` is a verified bound on z_y - z_j, such as :func:`robustutils.bounds.dual_margins`; an image counts where all
    of them are positive. Finished verdicts are kept in the artifact cache.
    """
    device = next(model.parameters()).device

    def build(_: Path) -> dict[str, Tensor]:
        found = []
        with evaluation_mode(model), torch.no_grad():
            for x, y in zip(dataset.images.split(batch_size), dataset.labels.split(batch_size), strict=True):
                x, y = x.to(device), y.to(device)
                lowest = margins(model, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1), y)
                found.append((lowest.scatter(1, y[:, None], torch.inf) > 0).all(1).cpu())
        return {"certified": torch.cat(found)}

    config = {
        "model": model,
        "margins": margins,
        "data": dataset.fingerprint,
        "eps": eps,
        "device": device.type,
    }
    return artifacts.cached("certified", config, (certified,), build)["certified"]


def losses(
    model: nn.Module, images: Tensor, labels: Tensor, *, loss: Loss = cross_entropy, batch_size: int = 1000
) -> Tensor:
    """The loss of each image in float32 and evaluation mode: [N] on the CPU."""
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.no_grad():
        values = [
            loss(model(x.to(device)), y.to(device))
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    return torch.cat(values).cpu()


def loss_gradients(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> Tensor:
    """Gradient of the cross-entropy with respect to each image, in evaluation mode: [N, C, H, W] on the CPU."""
    device = next(model.parameters()).device
    gradients = []
    with evaluation_mode(model), torch.enable_grad():
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            leaf = x.to(device).requires_grad_(True)
            total = cross_entropy(model(leaf), y.to(device)).sum()
            gradients.append(torch.autograd.grad(total, leaf)[0].cpu())
    return torch.cat(gradients)


def adversarial(
    model: nn.Module, attack: Attack, dataset: Dataset, *, batch_size: int = 500, seed: int = 0
) -> Tensor:
    """The attack's images for a whole data set, held to the threat set: float32 [N, C, H, W] on the CPU.

    A CUDA device that runs out of memory gets batches of half the size, and a warning says so.

    Raises:
        robustutils.threats.ThreatError: the attack left its threat set.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    done: list[Tensor] = []
    start = 0
    while start < len(dataset):
        x = dataset.images[start : start + batch_size].to(device)
        y = dataset.labels[start : start + batch_size].to(device)
        state = generator.get_state()
        try:
            x_adv = attack(model, x, y, generator)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size = batch_size // 2
            artifacts.log.warning("out of memory on %s: going on with batches of %d", device, batch_size)
            generator.set_state(state)
            continue
        check(attack.threat, x, x_adv)
        done.append(x_adv.cpu())
        start += len(x)
    return torch.cat(done)


def crafted(
    model: nn.Module, attack: Attack, dataset: Dataset, *, batch_size: int = 500, seed: int = 0
) -> Tensor:
    """:func:`adversarial`, kept in the artifact cache: examples that several models are to be given."""

    def build(_: Path) -> dict[str, Tensor]:
        return {"images": adversarial(model, attack, dataset, batch_size=batch_size, seed=seed)}

    config = _config(model, attack, dataset, batch_size, seed)
    code = (adversarial, type(attack), type(attack.threat))
    return artifacts.cached(f"examples-{type(attack).__name__.lower()}", config, code, build)["images"]


def evaluate(
    model: nn.Module, attack: Attack, dataset: Dataset, *, batch_size: int = 500, seed: int = 0
) -> Verdicts:
    """Attack every example of a data set and judge each on a fresh forward pass; finished verdicts are cached."""

    def build(_: Path) -> dict[str, Tensor]:
        images = adversarial(model, attack, dataset, batch_size=batch_size, seed=seed)
        return {
            "clean": correct(model, dataset.images, dataset.labels),
            "attacked": correct(model, images, dataset.labels),
            "losses": losses(model, images, dataset.labels),
        }

    config = _config(model, attack, dataset, batch_size, seed)
    code = (adversarial, correct, losses, type(attack), type(attack.threat))
    return Verdicts(**artifacts.cached(f"verdicts-{type(attack).__name__.lower()}", config, code, build))


def _config(
    model: nn.Module, attack: Attack, dataset: Dataset, batch_size: int, seed: int
) -> dict[str, object]:
    """What the outcome of an attack depends on."""
    return {
        "model": model,
        "attack": attack,
        "data": dataset.fingerprint,
        "batch": batch_size,
        "seed": seed,
        "device": next(model.parameters()).device.type,
    }
