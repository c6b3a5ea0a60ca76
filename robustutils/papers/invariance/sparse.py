"""A front end that takes changed pixels out of an image of few frequencies (Bafna et al. 2018; INV, Table 1)."""

import math

import torch
from torch import Tensor, nn


def cosine_basis(n: int) -> Tensor:
    """The orthonormal DCT-II as a matrix [n, n]: B x B^T are the frequencies of an image x, and B^T c B is its inverse."""
    place = torch.arange(n, dtype=torch.float64)
    basis = math.sqrt(2 / n) * torch.cos(math.pi / n * (place + 0.5) * place[:, None])
    basis[0] /= math.sqrt(2)
    return basis.float()


class SparseFrontEnd(nn.Module):
    """Images [N, C, side, side] with at most ``k`` frequencies in each channel, from which up to ``t`` pixels are taken.

    In training mode an image is projected onto its k largest coefficients of the 2-D DCT. In evaluation mode iterative
    hard thresholding alternates ``iterations`` times: the estimate is the projection of x - e, and e the t largest
    entries of x - estimate, at first none. The last estimate is returned; it may leave [0, 1]. Gradients are those of the
    piecewise linear map, with the choices of coefficients and pixels held fixed.

    Raises:
        ValueError: an argument is out of range.
    """

    basis: Tensor

    def __init__(self, *, k: int, t: int, iterations: int = 10, side: int = 28) -> None:
        super().__init__()
        if not (1 <= k <= side * side and 0 <= t <= side * side and iterations >= 1):
            raise ValueError(
                f"k={k}, t={t}, iterations={iterations}: k from 1 and t from 0 to {side * side}, and at least one iteration"
            )
        self.k, self.t, self.iterations = k, t, iterations
        self.register_buffer("basis", cosine_basis(side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            estimate = self.projected(x)
            for _ in range(0 if self.training else self.iterations - 1):
                estimate = self.projected(torch.where(_largest(x - estimate, self.t), estimate, x))
            return estimate

    def projected(self, x: Tensor) -> Tensor:
        """The nearest images with k frequencies; like ``x``."""
        frequencies = self.basis @ x @ self.basis.T
        kept = frequencies * _largest(frequencies, self.k)
        return self.basis.T @ kept @ self.basis


def _largest(x: Tensor, n: int) -> Tensor:
    """Where the ``n`` entries of largest magnitude of each channel stand: bool, like ``x``."""
    places = x.detach().abs().flatten(2).topk(n, dim=2).indices
    return torch.zeros_like(x, dtype=torch.bool).flatten(2).scatter_(2, places, True).view_as(x)
