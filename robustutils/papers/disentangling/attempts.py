"""Attacks over codes, several times on each point of a data set: what they find, how far it is, and how often (DIS, 3.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from robustutils.attacks import evaluation_mode
from robustutils.outcomes import Measurement
from robustutils.papers.disentangling.latent import Ascent, Coded, Found, answers, within
from robustutils.speed import device_of
from robustutils.statistics import mean_interval, wilson

BATCH = 500
"""Points that are attacked at a time: up to rounding, it does not change what is found."""


def examples(
    model: nn.Module, attack: Ascent, data: Coded, *, points: int, tries: int = 5, seed: int = 0
) -> dict[str, Tensor]:
    """Codes that ``tries`` attempts find for each of the first ``points`` examples; on the CPU.

    Points that are wrong before the attack, or whose codes lie outside of the bounds, are not attacked. What is found for a
    point and an attempt depends on the seed, the point and the attempt, up to rounding not on the batch.

    Returns:
        ``codes`` float32 [points, tries, ...]; ``correct``, ``success`` bool and ``steps`` int64 [points, tries] as in
        :class:`.latent.Found`; ``valid`` bool [points, tries], whether the codes of the data set lie within the
        bounds.

    Raises:
        ValueError: more points than examples, or no attempt.
    """
    if tries < 1:
        raise ValueError(f"tries={tries}: at least one attempt is needed")
    codes, correct, valid = _begun(model, data, points)
    left = (correct & valid).nonzero().squeeze(1)
    made = codes.unsqueeze(1).repeat_interleave(tries, 1)
    success, steps = torch.zeros(points, tries, dtype=torch.bool), torch.full((points, tries), -1)
    if len(left):
        rows, chances = left.repeat_interleave(tries), torch.arange(tries).repeat(len(left))
        radius = torch.full((len(rows),), attack.eps)
        found = _searched(model, attack, data, rows, chances, radius, seed=seed)
        made[left] = found.codes.view_as(made[left])
        success[left], steps[left] = found.success.view(-1, tries), found.steps.view(-1, tries)
    return {
        "codes": made,
        "success": success,
        "steps": steps,
        "correct": correct.unsqueeze(1).repeat(1, tries),
        "valid": valid.unsqueeze(1).repeat(1, tries),
    }


def attempts(
    model: nn.Module, attack: Ascent, data: Coded, *, points: int, tries: int = 5, seed: int = 0
) -> dict[str, Tensor]:
    """How often :func:`examples` succeed, without the examples: ``success``, ``correct`` and ``valid`` as there."""
    found = examples(model, attack, data, points=points, tries=tries, seed=seed)
    return {name: found[name] for name in ("success", "correct", "valid")}


def steps(
    model: nn.Module, attack: Ascent, data: Coded, *, points: int, tries: int = 5, seed: int = 0
) -> dict[str, Tensor]:
    """How soon :func:`examples` succeed: ``success`` bool and ``steps`` int16 [points, tries], -1 without success."""
    found = examples(model, attack, data, points=points, tries=tries, seed=seed)
    return {"success": found["success"], "steps": found["steps"].where(found["success"], -1).short()}


def smallest(
    model: nn.Module, attack: Ascent, data: Coded, *, points: int, rounds: int = 10, seed: int = 0
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
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: at least one is needed")
    codes, correct, valid = _begun(model, data, points)
    size = torch.where(correct, torch.inf, 0.0)
    held, radius = torch.zeros(points), torch.full((points,), attack.eps)
    left = (correct & valid).nonzero().squeeze(1)
    for _ in range(rounds):
        if len(left) == 0:
            break
        first = torch.zeros_like(left)
        found = _searched(model, attack, data, left, first, radius[left], seed=seed)
        moved = attack.size(found.codes - codes[left])
        size[left] = torch.where(found.success, torch.minimum(moved, size[left]), size[left])
        held[left] = torch.where(found.success, held[left], radius[left])
        left = left[size[left].isfinite()]
        radius = (held + size) / 2
    return {"size": size.masked_fill(~valid, torch.inf), "valid": valid}


def transferred(
    model: nn.Module,
    source: nn.Module,
    attack: Ascent,
    data: Coded,
    *,
    points: int,
    tries: int = 5,
    seed: int = 0,
) -> dict[str, Tensor]:
    """What :func:`examples` of another model, the source, do to this one.

    Returns:
        ``correct``, ``success``, ``valid`` bool [points, tries] as there, for this model: ``success`` where the point is
        correct and the source's example, whether it fooled that one or not, is wrong.

    Raises:
        ValueError: more points than examples, or no attempt.
    """
    found = examples(source, attack, data, points=points, tries=tries, seed=seed)
    rows = torch.arange(points)
    correct = _judged(model, data, rows, data.codes[rows]).unsqueeze(1).repeat(1, tries)
    each = rows.repeat_interleave(tries)
    stands = _judged(model, data, each, found["codes"].flatten(0, 1)).view(points, tries)
    return {"correct": correct, "success": correct & ~stands, "valid": found["valid"]}


def correct_points(model: nn.Module, data: Coded) -> Tensor:
    """Whether the image of each example's codes is classified as labelled: bool [N] on the CPU."""
    return _judged(model, data, torch.arange(len(data.labels)), data.codes)


def _begun(model: nn.Module, data: Coded, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """The codes of the first ``points`` examples, whether the model is right about each, and whether they are valid."""
    n = len(data.labels)
    if not 1 <= points <= n:
        raise ValueError(f"points={points}: there are {n} examples, so 1 to {n}")
    codes = data.codes[:points]
    return codes, _judged(model, data, torch.arange(points), codes), within(data.manifold, codes)


def _judged(model: nn.Module, data: Coded, rows: Tensor, codes: Tensor) -> Tensor:
    """Whether images decoded from ``codes`` of the examples ``rows`` are classified as labelled: bool [n] on the CPU."""
    device = device_of(model)
    with evaluation_mode(model):
        labels = [
            answers(model, data.manifold, made.to(device), data.bases(part).to(device)).cpu()
            for part, made in zip(rows.split(1000), codes.split(1000), strict=True)
        ]
    return torch.cat(labels) == data.labels[rows]


def _searched(
    model: nn.Module, attack: Ascent, data: Coded, rows: Tensor, tries: Tensor, radius: Tensor, *, seed: int
) -> Found:
    """What an attack finds for some examples, each in one of its attempts and within a radius of its own; on the CPU."""
    device = device_of(model)
    parts = []
    for places, chances, radii in zip(*(part.split(BATCH) for part in (rows, tries, radius)), strict=True):
        codes = data.codes[places]
        noise = [
            attack.noise(codes[:1].shape, _generator(seed, row, attempt))
            for row, attempt in zip(places.tolist(), chances.tolist(), strict=True)
        ]
        given = (codes, data.bases(places), data.labels[places], torch.cat(noise), radii)
        found = attack.search(model, data.manifold, *(part.to(device) for part in given))
        parts.append([getattr(found, name).cpu() for name in Found.__dataclass_fields__])
    return Found(*map(torch.cat, zip(*parts, strict=True)))


def _generator(*key: int) -> torch.Generator:
    """A generator for each seed, point and attempt; torch's takes 32 bits."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


# ---- what counts ----


@dataclass(frozen=True, eq=False)
class Conditional:
    """Numbers [S, N] of which those count where ``counts`` is true, bool [S, N]: each seed has examples of its own.

    So a success rate counts the examples that the network of a seed classifies correctly. Test-set intervals take the
    fewest that any seed has; the numbers are percentages where ``percent``.

    Raises:
        ValueError: the shapes differ, or a seed has no example that counts.
    """

    values: np.ndarray
    counts: np.ndarray
    seeds: Sequence[int]
    percent: bool = True

    def __post_init__(self) -> None:
        if self.values.shape != self.counts.shape or len(self.values) != len(self.seeds):
            raise ValueError(
                f"numbers {list(self.values.shape)} and counts {list(self.counts.shape)} of {len(self.seeds)} seeds"
            )
        if not self.counts.any(axis=1).all():
            raise ValueError("no example of a seed counts")

    def of_seeds(self, seeds: Sequence[int]) -> Self:
        """The same of some of its seeds."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return replace(self, values=self.values[rows], counts=self.counts[rows], seeds=seeds)

    @property
    def per_seed(self) -> np.ndarray:
        """The mean of each seed's examples, float [S]."""
        return np.array([row[counts].mean() for row, counts in zip(self.values, self.counts, strict=True)])

    def measured(self, reference: Self | None = None) -> Measurement:
        """The mean over seeds. Its interval over examples: Wilson's for percentages, else Student's t of the first seed."""
        if reference is not None:
            raise ValueError("a conditional rate has no paired reference")
        each, n = self.per_seed, int(self.counts.sum(axis=1).min())
        value = float(each.mean())
        if self.percent:
            ci95: Any = tuple(100 * end for end in wilson(value / 100 * n, n))
        else:
            low, high = mean_interval(self.values[0][self.counts[0]])
            ci95 = (low - each[0] + value, high - each[0] + value)
        kept = np.where(self.counts, self.values, 0)
        return Measurement(
            value, ci95, n, self.seeds, per_seed=each, outcomes={"values": kept, "counts": self.counts}
        )

    def __sub__(self, other: Self) -> Measurement:
        """The difference of two means on the seeds that both have, as if of different examples.

        Raises: ValueError where they have no seed in common.
        """
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        if not seeds:
            raise ValueError("the two have no seed in common")
        one, two = self.of_seeds(seeds), other.of_seeds(seeds)
        mine, yours = one.measured(), two.measured()
        outcomes = dict(mine.outcomes) | {f"other {name}": part for name, part in yours.outcomes.items()}
        return mine.apart(yours, seeds, per_seed=one.per_seed - two.per_seed, outcomes=outcomes)


def success(
    found: Sequence[Mapping[str, Tensor]],
    seeds: Sequence[int],
    *,
    as_coded: bool = False,
    worst: bool = False,
) -> Conditional:
    """Share of the attempts on a point that succeed, in percent, over the points that count (DIS, section 3.1).

    A point counts where the model is right before the attack and the codes lie within the bounds. In the authors' code, with
    ``as_coded``, it counts wherever the model is right, and never succeeds outside of the bounds: the rate is lower. The
    attempts on a point go together, so that intervals count points.

    Args:
        found: of each training seed ``success``, ``correct`` and ``valid``, bool [points, tries].
        seeds: these seeds.
        as_coded: the authors' denominator.
        worst: whether one success of all attempts makes a point succeed altogether.

    Raises:
        ValueError: no point of a seed counts.
    """
    hits = [one["success"] & one["correct"] & one["valid"] for one in found]
    shares = [part.any(1).double() if worst else part.double().mean(1) for part in hits]
    counts = [one["correct"][:, 0] & (one["valid"][:, 0] | as_coded) for one in found]
    return Conditional(100 * torch.stack(shares).numpy(), torch.stack(counts).numpy(), seeds)


def steps_to_success(found: Sequence[Mapping[str, Tensor]], seeds: Sequence[int]) -> Conditional:
    """Mean number of updates of a point's successful attempts, over the points that have one (DIS-X1).

    ``found`` has of each training seed ``success`` bool and ``steps`` [points, tries].
    """
    hits = torch.stack([one["success"] for one in found])
    updates = torch.stack([one["steps"] for one in found]).double().where(hits, 0).sum(2)
    count = hits.sum(2)
    return Conditional((updates / count.clamp_min(1)).numpy(), (count > 0).numpy(), seeds, percent=False)
