"""Gradient-aligned adversarial subspaces: k orthogonal directions that are all aligned with one gradient.

A regular Hadamard matrix of order k (entries +-1, orthogonal rows, row sums sqrt(k)) gives k orthogonal
directions whose cosine with the sign of the gradient is k^(-1/2), the most that k directions can have (EAT,
lemmas 6 and 7, section 4.2 and appendix E).
"""

import numpy as np
import torch
from scipy.linalg import circulant
from torch import Tensor, nn

from robustutils.attacks import evaluation_mode
from robustutils.data import Dataset
from robustutils.evaluation import loss_gradients
from robustutils.speed import device_of

ORDERS = (4, 16, 36, 64, 100)

# First rows of the symmetric circulant blocks of order 25 that make a regular Hadamard matrix of order 100.
_BLOCKS_100 = (
    "+++-++++--+----+--++++-++",
    "++-++-+-+++----+++-+-++-+",
    "++-+-+-++-++--++-++-+-+-+",
    "+--++++++---++---++++++--",
)


def regular_hadamard(order: int) -> Tensor:
    """A regular Hadamard matrix: float64 [k, k] of +-1 with H H^T = k I and all row sums sqrt(k).

    Raises:
        ValueError: ``order`` is none of 4, 16, 36, 64, 100.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order}: regular Hadamard matrices are here for orders {ORDERS}")
    ones = torch.ones(order, order, dtype=torch.float64)
    if order == 4:
        return ones - 2 * torch.eye(4, dtype=torch.float64)
    if order in (16, 64):
        return torch.kron(regular_hadamard(4), regular_hadamard(order // 4))
    if order == 36:
        row, column = torch.arange(36) // 6, torch.arange(36) % 6
        symbol = (row + column) % 6
        linked = torch.stack([line[:, None] == line for line in (row, column, symbol)]).any(0)
        return ones - 2 * linked.fill_diagonal_(False).double()
    a, b, c, d = (circulant([1.0 if sign == "+" else -1.0 for sign in row]) for row in _BLOCKS_100)
    return torch.from_numpy(np.block([[-a, b, c, d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]))


def aligned_directions(gradient: Tensor, order: int, generator: torch.Generator) -> Tensor:
    """k orthogonal directions of +-1 entries aligned with the sign of ``gradient`` [d]: float64 [k, d].

    Each row of the Hadamard matrix is repeated floor(d / k) times over a random permutation of the coordinates
    and multiplied by the gradient's sign (random where it is zero); coordinates left over are zero.

    Raises:
        ValueError: the gradient has fewer coordinates than ``order``.
    """
    if (size := gradient.numel()) < order:
        raise ValueError(f"order={order}: a gradient of {size} coordinates has no room for so many")
    coin = torch.randint(0, 2, (size,), generator=generator, dtype=torch.float64) * 2 - 1
    sign = gradient.flatten().double().sign()
    sign = torch.where(sign == 0, coin, sign)
    repeats = size // order
    used = torch.randperm(size, generator=generator)[: order * repeats]
    directions = torch.zeros(order, size, dtype=torch.float64)
    directions[:, used] = regular_hadamard(order).repeat(1, repeats)
    return directions * sign


def least_cosine(directions: Tensor, vector: Tensor) -> float:
    """The smallest cosine of the rows of ``directions`` [k, d] with ``vector`` [d]."""
    cosines = directions @ vector / (directions.norm(dim=1) * vector.norm())
    return float(cosines.min())


def violations(vector: Tensor, directions: Tensor, generator: torch.Generator, *, sets: int = 100) -> int:
    """How many of some orthonormal sets of k directions have all cosines with a vector above k^(-1/2) (EAT, Lemma 6).

    Half of the sets are random, half near ``directions`` [k, d], which attain the bound. ``vector`` is float64 [d].
    """
    k, size = directions.shape
    found = 0
    for trial in range(sets):
        noise = torch.randn(size, k, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(noise if trial < sets / 2 else directions.T + 0.1 * noise).Q
        cosine = (basis.T @ vector).abs().min().item() / vector.norm().item()
        found += cosine > k**-0.5 + 1e-12
    return found


def count_adversarial_directions(
    model: nn.Module, dataset: Dataset, eps: float, *, orders: tuple[int, ...] = ORDERS, seed: int = 0
) -> Tensor:
    """How many orthogonal perturbations of linf size ``eps`` fool the model at each image: int64 [N] on the CPU.

    For each order k the k directions aligned with the sign of the loss gradient are tried, clipped to [0, 1], and
    the fooling ones counted; the largest count over the orders is kept, and the sign of the gradient itself (FGSM)
    counts as one direction (EAT, section 4.2: gradient-aligned adversarial subspaces). An image that is misclassified
    as it is counts every direction that leaves it misclassified.
    """
    device = device_of(model)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(len(dataset), dtype=torch.int64)
    gradients = loss_gradients(model, dataset.images, dataset.labels)
    with evaluation_mode(model):
        for i, (x, y, gradient) in enumerate(zip(dataset.images, dataset.labels, gradients, strict=True)):
            sets = [gradient.sign().reshape(1, -1).double()]
            sets += [aligned_directions(gradient, order, generator) for order in orders]
            steps = eps * torch.cat(sets).float().view(-1, *x.shape)
            with torch.no_grad():
                fooled = model((x + steps).clamp(0, 1).to(device)).argmax(1).cpu() != y
            counts[i] = max(int(part.sum()) for part in fooled.split([len(part) for part in sets]))
    return counts
