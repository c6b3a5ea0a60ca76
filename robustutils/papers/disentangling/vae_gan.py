"""Class manifolds that are learned: one VAE-GAN for each class, and its codes as what is attacked (DIS, section 3.1).

The encoder of a VAE-GAN gives mean and variance of a code z, its decoder makes an image of z, and its discriminator tells
images from reconstructions (Larsen et al. 2016). The code of an image is the mean that the encoder of its class gives;
codes count as on the manifold where no coordinate lies further from 0 than :data:`BOUND`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import artifacts
from robustutils.data import Dataset
from robustutils.registry import choose
from robustutils.speed import device_of, exact

LATENT = 10
"""How many numbers a code has."""
BOUND = 2.0
"""Codes of the manifold lie in [-2, 2]^10."""
ROWS = 1000
"""Images that are encoded or decoded at a time."""
_BETAS: dict[str, tuple[float, dict[int, float]]] = {
    "mnist": (2.25, {1: 5.0, 7: 3.0}),
    "fashion_mnist": (2.75, {}),
    "fonts": (3.0, {}),
    "fonts_embedded": (3.0, {}),
}


class VaeGanError(ValueError):
    """A VAE-GAN is not good enough to serve as a manifold; the message says in what, and what to do."""


class VaeGan(nn.Module):
    """Encoder, decoder and discriminator for 28x28 grey images. Called, it gives reconstructions [N, 1, 28, 28].

    Each part has three layers of 64, 128 and 256 channels, and ``width`` times as many with another width. Convolutions
    start normal with a standard deviation of 0.001, dense layers with that of sqrt(2 / 3) / sqrt(fan-in), biases at zero.
    Convolutions before batch normalisation have no bias, which it would take out again.

    Raises:
        ValueError: 64 times ``width`` is no positive whole number.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        if not (width > 0 and (64 * width).is_integer()):
            raise ValueError(f"width={width}: 64 times the width must be a positive whole number")
        few, some, many = (int(64 * width) * factor for factor in (1, 2, 4))
        self.encoder = nn.Sequential(*_flattened(few, some, many, kernel=4), nn.Linear(9 * many, 2 * LATENT))
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, 9 * many),
            nn.Unflatten(1, (many, 3, 3)),
            nn.ConvTranspose2d(many, some, 6, stride=2, padding=2, output_padding=1, bias=False),
            nn.BatchNorm2d(some),
            nn.ReLU(),
            nn.ConvTranspose2d(some, few, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(few),
            nn.ReLU(),
            nn.ConvTranspose2d(few, 1, 6, stride=2, padding=2),
            nn.Sigmoid(),
        )
        self.discriminator = nn.Sequential(
            *_flattened(few, some, many, kernel=6), nn.Linear(9 * many, 10), nn.Linear(10, 1)
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, std=0.001)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / 3 / layer.in_features))
            if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)[0])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the codes of images [N, 1, 28, 28], each [N, 10]."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] in [0, 1] of codes [N, 10]."""
        return self.decoder(z)

    def discriminate(self, x: Tensor) -> Tensor:
        """The logits [N] of images [N, 1, 28, 28] being real."""
        return self.discriminator(x).squeeze(1)


def _flattened(*widths: int, kernel: int) -> list[nn.Module]:
    """Convolutions that halve height and width, each with batch normalisation and rectifier; then all in a row."""
    layers: list[nn.Module] = []
    for channels, out in pairwise((1, *widths)):
        layers.append(nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2 - 1, bias=False))
        layers += [nn.BatchNorm2d(out), nn.ReLU()]
    return [*layers, nn.Flatten()]


@dataclass(frozen=True, kw_only=True)
class VaeGanLoss:
    """Training of a :class:`VaeGan`, three losses in one: each term's gradient reaches the parts that it belongs to.

    With x' the reconstruction from a code drawn from N(mean, variance), and all terms summed over the batch, the encoder
    lowers KL(N(mean, variance), N(0, I)) + ``beta`` ||x - x'||_1 - ``gamma`` log D(x'), the decoder the same without KL, and
    the discriminator D lowers -log D(x) - log(1 - D(x')) (DIS, supplement). The gradients of all three are those of one
    pass; in the authors' code the encoder steps first. As Adam treats each weight by itself, one of it for all parts is
    three.
    """

    beta: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not (self.beta > 0 and self.gamma >= 0):
            raise ValueError(
                f"beta={self.beta}, gamma={self.gamma}: beta must be positive, gamma not negative"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        gan = _checked(model)
        mean, log_variance = (part.to(x.dtype) for part in gan.encode(x))
        noise = torch.randn(mean.shape).to(x)
        made = gan.decode(mean + (log_variance / 2).exp() * noise).to(x.dtype)
        fake = made.detach().requires_grad_(True)
        on_real, on_fake = (gan.discriminate(images).to(x.dtype) for images in (x, fake))
        deceit = F.softplus(-on_fake).sum()  # -log D(x')
        (gradient,) = torch.autograd.grad(deceit, fake, retain_graph=True)
        through_decoder = (made * gradient).sum()
        deceit = through_decoder + (deceit - through_decoder).detach()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        discriminators = F.softplus(-on_real).sum() + F.softplus(on_fake).sum()
        return divergence + self.beta * (x - made).abs().sum() + self.gamma * deceit + discriminators


def vae_gan_beta(dataset: str, label: int) -> float:
    """The weight of the reconstruction in :class:`VaeGanLoss` for a class of a data set (DIS, supplement).

    Raises:
        ValueError: there is none for this data set; the message lists those there are.
    """
    choose("data set of VAE-GANs", dataset, _BETAS)
    usual, of_class = _BETAS[dataset]
    return of_class.get(label, usual)


# ---- the manifold ----


@dataclass(frozen=True, eq=False)
class ClassManifold:
    """The images that the decoders of some classes make of codes: a :class:`.latent.Manifold`.

    Codes are z, float32 [N, 10], bases are labels, int64 [N]. ``gans`` has the VAE-GAN of each class, or the artifact of
    one, in evaluation mode.
    """

    gans: Mapping[int, VaeGan | artifacts.Artifact]

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] in [0, 1] of codes [N, 10], each by the decoder of its class, int64 [N].

        Raises:
            ValueError: other shapes, or a class without a VAE-GAN.
        """
        if codes.shape != (len(bases), LATENT):
            raise ValueError(
                f"codes are {list(codes.shape)}; {len(bases)} labels need [{len(bases)}, {LATENT}]"
            )
        made = self._of_each_class(VaeGan.decode, codes, bases)
        return codes.new_zeros(0, 1, 28, 28) if made is None else made.to(codes.dtype)

    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Codes [N, 10] of images [N, 1, 28, 28], the means that the encoders of their classes give; on the CPU.

        Raises:
            ValueError: other shapes, or a class without a VAE-GAN.
        """
        if images.shape != (len(labels), 1, 28, 28):
            raise ValueError(
                f"images are {list(images.shape)}; {len(labels)} labels need [{len(labels)}, 1, 28, 28]"
            )
        with exact(images):
            made = self._of_each_class(_means, images, labels)
        return images.new_zeros(0, LATENT) if made is None else made

    def bounds(self) -> tuple[Tensor, Tensor]:
        """-2 and 2."""
        return torch.tensor(-BOUND), torch.tensor(BOUND)

    def _of_each_class(
        self, function: Callable[[VaeGan, Tensor], Tensor], items: Tensor, labels: Tensor
    ) -> Tensor | None:
        """``function(gan, items)`` of the items [N, ...] of each class, put in their order again; None of no items."""
        order = labels.argsort()
        classes, counts = labels.unique(return_counts=True)
        gans = [self._gan(label) for label in classes.tolist()]
        parts = [
            function(gan, part) for gan, part in zip(gans, items[order].split(counts.tolist()), strict=True)
        ]
        return torch.cat(parts)[order.argsort()] if parts else None

    def _gan(self, label: int) -> VaeGan:
        if label not in self.gans:
            known = ", ".join(map(str, sorted(self.gans)))
            raise ValueError(f"class {label} has no VAE-GAN; there is one for {known or 'no class'}")
        gan = _checked(artifacts.value_of(self.gans[label]))
        if gan.training:
            raise ValueError(f"the VAE-GAN of class {label} is in training mode: call eval() first")
        return gan


def _means(gan: VaeGan, images: Tensor) -> Tensor:
    """The codes of images, float32 [N, 10] on the CPU."""
    device = device_of(gan)
    return torch.cat([gan.encode(part.to(device))[0].cpu() for part in images.split(ROWS)])


@dataclass(frozen=True, eq=False)
class EncodedDataset:
    """A data set with codes on a learned manifold: a :class:`.latent.Coded`, everything on the CPU.

    It is known by its data and its VAE-GANs; codes are computed at the first use.
    """

    dataset: Dataset
    manifold: ClassManifold

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self.dataset.labels

    @functools.cached_property
    def codes(self) -> Tensor:
        """The mean that the encoder of its class gives each image, float32 [N, 10].

        Raises:
            ValueError: a class without a VAE-GAN.
        """
        return self.manifold.encode(self.dataset.images, self.dataset.labels)

    def bases(self, rows: Tensor) -> Tensor:
        """The labels of some examples, int64 [n]."""
        return self.labels[rows]


def prior(n: int, generator: torch.Generator | None = None) -> Tensor:
    """``n`` standard normal codes within [-2, 2]^10, drawn on the CPU: float32 [n, 10]."""
    return nn.init.trunc_normal_(torch.empty(n, LATENT), a=-BOUND, b=BOUND, generator=generator)


# ---- the gate ----


@dataclass(frozen=True)
class Quality:
    """How good a VAE-GAN is on images of its class.

    Attributes:
        l1, l2: mean distance of an image to its reconstruction, in units of a pixel's range.
        error: ``l2`` over the mean l2 distance to the mean of the images, which is what a constant decoder has: near 1.
        within: the share of images whose codes lie in [-2, 2]^10.
        spread: mean l2 distance between two images decoded from the prior, over that between two of the images. A
            decoder that has collapsed has 0.
    """

    l1: float
    l2: float
    error: float
    within: float
    spread: float


def gate(
    gan: VaeGan | artifacts.Artifact,
    images: Tensor,
    *,
    max_error: float = 0.7,
    min_within: float = 0.5,
    spread: tuple[float, float] = (0.7, 1.3),
    samples: int = 500,
) -> Quality:
    """The quality of a VAE-GAN, which passes if all of it lies within limits; else it must not serve as a manifold.

    Args:
        gan: the VAE-GAN of a class, or its artifact.
        images: float32 [N, 1, 28, 28] in [0, 1] of this class, better not those it was trained on; at least 2.
        max_error: largest :attr:`Quality.error`.
        min_within: least share of codes in [-2, 2]^10. Of standard normal codes 63% lie in it.
        spread: least and largest spread of samples.
        samples: how many images are decoded from the prior, and at most so many images compared with them.

    Raises:
        VaeGanError: it does not pass.
        ValueError: images of another shape, fewer than 2 of them or of the samples.
    """
    if images.shape[1:] != (1, 28, 28) or min(len(images), samples) < 2:
        raise ValueError(
            f"images {list(images.shape)}, samples={samples}: must be [N, 1, 28, 28] and at least 2 of each"
        )
    measured = artifacts.kept(_quality, gan, images, samples, 0)
    quality = Quality(**{key: value.item() for key, value in measured.items()})
    passed = {
        f"reconstruction error {quality.error:.2f}, at most {max_error}": quality.error <= max_error,
        f"{quality.within:.0%} of the codes in [-2, 2], at least {min_within:.0%}": quality.within
        >= min_within,
        f"spread of samples {quality.spread:.2f}, from {spread[0]} to {spread[1]}": (
            spread[0] <= quality.spread <= spread[1]
        ),
    }
    if failed := [what for what, fine in passed.items() if not fine]:
        raise VaeGanError(
            f"the VAE-GAN does not pass the quality gate ({'; '.join(failed)}). "
            "Train it for more epochs, from another seed, or at full width."
        )
    return quality


@torch.no_grad()
def _quality(gan: VaeGan, images: Tensor, samples: int, seed: int) -> dict[str, Tensor]:
    """The fields of :class:`Quality`, scalars by name."""
    device = device_of(_checked(gan))
    z = _means(gan, images)
    change = (_decoded(gan, z) - images).flatten(1)
    made = _decoded(gan, prior(samples, torch.Generator().manual_seed(seed)))
    l2 = change.norm(dim=1).mean()
    return {
        "l1": change.abs().sum(1).mean(),
        "l2": l2,
        "error": l2 / (images - images.mean(0)).flatten(1).norm(dim=1).mean(),
        "within": (z.abs().amax(1) <= BOUND).float().mean(),
        "spread": _apart(made.to(device)) / _apart(images[:samples].to(device)),
    }


def _decoded(gan: VaeGan, z: Tensor) -> Tensor:
    """Images [N, 1, 28, 28] of codes [N, 10], both on the CPU."""
    return torch.cat([gan.decode(part.to(device_of(gan))).cpu() for part in z.split(ROWS)])


def _apart(images: Tensor) -> Tensor:
    """Mean l2 distance between two of some images."""
    return F.pdist(images.flatten(1)).mean()


def _checked(model: nn.Module) -> VaeGan:
    if not isinstance(model, VaeGan):
        raise ValueError(f"a {type(model).__name__} is no VaeGan")
    return model
