"""The architectures that BS alone attacks."""

import math

from torch import Tensor, nn

from robustutils.models import PreActBlock, glorot, kolter_wong_small


def kolter_wong_cifar(classes: int = 10) -> nn.Module:
    """The same for 32x32 colour images (BS, Figure 11)."""
    return kolter_wong_small(classes, channels=3, side=32)


def wrm_mnist(classes: int = 10) -> nn.Module:
    """The ELU network of Sinha et al. (2018), Glorot-uniform (BS, Table 5). 28x28 grey images.

    Its first layer, 8x8 with stride 2, is written as 4x4 with stride 1 on blocks of 2x2 pixels: the same sums, and
    an input gradient that :class:`robustutils.speed.FastInputGradients` knows.
    """
    model = glorot(
        nn.Sequential(
            nn.ZeroPad2d(3),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, 64, 4),
            nn.ELU(),
            nn.Conv2d(64, 128, 6, stride=2),
            nn.ELU(),
            nn.Conv2d(128, 128, 5),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(128, classes),
        )
    )
    bound = math.sqrt(6 / (8 * 8 * (1 + 64)))  # Glorot's, of the 8x8 layer
    nn.init.uniform_(model[2].weight, -bound, bound)  # type: ignore[arg-type]
    return model


class Standardise(nn.Module):
    """Each image to mean 0 and standard deviation 1, the latter at least 1 / sqrt(its numbers) (Madry et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        return centred / variance.clamp_min(1 / x[0].numel()).sqrt()


def preact_resnet18(classes: int = 10) -> nn.Module:
    """PreActResNet-18 behind a standardisation of each image; 512 features. 32x32 colour images.

    It stands in for the ten times more expensive WRN-32-10 of Madry et al. (BS, Figures 3, 6-9).
    """
    plan = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    plan += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    return nn.Sequential(
        Standardise(),
        nn.Conv2d(3, 64, 3, padding=1, bias=False),
        *(PreActBlock(*sizes) for sizes in plan),
        nn.BatchNorm2d(512),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, classes),
    )


ARCHITECTURES = {build.__name__: build for build in (kolter_wong_cifar, preact_resnet18, wrm_mnist)}
