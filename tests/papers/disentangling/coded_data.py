"""Codes on small manifolds, and networks on their images that are quick to attack: for the tests of attacks over codes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustutils.attacks import margin
from robustutils.papers.disentangling.fonts import Affine
from robustutils.papers.disentangling.latent import Manifold, Pixels

SIDE = 8
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5])


@dataclass(frozen=True)
class LinearDecoder:
    """Images 0.5 + codes W for codes in [-2, 2]^3; the columns of W are small enough for pixels in [0, 1]."""

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        weights = torch.randn(3, SIDE * SIDE, generator=torch.Generator().manual_seed(9)).sign() / 12
        return (0.5 + codes @ weights).view(-1, 1, SIDE, SIDE)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(-2.0), torch.tensor(2.0)


@dataclass(frozen=True, eq=False)
class Data:
    """Codes of any manifold."""

    manifold: Manifold
    codes: Tensor
    labels: Tensor
    images: Tensor

    def bases(self, rows: Tensor) -> Tensor:
        return self.images[rows]


class TwoClasses(nn.Module):
    """Scores 0 and w x + bias, computed row by row so that the batch does not change a bit of it."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(sign * WEIGHTS), nn.Parameter(-sign * WEIGHTS.sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) * self.weight).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def normalised_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch normalisation, in evaluation mode: three classes, all alike on a grey image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 4, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip
        for part in (net[1], net[4]):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
        for _ in range(20):
            net(torch.rand(50, 1, SIDE, SIDE))
        net.eval()
        with torch.no_grad():
            net[7].bias -= net(torch.full((1, 1, SIDE, SIDE), 0.5))[0]
    return net


def coded(manifold: Manifold, model: nn.Module, n: int = 12) -> Data:
    """Codes of a manifold, near to a border and far from it in turn, labelled by the model but for the second one."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(100, 1, SIDE, SIDE, generator=generator)
    low, high = manifold.bounds()
    shape = images.shape if isinstance(manifold, Pixels) else (100, 6 if isinstance(manifold, Affine) else 3)
    codes = low + (high - low) * torch.rand(shape, generator=generator)
    with torch.no_grad():
        logits = model(manifold.decode(codes, images))
    order = margin(logits, logits.argmax(1)).argsort(descending=True)
    chosen = torch.stack([order[: n // 2], order[-(n // 2) :]], 1).flatten()
    labels = logits.argmax(1)[chosen]
    labels[1] = (labels[1] + 1) % 3
    return Data(manifold, codes[chosen], labels, images[chosen])


def pixels_at(distances: Tensor) -> Data:
    """Images of two classes at a linf distance to the border of :class:`TwoClasses`, the ball within [0, 1]."""
    n = len(distances)
    labels = torch.arange(n) % 2
    noise = 0.2 * torch.rand(n, 6, generator=torch.Generator().manual_seed(3)) - 0.1
    noise -= (noise @ WEIGHTS / WEIGHTS.square().sum())[:, None] * WEIGHTS
    codes = 0.5 + noise + (distances * (2 * labels - 1))[:, None] * WEIGHTS.sign()
    return Data(Pixels(), codes.view(n, 1, 2, 3), labels, torch.zeros(n))
