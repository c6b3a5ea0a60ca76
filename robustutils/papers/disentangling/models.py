"""The architectures of DIS."""

import math
from itertools import pairwise

from torch import Tensor, nn

from robustutils.papers.disentangling.vae_gan import VaeGan


def vae_gan(classes: int = 10) -> nn.Module:
    """The VAE-GAN of DIS, supplement, for one class: it gives reconstructions instead of logits. 28x28 grey images."""
    return VaeGan()


def vae_gan_narrow(classes: int = 10) -> nn.Module:
    """The same with half of the channels: a quarter of the work."""
    return VaeGan(width=0.5)


def dis_cnn(classes: int = 10) -> nn.Module:
    """The network of DIS, three convolutions and two dense layers with nothing between them. 28x28 grey images.

    As in the authors' code, normalisation comes before each rectifier. It would take a bias of the convolutions out again,
    so there is none.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, 16, 32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False), *_normalised(outputs)]
    return kaiming(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 9, 100), nn.Linear(100, classes)))


def dis_mlp(classes: int = 10) -> nn.Module:
    """The multilayer perceptron of DIS, supplement: four layers of 128 units. 28x28 grey images.

    As in the authors' code, normalisation comes after each rectifier.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (784, 128, 128, 128):
        layers += [nn.Linear(inputs, 128), nn.ReLU(), nn.BatchNorm1d(128)]
    return kaiming(nn.Sequential(*layers, nn.Linear(128, classes)))


class ResidualBlock(nn.Module):
    """A residual block of two 3x3 convolutions, each with its normalisation, and a rectifier at its end (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.rest = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            *_normalised(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if (inputs, stride) == (outputs, 1)
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.rest(x) + self.shortcut(x)).relu()


def dis_resnet13(classes: int = 10) -> nn.Module:
    """ResNet-13 of DIS, Figure 7: three stages of two blocks with 64, 128 and 256 channels. 28x28 grey images."""
    plan = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    return kaiming(
        nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1, bias=False),
            *_normalised(64),
            *(ResidualBlock(*sizes) for sizes in plan),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(256, classes),
        ),
        he=(nn.Conv2d,),
    )


def dis_vgg(classes: int = 10) -> nn.Module:
    """The VGG network of DIS, supplement: five convolutions and two dense layers of 1,024 units. 28x28 grey images."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((1, 64, 128, 128, 256, 256)):
        pool = [nn.MaxPool2d(2)] if outputs != inputs > 1 else []
        layers += [*pool, nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *_normalised(outputs)]
    layers.append(nn.Flatten())
    for inputs in (256 * 7 * 7, 1024):
        layers += [nn.Linear(inputs, 1024), nn.ReLU()]
    return kaiming(nn.Sequential(*layers, nn.Linear(1024, classes)), he=(nn.Conv2d, nn.Linear))


def _normalised(channels: int) -> tuple[nn.Module, ...]:
    """Batch normalisation and rectifier."""
    return nn.BatchNorm2d(channels), nn.ReLU()


def kaiming(model: nn.Sequential, *, he: tuple[type[nn.Module], ...] = ()) -> nn.Sequential:
    """Normal weights of standard deviation sqrt(2 / 3 / fan-in) and zero biases, as in the code of DIS. Returns the model.

    There the gain of rectifiers stands where a slope is expected; hence the third. Layers of the types ``he`` have the
    sqrt(2 / fan) of He et al. (2015), of outputs for convolutions and of inputs for dense layers.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if isinstance(layer, he):
                by_outputs = isinstance(layer, nn.Conv2d)
                nn.init.kaiming_normal_(layer.weight, mode="fan_out" if by_outputs else "fan_in")
            else:
                nn.init.kaiming_normal_(layer.weight, math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


_BUILDERS = (dis_cnn, dis_mlp, dis_resnet13, dis_vgg, vae_gan, vae_gan_narrow)
ARCHITECTURES = {build.__name__: build for build in _BUILDERS}
