"""Carlini & Wagner's attacks: how far is the nearest adversarial image?

They look for the smallest distortion instead of the highest loss inside a ball, by a loop of their own and not by
:func:`robustutils.attacks.ascend`: all images of a batch are optimised together, yet each runs its own schedule, with its
own constant c, threshold, Adam moments and counters, and leaves the batch when its own search is over. An image's pixels
are (tanh(w) + 1) / 2, so the box [0, 1] needs no projection. As in BS there are two starts for each image, and the
nearer result counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustutils.artifacts import Call, later
from robustutils.attacks import PGD, SURE, evaluation_mode, guarded, margin, precision, wide
from robustutils.data import Dataset
from robustutils.evaluation import Model, adversarial, correct
from robustutils.speed import FastInputGradients, autocast, device_of, exact
from robustutils.storage import Tensors
from robustutils.threats import L2, Linf, check_inside

NOISE = 0.2
"""Standard deviation of a pixel in the first start."""


class _Rows:
    """The searches still going on, one a row: every tensor has the rows as leading dimension."""

    def __init__(self, attack: "_Carlini", x: Tensor, y: Tensor, start: Tensor) -> None:
        self.attack, self.x, self.y, self.best = attack, x, y, x
        self.index = torch.arange(len(x), device=x.device)
        self.w = self.start = torch.atanh((start - 0.5) * 1.999999)
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.steps = self.iteration = self.rounding = zeros = x.new_zeros(len(x))
        self.reference = self.distance = zeros + torch.inf
        self.c = zeros + attack.initial_c

    def keep(self, stay: Tensor) -> None:
        """Drop all other rows."""
        for name, part in vars(self).items():
            if isinstance(part, Tensor):
                setattr(self, name, part[stay])

    def step(self, gradient: Tensor, loss: Tensor, fools: Tensor, size: Tensor) -> Tensor:
        """A step of each row's own Adam, or the beginning of its next round; returns which rows are finished."""
        self.steps = self.steps + 1
        self.first = torch.lerp(gradient, self.first, 0.9)
        self.second = torch.lerp(gradient.square(), self.second, 0.999)
        scale = (self.second / wide(1 - 0.999**self.steps, self.w)).sqrt() + 1e-8
        moved = self.w - self.attack.learning_rate * self.first / wide(1 - 0.9**self.steps, self.w) / scale
        due = self.iteration % max(1, self.attack.iterations // 10) == 0
        over = self.iteration == self.attack.iterations - 1
        if self.attack.abort_early:
            over = over | (due & (loss >= 0.9999 * self.reference))
        self.reference = torch.where(due, loss, self.reference)
        anew, done = self.advance(fools, size, due, over)
        self.w = torch.where(wide(anew, moved), self.start, moved)
        self.first, self.second = (
            part.masked_fill(wide(anew, part), 0) for part in (self.first, self.second)
        )
        self.steps = self.steps.masked_fill(anew, 0)
        self.iteration = (self.iteration + 1).masked_fill(anew | over, 0)
        self.reference = self.reference.masked_fill(anew | over, torch.inf)
        return done

    def penalty(self, delta: Tensor) -> Tensor:
        """What the objective adds to c times the hinge: [N]."""
        raise NotImplementedError

    def wanted(self, loss: Tensor, size: Tensor) -> Tensor:
        """Which iterates are of use if they fool the model."""
        raise NotImplementedError

    def advance(self, fools: Tensor, size: Tensor, due: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        """Set c and the like of the next round: which rows begin it at ``start``, and which are finished.

        ``due`` rows are at a tenth of their iterations, ``over`` rows have used them up or make no progress.
        """
        raise NotImplementedError


class LinfRows(_Rows):
    """Rounds of a shrinking threshold tau; within a round c grows, and w goes on, until it succeeds."""

    attack: "CarliniLinf"

    def __init__(self, attack: "CarliniLinf", x: Tensor, y: Tensor, start: Tensor) -> None:
        super().__init__(attack, x, y, start)
        self.tau = torch.ones_like(self.c)

    def penalty(self, delta: Tensor) -> Tensor:
        return (delta.abs() - wide(self.tau, delta)).clamp_min(0).flatten(1).sum(1)

    def wanted(self, loss: Tensor, size: Tensor) -> Tensor:
        return loss < 1e-4 * self.c

    def advance(self, fools: Tensor, size: Tensor, due: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        self.start = torch.where(wide(fools, self.w), self.w, self.start)
        self.tau = torch.where(fools, 0.9 * torch.minimum(self.tau, size), self.tau)
        self.c = torch.where(over & ~fools, 2 * self.c, self.c)
        return fools, (self.c > self.attack.largest_c) | (self.tau <= 1 / 256)


class _L2Rows(_Rows):
    """A fixed number of rounds from the same start: c times 10 until one succeeds, then bisection."""

    def __init__(self, attack: "CarliniL2", x: Tensor, y: Tensor, start: Tensor) -> None:
        super().__init__(attack, x, y, start)
        self.found = torch.zeros_like(y, dtype=torch.bool)
        self.low, self.high = torch.zeros_like(self.c), torch.full_like(self.c, torch.inf)
        self.left = torch.full_like(self.c, attack.binary_steps)

    def penalty(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).square().sum(1)

    def wanted(self, loss: Tensor, size: Tensor) -> Tensor:
        return ~self.found | (size < self.distance)

    def advance(self, fools: Tensor, size: Tensor, due: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        found = self.found | fools
        self.high = torch.where(over & found, self.c, self.high)
        self.low = torch.where(over & ~found, self.c, self.low)
        c = torch.where(self.high.isinf(), (10 * self.c).clamp_max(1e10), (self.low + self.high) / 2)
        self.c = torch.where(over, c, self.c)
        self.found, self.left = found & ~due & ~over, self.left - over.float()
        return over, self.left == 0


@dataclass(frozen=True, kw_only=True)
class _Carlini:
    """What both attacks share."""

    learning_rate: float
    iterations: int = 1000
    initial_c: float
    abort_early: bool = True
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations}: at least 1 is needed")
        for name in ("initial_c", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")

    threat: ClassVar[Linf | L2]
    """All of the box: the norm is what the attack keeps small."""
    rows: ClassVar[type[_Rows]]

    @guarded
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Search from noise around x and from mid-grey; x itself where it is misclassified or nothing was found."""
        noise = NOISE * torch.randn(x.shape, generator=generator).to(x.device)
        with exact(x):
            left = (model(x).argmax(1) == y).nonzero().squeeze(1)
        starts = torch.cat([(x + noise).clamp(0, 1)[left], torch.full_like(x, 0.5)[left]])
        images, distances = self.search(model, x[left].repeat(2, 1, 1, 1), y[left].repeat(2), starts)
        nearer = distances.view(2, -1).argmin(0)
        result = x.clone()
        result[left] = images.view(2, len(left), *x.shape[1:])[nearer, torch.arange(len(left))]
        return result

    def search(self, model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest fooling images that are found from ``start``, and their distances [N].

        Where nothing is found it is ``x``, at distance inf. The model must be in evaluation mode. Under bfloat16 an
        image counts only if it fools in float32; the rounding error seen there corrects the row's later margins.
        """
        rows = self.rows(self, x, y, start)
        images, distances = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        with torch.enable_grad(), FastInputGradients(), autocast(x.device, precision(model, x, self.dtype)):
            while len(rows.y):
                leaf = rows.w.detach().requires_grad_(True)
                made = (torch.tanh(leaf) + 1) / 2
                gain = margin(model(made), rows.y) - rows.rounding
                loss = rows.c * (2 * SURE - gain).clamp_min(0) + rows.penalty(made - rows.x)
                (gradient,) = torch.autograd.grad(loss.sum(), leaf)
                with exact(x):
                    size = self.threat.size(rows.x, made)
                    fools = (gain > SURE) & rows.wanted(loss, size)
                    if self.dtype != torch.float32:
                        fools = _confirmed(model, rows, made, gain, fools)
                    nearer = fools & (size < rows.distance)
                    rows.best = torch.where(wide(nearer, made), made, rows.best)
                    rows.distance = torch.where(nearer, size, rows.distance)
                    done = rows.step(gradient, loss, fools, size)
                    if done.any():
                        images[rows.index[done]] = rows.best[done]
                        distances[rows.index[done]] = rows.distance[done]
                        rows.keep(~done)
        with exact(x):
            lost = margin(model(images), y) <= 0 if len(x) else distances.isinf()
            return torch.where(wide(lost, x), x, images), distances.masked_fill(lost, torch.inf)


def _confirmed(model: nn.Module, rows: _Rows, made: Tensor, gain: Tensor, fools: Tensor) -> Tensor:
    """Those of ``fools`` that fool in float32 too; what rounding hid is noted in each row asked about."""
    asked = fools.nonzero().squeeze(1)
    if len(asked) == 0:
        return fools
    truth = margin(model(made[asked]), rows.y[asked])
    rows.rounding = rows.rounding.index_add(0, asked, gain[asked] - truth)
    return fools.index_copy(0, asked, truth > SURE)


@dataclass(frozen=True, kw_only=True)
class CarliniLinf(_Carlini):
    """The smallest change of the most changed pixel (Carlini & Wagner 2017, section VI.C; their ``li_attack.py``).

    Minimises c max(0, z_y - max_{j != y} z_j) + sum_i max(0, abs(delta_i) - tau). A round succeeds when that is below
    1e-4 c and the label has changed: then tau becomes 0.9 min(tau, achieved), and a new round starts from there. After
    ``iterations`` without success c doubles; the search ends with c above ``largest_c`` or tau at most 1/256.

    ``abort_early`` also ends a round's try at c as failed when the loss has not fallen below 0.9999 of its value a
    tenth of the iterations ago. The authors' linf code has no such test; it is taken from their l2 code and saves
    most iterations at values of c that are too small.
    """

    learning_rate: float = 5e-3
    initial_c: float = 1e-5
    largest_c: float = 20.0
    threat = Linf(eps=1.0)
    rows = LinfRows

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.largest_c >= self.initial_c:
            raise ValueError(f"largest_c={self.largest_c}: must not be below initial_c={self.initial_c}")


@dataclass(frozen=True, kw_only=True)
class CarliniL2(_Carlini):
    """The smallest Euclidean distance (Carlini & Wagner 2017, section VI.A; their ``l2_attack.py``).

    Minimises ||delta||^2 + c max(0, z_y - max_{j != y} z_j) in ``binary_steps`` rounds: c grows tenfold until a round
    succeeds, then bisection finds the smallest c that does. Every iterate counts. A round succeeds when an iterate of
    its last tenth fools the model; in the authors' code any iterate will do, but from a start that fools already every
    round would succeed and c shrink to nothing. ``abort_early`` ends a round when the loss has not fallen below 0.9999
    of its value a tenth of the iterations ago.
    """

    learning_rate: float = 1e-2
    initial_c: float = 1e-3
    binary_steps: int = 9
    threat = L2(eps=float("inf"))
    rows = _L2Rows

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.binary_steps < 1:
            raise ValueError(f"binary_steps={self.binary_steps}: at least 1 is needed")


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest adversarial image of each example: float32 [N, C, H, W], and its distance [N].

    The distance is 0 where the model is wrong already, and inf where nothing was found.
    """

    images: Tensor
    distances: Tensor


def batches(
    model: Model, attack: CarliniLinf | CarliniL2, dataset: Dataset, *, batch_size: int = 100
) -> list[Call]:
    """The attack on a data set, batch by batch: artifacts that hold ``images`` and ``distances``, looked for when called."""
    return [
        later(_nearest, model, attack, x, y, batch_size * number)
        for number, (x, y) in enumerate(
            zip(dataset.images.split(batch_size), dataset.labels.split(batch_size), strict=True)
        )
    ]


def all_distances(parts: Sequence[Tensors]) -> Tensor:
    """The distances of all examples of some batches."""
    return torch.cat([part["distances"] for part in parts])


def shortened(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, *, halvings: int = 10) -> Tensor:
    """The nearest image on the straight way from ``x`` to ``x_adv`` that bisection finds to fool the model, on the CPU.

    Attacks that look for the smallest distortion stop a step of their own short of it, some a coarse and some a fine one;
    after this their distances can be compared. Where ``x_adv`` does not fool, it comes back as it is.
    """
    device = device_of(model)
    x, y, x_adv = x.to(device), y.to(device), x_adv.to(device)
    stands, fools = torch.zeros(len(x), device=device), torch.ones(len(x), device=device)
    with evaluation_mode(model), exact(x):
        for _ in range(halvings):
            middle = (stands + fools) / 2
            fooled = margin(model(torch.lerp(x, x_adv, wide(middle, x))), y) > SURE
            stands, fools = torch.where(fooled, stands, middle), torch.where(fooled, middle, fools)
        nearer = torch.lerp(x, x_adv, wide(fools, x))
        return torch.where(wide(margin(model(x_adv), y) > 0, x), nearer, x_adv).cpu()


LADDER = tuple(0.02 * 1.05**k for k in range(80))
"""Radii that :func:`pgd_nearest` tries, each a twentieth larger than the last: 0.02 to 0.94."""


def pgd_nearest(
    model: nn.Module, dataset: Dataset, *, steps: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """PGD's example in the smallest linf ball of :data:`LADDER` that holds one, found by bisection, else the image.

    PGD climbs the cross-entropy for ``steps`` steps of eps / 10. Float32 [N, C, H, W] on the CPU.
    """
    images = dataset.images.clone()
    withstood = torch.full((len(dataset),), -1)
    fooled = torch.full((len(dataset),), len(LADDER))
    while (open_ := fooled - withstood > 1).any():
        middle = (withstood + fooled) // 2
        for level in middle[open_].unique().tolist():
            tried = (open_ & (middle == level)).nonzero().squeeze(1)
            eps = LADDER[level]
            pgd = PGD(threat=Linf(eps=eps), steps=steps, step_size=eps / 10, dtype=dtype)
            made = adversarial(model, pgd, dataset.take(tried))
            stands = correct(model, made, dataset.labels[tried])
            withstood[tried[stands]] = level
            fooled[tried[~stands]] = level
            images[tried[~stands]] = made[~stands]
    return images


def beside_pgd(
    model: nn.Module,
    parts: Sequence[Tensors],
    dataset: Dataset,
    *,
    steps: int,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """How near two attacks come to the same images: C&W, whose batches begin with them, and :func:`pgd_nearest`.

    Returns:
        ``fell``: bool [N], images that fall to both; of these n, float32 [2, n] linf distances of C&W's and PGD's
        examples: ``as found``, and ``drawn near`` by :func:`shortened`.
    """
    images = dataset.images
    made = [torch.cat([part["images"] for part in parts])[: len(dataset)]]
    made.append(pgd_nearest(model, dataset, steps=steps, dtype=dtype))
    near = [shortened(model, images, dataset.labels, x_adv) for x_adv in made]
    fell = torch.stack([(x_adv != images).flatten(1).any(1) for x_adv in made]).all(0)
    size = Linf(eps=1.0).size
    far = {
        how: torch.stack([size(images, x_adv)[fell] for x_adv in pair])
        for how, pair in (("as found", made), ("drawn near", near))
    }
    return {"fell": fell, **far}


def _nearest(
    model: nn.Module, attack: CarliniLinf | CarliniL2, x: Tensor, y: Tensor, seed: int
) -> dict[str, Tensor]:
    """Images and distances of one batch."""
    device = device_of(model)
    x, y = x.to(device), y.to(device)
    images = attack(model, x, y, torch.Generator().manual_seed(seed))
    check_inside(attack.threat, x, images)
    distances = attack.threat.size(x, images)
    unmoved = (images == x).flatten(1).all(1)
    right = correct(model, x, y).to(x.device)
    return {"images": images, "distances": distances.masked_fill(unmoved & right, torch.inf)}
