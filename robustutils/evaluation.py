"""What did an attack achieve? The result for every example, and rates that name their denominator.

:func:`correct`, :func:`losses`, :func:`loss_gradients` and :func:`adversarial` compute; :func:`robustutils.artifacts.kept`
and :func:`robustutils.artifacts.later` keep what they have computed. :func:`certified`, :func:`evaluate` and
:func:`losses_under` keep it themselves: their models may be networks that are not there yet, and are loaded only where
something is missing.

An error rate is over all inputs, clean mistakes included (EAT). A success rate is over the inputs that the model
classified correctly before the attack (BS, DIS). Robust accuracy is over all inputs, and an example counts only if
it is classified correctly clean and under every attack. The three are never mixed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from robustutils import artifacts, flags
from robustutils.artifacts import Artifact, kept, value_of
from robustutils.attacks import Attack, Loss, cross_entropy, evaluation_mode, expect, gradient_of, logits_of
from robustutils.bounds import Margins, verified
from robustutils.data import Dataset
from robustutils.default_attack import DefaultAttack
from robustutils.speed import device_of
from robustutils.statistics import Rate
from robustutils.threats import L2, Linf, check_inside

Model = nn.Module | Artifact
"""A network, or one that will be there when it is needed."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """For each example: was it classified correctly before the attack, and after it? Both bool [N].

    ``flags`` say in words what speaks against rates of them (:mod:`robustutils.flags`); they are printed with each rate.
    """

    clean: Tensor
    attacked: Tensor
    flags: tuple[str, ...] = ()

    def error_rate(self) -> Rate:
        """Errors under attack over all inputs."""
        return rate(~self.attacked, self.flags)

    def success_rate(self) -> Rate:
        """Errors under attack over the inputs that were classified correctly before it.

        Raises:
            ValueError: there is no such input.
        """
        if not self.clean.any():
            raise ValueError(f"none of {len(self.clean)} inputs is classified correctly: no success rate")
        return rate(~self.attacked[self.clean], self.flags)

    def robust_accuracy(self) -> Rate:
        """Inputs classified correctly before and after the attack, over all inputs."""
        return rate(self.clean & self.attacked, self.flags)

    def __and__(self, other: Self) -> Self:
        """The worst case of two attacks for each example: fooled by either; the flags of both."""
        raised = tuple(dict.fromkeys(self.flags + other.flags))
        return type(self)(self.clean & other.clean, self.attacked & other.attacked, raised)


def rate(hits: Tensor, flags: tuple[str, ...] = ()) -> Rate:
    """How many of some hits, bool [N], are true."""
    return Rate(int(hits.sum()), len(hits), flags)


BATCH = 1000
"""Images in a pass whose answers alone are kept."""


def _in_batches(model: nn.Module, of: Callable[..., Tensor], size: int, *given: Tensor) -> Tensor:
    """A function of some tensors [N, ...], ``size`` rows at a time on the model's device, in evaluation mode: on the CPU."""
    expect("model", model, nn.Module, "wrap it in a torch.nn.Module whose forward returns logits")
    for part in given:
        expect("images and labels", part, Tensor, "torch.from_numpy makes one of an array")
    device = device_of(model)
    batches = zip(*(part.split(size) for part in given), strict=True)
    with evaluation_mode(model), torch.no_grad():
        return torch.cat([of(*(part.to(device) for part in batch)).cpu() for batch in batches])


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """The class that a float32 forward pass in evaluation mode gives each image: int64 [N] on the CPU.

    Raises:
        ValueError: the model returns no finite logits; the message says what.
    """
    return _in_batches(model, lambda x: logits_of(model, x).argmax(1), BATCH, images)


def correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images a fresh float32 forward pass in evaluation mode classifies as labelled: bool [N] on the CPU.

    Raises:
        ValueError: as :func:`predicted`, or there are labels that the model has no class for.
    """

    def hits(x: Tensor, y: Tensor) -> Tensor:
        logits = logits_of(model, x)
        if labels.max() >= logits.shape[1]:
            raise ValueError(
                f"the model has {logits.shape[1]} classes, and there are labels up to {labels.max()}: "
                "it is not of these data"
            )
        return logits.argmax(1) == y

    return _in_batches(model, hits, BATCH, images, labels)


def places_of_correct(models: Iterable[Model], dataset: Dataset, n: int) -> Tensor:
    """Where the first ``n`` images stand that all models classify correctly: int64 [at most n].

    Raises:
        ValueError: there is no such image.
    """
    hits = torch.stack([kept(correct, model, dataset.images, dataset.labels) for model in models]).all(0)
    if not hits.any():
        raise ValueError(f"no image of {len(dataset)} is classified correctly by all models")
    return hits.nonzero().squeeze(1)[:n]


def certified(model: Model, margins: Margins, dataset: Dataset, *, eps: float) -> Tensor:
    """Which images no perturbation of linf radius ``eps`` within [0, 1] can take from their label: bool [N], kept.

    ``margins`` is a verified bound on z_y - z_j, such as :func:`robustutils.bounds.interval_margins`; an image counts where
    all of them are positive.
    """
    return kept(_certified, model, margins, dataset, eps)


def _certified(model: nn.Module, margins: Margins, dataset: Dataset, eps: float) -> Tensor:
    def holds(x: Tensor, y: Tensor) -> Tensor:
        return verified(model, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1), y, margins)

    return _in_batches(model, holds, 50, dataset.images, dataset.labels)


def losses(model: nn.Module, images: Tensor, labels: Tensor, *, loss: Loss = cross_entropy) -> Tensor:
    """The loss of each image in float32 and evaluation mode: [N] on the CPU."""
    return _in_batches(model, lambda x, y: loss(logits_of(model, x), y), BATCH, images, labels)


def loss_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross-entropy with respect to each image, in evaluation mode: [N, C, H, W] on the CPU."""

    @torch.enable_grad()
    def gradient(x: Tensor, y: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_(True)
        return gradient_of(cross_entropy(logits_of(model, leaf), y), leaf)

    return _in_batches(model, gradient, BATCH // 2, images, labels)


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """l2 norm of :func:`loss_gradients` at each image: [N]."""
    return loss_gradients(model, images, labels).flatten(1).norm(dim=1)


def adversarial(
    model: nn.Module, attack: Attack, dataset: Dataset, *, batch_size: int = 500, seed: int = 0
) -> Tensor:
    """The attack's images for a whole data set, held to the threat set: float32 [N, C, H, W] on the CPU.

    A CUDA device that runs out of memory gets batches of half the size, and a warning says so.

    Raises:
        robustutils.threats.ThreatError: the attack left its threat set.
    """
    device = device_of(model)
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
        check_inside(attack.threat, x, x_adv)
        done.append(x_adv.cpu())
        start += len(x)
    return torch.cat(done)


def evaluate(
    model: Model, attack: Attack, dataset: Dataset, *, batch_size: int = 500, seed: int = 0
) -> AttackResult:
    """Attack every example of a data set and judge each on a fresh forward pass, with what speaks against it; kept.

    Raises:
        ValueError: the model has fewer classes than the data set, or returns no finite logits; an argument is of another
            type, or the seed has more than 64 bits.
    """
    check_arguments(model, dataset, seed)
    expect("attack", attack, Callable, "robustutils.attacks has some")  # type: ignore[arg-type]
    found = kept(_verdicts, model, attack, dataset, batch_size, seed)
    clean, attacked = found["clean"], found["attacked"]
    raised = flags.sentences(found, clean, len(dataset.classes), averaged=getattr(attack, "passes", 0))
    if raised:
        label = getattr(model, "name", type(model).__name__)
        artifacts.shelf.flags[f"{label} under {attack} on {dataset.name}"] = raised
    return AttackResult(clean, attacked, raised)


def check_arguments(model: object, dataset: object, seed: object) -> None:
    """Raises: ValueError where a model, a data set or a seed of 64 bits is none; the message names what it is."""
    expect("model", model, (nn.Module, Artifact), "wrap it in one whose forward returns logits")
    expect("dataset", dataset, Dataset, "Dataset.from_pixels makes one of images and labels")
    expect("seed", seed, int, "any of 64 bits")
    if not -(2**63) <= seed < 2**64:  # type: ignore[operator]
        raise ValueError(f"seed={seed}: must be an integer of 64 bits")


def _verdicts(
    model: nn.Module, attack: Attack, dataset: Dataset, batch_size: int = 500, seed: int = 0
) -> dict[str, Tensor]:
    def stands(attack: Attack, dataset: Dataset) -> Tensor:
        images = adversarial(model, attack, dataset, batch_size=batch_size, seed=seed)
        return correct(model, images, dataset.labels)

    seen = flags.observed(model, dataset.images, dataset.labels)
    clean = correct(model, dataset.images, dataset.labels)
    attacked = stands(getattr(attack, "ascent", attack), dataset)
    referee = getattr(attack, "referee", None)
    if referee and (clean & attacked).any():
        left = (clean & attacked).nonzero().squeeze(1)
        seen |= {
            "left": attacked,
            "refereed": attacked.index_copy(0, left, stands(referee, dataset.take(left))),
        }
        attacked = seen["refereed"]
    return {"clean": clean, "attacked": attacked, **seen}


def robust_accuracy(
    model: Model,
    dataset: Dataset,
    *,
    eps: float,
    norm: type[Linf] | type[L2] = Linf,
    batch_size: int = 500,
    seed: int = 0,
) -> Rate:
    """Robust accuracy under :class:`robustutils.default_attack.DefaultAttack`, with its interval and what speaks against it.

    Args:
        model: takes float32 [N, C, H, W] in [0, 1], returns logits [N, K].
        dataset: the images to attack.
        eps: radius of the ball, in pixels for linf.
        norm: of the ball.
        batch_size, seed: as for :func:`evaluate`.

    Raises:
        ValueError: as :func:`evaluate`, or ``eps`` is negative.
    """
    attack = DefaultAttack(threat=norm(eps=eps))
    found = evaluate(model, attack, dataset, batch_size=batch_size, seed=seed)
    if found.clean.float().mean() < POOR:
        wanted = flags.scaled(value_of(model), dataset.images, dataset.labels)
        found = replace(found, flags=found.flags + wanted)
    return found.robust_accuracy()


POOR = 0.9
"""Below this accuracy :func:`robust_accuracy` tries whether the model wants pixels in another scale."""


def losses_under(model: Model, attack: Attack, dataset: Dataset, *, seed: int = 0) -> Tensor:
    """The cross-entropy of each example after the attack: float32 [N] on the CPU, kept."""
    return kept(_losses_under, model, attack, dataset, seed=seed)


def _losses_under(model: nn.Module, attack: Attack, dataset: Dataset, seed: int = 0) -> Tensor:
    return losses(model, adversarial(model, attack, dataset, seed=seed), dataset.labels)
