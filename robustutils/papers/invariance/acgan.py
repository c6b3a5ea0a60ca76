"""An AC-GAN: images of a class out of noise, and from it how much an image looks like one of a class (INV, section 4).

Its generator G makes an image out of a class and noise z; its discriminator says by one output, the critic, how real an
image looks, and by others of which class it is (Odena et al. 2017). The critic is trained as a Wasserstein distance with
a gradient penalty (Gulrajani et al. 2017). An image is likely in a class as far as G comes close to it there.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 64
"""How many numbers of noise an image is made of."""
ROWS = 512
"""Images times restarts that are scored at a time."""


class ACGAN(nn.Module):
    """Generator and discriminator of an AC-GAN for 28x28 grey images. Called, it classifies: logits [N, classes].

    ``width`` is the number of channels next to the image, 128 in the authors' code; the layers further from it have two
    and four times as many. Weights start normal with a variance of 2 / fan-in (He et al. 2015), biases at zero.
    """

    def __init__(self, classes: int = 10, *, width: int = 128) -> None:
        super().__init__()
        self.classes = classes
        self.generator = nn.Sequential(
            nn.Linear(classes + LATENT, 64 * width),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, 4, 4)),
            nn.ConvTranspose2d(4 * width, 2 * width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 5, stride=2, padding=2, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 5, stride=2, padding=2, output_padding=1),
            nn.Sigmoid(),
        )
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.critic = nn.Linear(64 * width, 1, bias=False)  # it would cancel out of the loss
        self.classifier = nn.Linear(64 * width, classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / _fan_in(layer)))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))

    def discriminate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How real images [N, 1, 28, 28] look to the critic, [N], and their logits [N, classes]."""
        features = self.features(x)
        return self.critic(features).squeeze(1), self.classifier(features)

    def generate(self, labels: Tensor, z: Tensor) -> Tensor:
        """G(y, z): images [N, 1, 28, 28] in [0, 1] of classes int64 [N] out of noise [N, 64]."""
        return self.generator(torch.cat([F.one_hot(labels, self.classes).to(z.dtype), z], 1))

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, 1, 28, 28] in [0, 1] of classes int64 [N], out of standard normal noise drawn on the CPU."""
        device = self.critic.weight.device
        z = torch.randn(len(labels), LATENT, generator=generator)
        return self.generate(labels.to(device), z.to(device))


def _fan_in(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many inputs an output of a layer is a sum of, on average."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.weight[:, 0].numel() / math.prod(layer.stride)
    return layer.weight[0].numel()


@dataclass(frozen=True, kw_only=True)
class Generative:
    """Training of an :class:`ACGAN` f, both halves in one loss: each term's gradient reaches its own half alone.

    The critic c takes every step, to lower E[c(G(y, z))] - E[c(x)] + ``penalty`` E[(||grad c|| - 1)^2] plus the
    cross-entropies of real and generated images. The generator takes a step with it in one of ``critic_steps`` steps,
    drawn at random, to lower -E[c(G(y, z))] plus the cross-entropy of its images. The authors' code alternates between
    five steps of the critic and one of the generator.
    """

    critic_steps: int = 5
    penalty: float = 10.0

    def __post_init__(self) -> None:
        if not (self.critic_steps >= 1 and self.penalty >= 0):
            raise ValueError(
                f"critic_steps={self.critic_steps}, penalty={self.penalty}: "
                "at least 1 step of the critic, and no negative penalty"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        gan, n = _checked(model), len(x)
        labels = torch.randint(gan.classes, (n,)).to(x.device)
        z = torch.randn(n, LATENT).to(x)
        mixing = torch.rand(n, 1, 1, 1).to(x)
        generators_turn = bool(torch.rand(()) * self.critic_steps < 1)
        with torch.set_grad_enabled(generators_turn):
            made = gan.generate(labels, z).to(x.dtype)
        fake = made.detach().requires_grad_(generators_turn)
        scores, logits = (part.to(x.dtype) for part in gan.discriminate(torch.cat([x, fake])))
        wrong = F.cross_entropy(logits[n:], labels)
        loss = scores[n:].mean() - scores[:n].mean() + F.cross_entropy(logits[:n], y) + wrong
        mixed = torch.lerp(x, fake.detach(), mixing)
        loss = loss + self.penalty * gradient_penalty(lambda images: gan.discriminate(images)[0], mixed)
        if not generators_turn:
            return loss
        (gradient,) = torch.autograd.grad(wrong - scores[n:].mean(), fake, retain_graph=True)
        through_generator = (made * gradient).sum()
        return loss + through_generator - through_generator.detach()


def gradient_penalty(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """E[(||grad c(x)||_2 - 1)^2] over ``images`` [N, C, H, W], differentiable in the critic's weights: a scalar.

    ``critic`` gives each image a number: [N] (Gulrajani et al. 2017).
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).to(images.dtype).sum(), images, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def score(
    model: nn.Module, images: Tensor, targets: Tensor, *, restarts: int = 128, steps: int = 30
) -> Tensor:
    """How unlikely each image is in its target class: min over z of ||G(y, z) - x||_1 + 0.01 ||z||^2.

    From each of ``restarts`` standard normal z, ``steps`` steps of 0.01 of gradient descent on the l1 distance alone, as
    in the authors' code; here all images have the same starts, so that candidates are compared on equal terms. The steps
    are so long that they amplify rounding: in float32 scores differ by percents between machines, hence float64.

    Args:
        model: an :class:`ACGAN`.
        images: float32 [N, 1, 28, 28] in [0, 1].
        targets: int64 [N], the class in which each image is looked for.
        restarts, steps: of the search for z.

    Returns:
        float32 [N] on the CPU, in units of a pixel's range; lower is more likely.

    Raises:
        ValueError: the model is no AC-GAN, or an argument has another shape or range.
    """
    gan = _checked(model)
    if images.shape[1:] != (1, 28, 28) or not images.is_floating_point() or targets.shape != images.shape[:1]:
        raise ValueError(
            f"images {images.dtype} {list(images.shape)}, targets {list(targets.shape)}: "
            "must be float [N, 1, 28, 28] and [N]"
        )
    for what, given, top in (("pixels", images, 1), ("targets", targets, gan.classes - 1)):
        if len(given) and not 0 <= given.amin() <= given.amax() <= top:
            raise ValueError(f"{what} from {given.amin():.4g} to {given.amax():.4g}: must lie in [0, {top}]")
    if restarts < 1 or steps < 0:
        raise ValueError(f"restarts={restarts}, steps={steps}: at least 1 restart, and no negative steps")
    device, exact = gan.critic.weight.device, deepcopy(gan).double()
    starts = torch.randn(restarts, LATENT, generator=torch.Generator().manual_seed(0)).to(device).double()
    size = max(1, ROWS // restarts)
    found = [
        _lowest(exact, x.to(starts), y.to(device), starts, steps)
        for x, y in zip(images.split(size), targets.split(size), strict=True)
    ]
    return torch.cat(found).float().cpu()


def _lowest(gan: ACGAN, images: Tensor, targets: Tensor, starts: Tensor, steps: int) -> Tensor:
    """The score of each of some images: [N]."""
    wanted = images.repeat_interleave(len(starts), 0)
    labels = targets.repeat_interleave(len(starts))
    z = starts.repeat(len(images), 1)

    def distances() -> Tensor:
        return (gan.generate(labels, z) - wanted).abs().flatten(1).sum(1)

    for _ in range(steps):
        z.requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(distances().sum(), z)
        z = z.detach() - 0.01 * gradient
    with torch.no_grad():
        totals = distances() + 0.01 * z.square().sum(1)
    return totals.view(len(images), len(starts)).amin(1)


def _checked(model: nn.Module) -> ACGAN:
    if not isinstance(model, ACGAN):
        raise ValueError(f"a {type(model).__name__} is no ACGAN")
    return model
