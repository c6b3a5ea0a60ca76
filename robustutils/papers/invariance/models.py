"""The architectures of INV, Table 1, and its generators."""

from torch import nn

from robustutils.models import Binarise, PreActBlock
from robustutils.papers.invariance.abs import AnalysisBySynthesis
from robustutils.papers.invariance.acgan import ACGAN
from robustutils.papers.invariance.sparse import SparseFrontEnd


def inv_cnn(classes: int = 10) -> nn.Module:
    """The CNN of the code of INV, its l0 attack: three convolutions without padding, 256 units. 28x28 grey images.

    That it is the CNN of Table 1 is not said.
    """
    return nn.Sequential(
        nn.Conv2d(1, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 5),
        nn.ReLU(),
        nn.BatchNorm2d(128),
        nn.Conv2d(128, 128, 3),
        nn.ReLU(),
        nn.BatchNorm2d(128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * 3 * 3, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


def resnet_mnist(classes: int = 10) -> nn.Module:
    """A pre-activation ResNet of 14 layers, 64 features. 28x28 grey images.

    It stands in for the ResNet of INV, Table 1, which the paper does not describe.
    """
    plan = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        *(PreActBlock(*sizes) for sizes in plan),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def acgan_mnist(classes: int = 10) -> nn.Module:
    """The AC-GAN of the authors' code for MNIST (INV, section 4), 8.9 M parameters. 28x28 grey images."""
    return ACGAN(classes)


def acgan_mnist_narrow(classes: int = 10) -> nn.Module:
    """The same with a quarter of the channels: a sixteenth of the work."""
    return ACGAN(classes, width=32)


def l0_sparse_mnist(classes: int = 10) -> nn.Module:
    """The l0-sparse network of Bafna et al. (2018; INV, Table 1): up to 25 changed pixels are taken out, then classified.

    INV gives neither frequencies nor network. Of 80, 100, 120 and 140 frequencies, 100 are the fewest with an accuracy of
    at least 98.5% on 5,000 held-out training images (98.0, 98.6, 98.9 and 99.0%). The network is that of Madry et al. with
    128 hidden units.
    """
    return nn.Sequential(
        SparseFrontEnd(k=100, t=25),
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


BINARY_FACTORS = (1.0, 0.96, 1.001, 1.06, 0.98, 0.96, 1.03, 1.0, 1.0, 1.0)
"""By which the authors multiply the scores of their binary autoencoders, class by class."""


def abs_mnist(classes: int = 10) -> nn.Module:
    """The ABS model of Schott et al. (2019; INV, Table 1), ten autoencoders. 28x28 grey images."""
    return AnalysisBySynthesis(classes)


def binary_abs_mnist(classes: int = 10) -> nn.Module:
    """The same on images thresholded at 0.5, with the authors' factors of the ten digits.

    Raises:
        ValueError: the factors are those of ten classes.
    """
    return AnalysisBySynthesis(classes, front=Binarise(), factors=BINARY_FACTORS)


_GENERATIVE = (abs_mnist, acgan_mnist, acgan_mnist_narrow, binary_abs_mnist)
ARCHITECTURES = {build.__name__: build for build in (*_GENERATIVE, inv_cnn, l0_sparse_mnist, resnet_mnist)}
