"""Analysis by synthesis: a classifier that asks which class can paint the image (Schott et al. 2019; INV, Table 1).

Each class has a variational autoencoder of its own. An image x gets, for class c, the energy of the best latent z that
is found for it,

    E_c(x) = min_z ||x - G_c(z)||^2 + beta ||z||^2 / 2,

and the class of the lowest energy. The encoders serve the training alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LATENTS = 8
CHUNK = 10
"""Images that descend together on a CPU: so many keep the activations of a decoder in the cache."""


class Autoencoder(nn.Module):
    """The variational autoencoder of one class, with batch normalisation and ELU between its layers; 28x28 grey images.

    The encoder gives mean and logarithm of the variance of 8 latents, [N, 16, 1, 1]; the decoder takes latents [N, 8, 1, 1]
    to pixels [N, 1, 28, 28] in (0, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 5),
            *_between(32),
            nn.Conv2d(32, 32, 4, stride=2),
            *_between(32),
            nn.Conv2d(32, 64, 3, stride=2),
            *_between(64),
            nn.Conv2d(64, 2 * LATENTS, 5),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(LATENTS, 32, 4),
            *_between(32),
            nn.ConvTranspose2d(32, 16, 5, stride=2),
            *_between(16),
            nn.ConvTranspose2d(16, 16, 5, stride=2),
            *_between(16),
            nn.ConvTranspose2d(16, 1, 4),
            nn.Sigmoid(),
        )

    def decoded(self, z: Tensor) -> Tensor:
        """The images of latents [N, 8]: [N, 784]."""
        return self.decoder(z[:, :, None, None]).flatten(1)


def _between(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ELU()


class AnalysisBySynthesis(nn.Module):
    """One :class:`Autoencoder` a class; logits [N, K] are -E_c(x) times the factor of the class, for evaluation mode.

    The authors' score is E_c / 784. Without the division, E_c / beta is -log p(x, z | c) up to a constant where a pixel is
    Gaussian with variance beta / 2 around G_c(z): at beta = 1 softmax compares these, and cross-entropy makes sense.

    The search for z is deterministic: of latents drawn from the prior with one seed, the outermost tenth dismissed, the one
    of lowest energy, then Adam, with ||z|| held to ``max_norm``. The images of those latents are computed at the first call
    and again after the weights have changed. The gradient of the logits is that at fixed z (envelope theorem):
    dE_c / dx = 2 (x - G_c(z)).

    Args:
        classes: K.
        front: applied to the pixels first, such as :class:`robustutils.models.Binarise`; default: nothing.
        factors: by which the score of each class is multiplied; default: 1.
        samples: latents that are kept; 31 kB of memory each.
        steps: of Adam, of 0.05 each.
        max_norm: l2 radius of the latents.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        front: nn.Module | None = None,
        factors: Sequence[float] | None = None,
        samples: int = 8000,
        steps: int = 50,
        max_norm: float = 5.0,
    ) -> None:
        super().__init__()
        if samples < 1 or steps < 0 or not max_norm > 0:
            raise ValueError(
                f"samples={samples}, steps={steps}, max_norm={max_norm}: needs a sample, no negative steps, a radius"
            )
        if factors is not None and (len(factors) != classes or not min(factors) > 0):
            raise ValueError(f"factors={factors}: one positive number for each of {classes} classes")
        self.front = nn.Identity() if front is None else front
        self.factors = (1.0,) * classes if factors is None else tuple(factors)
        self.samples, self.steps, self.step_size, self.seed = samples, steps, 0.05, 0
        self.max_norm, self.beta = max_norm, 1.0
        self.autoencoders = nn.ModuleList(Autoencoder() for _ in range(classes))
        self._tried: tuple[object, Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("analysis by synthesis classifies in evaluation mode only")
        _check(x)
        pixels = self.front(x).flatten(1)
        z = self.latents(pixels.detach())
        return -self.energies(pixels, z) * x.new_tensor(self.factors)

    def energies(self, pixels: Tensor, z: Tensor) -> Tensor:
        """||x - G_c(z_c)||^2 + beta ||z_c||^2 / 2 for pixels [N, 784] and latents [N, K, 8]: [N, K]."""
        errors = [
            (pixels - autoencoder.decoded(z[:, label])).square().sum(1)  # type: ignore[operator]
            for label, autoencoder in enumerate(self.autoencoders)
        ]
        return torch.stack(errors, 1) + self.beta / 2 * z.square().sum(2)

    def latents(self, pixels: Tensor) -> Tensor:
        """The latents of least energy that are found for each image and class: pixels [N, 784] to [N, K, 8]."""
        start = self._best_tried(pixels)
        together = CHUNK if pixels.device.type == "cpu" else len(pixels)
        pairs = zip(pixels.split(together), start.split(together), strict=True)
        return torch.cat([self._descended(some, z) for some, z in pairs])

    def _descended(self, pixels: Tensor, z: Tensor) -> Tensor:
        z = z.clone().requires_grad_(True)
        adam = torch.optim.Adam([z], lr=self.step_size)
        for _ in range(self.steps):
            with torch.enable_grad():
                (z.grad,) = torch.autograd.grad(self.energies(pixels, z).sum(), z)
            adam.step()
            with torch.no_grad():
                z.mul_((self.max_norm / z.norm(dim=2, keepdim=True)).clamp(max=1))
        return z.detach()

    @torch.no_grad()
    def _best_tried(self, pixels: Tensor) -> Tensor:
        z, images, constants = self._all_tried()
        best = [(own - 2 * pixels @ of.T).argmin(1) for of, own in zip(images, constants, strict=True)]
        return z[torch.stack(best, 1)]

    def _all_tried(self) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [S, 8], the images [K, S, 784] of them in each class, and ||G_c(z)||^2 + beta ||z||^2 / 2, [K, S]."""
        weights = [(tensor.data_ptr(), tensor._version) for tensor in self.state_dict().values()]
        state = (self.samples, self.seed, self.beta, weights)
        if self._tried is None or self._tried[0] != state:
            z = prior_samples(self.samples, self.seed).to(next(self.parameters()))
            parts = [[own.decoded(some) for some in z.split(200)] for own in self.autoencoders]  # type: ignore[operator]
            images = torch.stack([torch.cat(part) for part in parts])
            constants = images.square().sum(2) + self.beta / 2 * z.square().sum(1)
            self._tried = state, z, images, constants
        return self._tried[1:]

    def bounds(self, x: Tensor, y: Tensor) -> Tensor:
        """The negative evidence lower bound of each image in the autoencoder of its class, times beta: [N].

        ||x - G(z)||^2 + beta KL(q(z | x) || N(0, 1)) with z drawn from q: the likelihood of a pixel is Gaussian with
        variance beta / 2, the one whose maximum over z the classification looks for. Constants are left out.

        Args:
            x: float32 [N, 1, 28, 28] in [0, 1].
            y: int64 [N].
        """
        _check(x)
        x = self.front(x)
        found = x.new_zeros(len(x))
        for label in y.unique().tolist():
            autoencoder, own = self.autoencoders[label], y == label
            mean, log_variance = autoencoder.encoder(x[own]).to(x.dtype).flatten(1).chunk(2, 1)
            z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
            divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
            error = (x[own].flatten(1) - autoencoder.decoded(z)).square().sum(1)
            found[own] = error + self.beta * divergence
        return found


def _check(x: Tensor) -> None:
    if x.shape[1:] != (1, 28, 28):
        raise ValueError(f"images of shape {tuple(x.shape[1:])}: analysis by synthesis takes (1, 28, 28)")


def prior_samples(n: int, seed: int = 0) -> Tensor:
    """The ``n`` innermost of n / 0.9 draws from N(0, 1) in 8 dimensions: float32 [n, 8], the same for a seed."""
    drawn = torch.randn(int(n / 0.9), LATENTS, generator=torch.Generator().manual_seed(seed))
    return drawn[drawn.norm(dim=1).argsort()[:n].sort().values]


@dataclass(frozen=True)
class EvidenceBound:
    """Training of :class:`AnalysisBySynthesis`: the mean of :meth:`AnalysisBySynthesis.bounds` over a batch."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        if not isinstance(model, AnalysisBySynthesis):
            raise ValueError(f"a {type(model).__name__} has no evidence bound: only AnalysisBySynthesis has")
        return model.bounds(x, y).mean()
