"""The papers' architectures by name.

A model takes float32 pixels [N, C, H, W] in [0, 1] and returns logits [N, classes], a VAE-GAN reconstructions; what
normalisation it needs is part of it. Builders draw their initial weights from torch's global generator: seed it first,
or use :func:`build`.
"""

import importlib
import logging
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from robustutils import provenance, storage
from robustutils.generative import ACGAN
from robustutils.parameters import unknown
from robustutils.sparse import SparseFrontEnd
from robustutils.synthesis import AnalysisBySynthesis
from robustutils.vae_gan import VaeGan

log = logging.getLogger(__name__)


def eat_a(classes: int = 10) -> nn.Module:
    """Architecture A of EAT, Table 5: two valid 5x5 convolutions of 64, then 128 units. 28x28 grey images."""
    return glorot(
        nn.Sequential(
            nn.Conv2d(1, 64, 5),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * 20 * 20, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, classes),
        )
    )


def eat_b_star(classes: int = 10) -> nn.Module:
    """Architecture B* of EAT: B without its input dropout. Strides as in the authors' code."""
    return glorot(
        nn.Sequential(
            nn.Conv2d(1, 64, 8, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv2d(64, 128, 6, stride=2),
            nn.ReLU(),
            nn.Conv2d(128, 128, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(128, classes),
        )
    )


def eat_b(classes: int = 10) -> nn.Module:
    """Architecture B of EAT, Table 5: three convolutions behind a dropout of 0.2 on the input pixels."""
    return nn.Sequential(nn.Dropout(0.2), *eat_b_star(classes))  # type: ignore[misc]


def eat_a_input_dropout(classes: int = 10) -> nn.Module:
    """Architecture A behind B's dropout of 0.2 on the input pixels (EAT, appendix C.2)."""
    return nn.Sequential(nn.Dropout(0.2), *eat_a(classes))  # type: ignore[misc]


def eat_c_input_dropout(classes: int = 10) -> nn.Module:
    """Architecture C behind B's dropout of 0.2 on the input pixels (EAT, appendix C.2)."""
    return nn.Sequential(nn.Dropout(0.2), *eat_c(classes))  # type: ignore[misc]


def eat_d_input_dropout(classes: int = 10) -> nn.Module:
    """Architecture D behind B's dropout of 0.2 on the input pixels (EAT, appendix C.2)."""
    return nn.Sequential(nn.Dropout(0.2), *eat_d(classes))  # type: ignore[misc]


class Binarise(nn.Module):
    """1 where a pixel is at least 0.5, else 0; its gradient, which is zero, is replaced by a surrogate's.

    ``slope=None`` passes the gradient through unchanged (straight-through, the derivative of x); a number gives the
    derivative of sigmoid(slope (x - 0.5)).
    """

    def __init__(self, slope: float | None = None) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return _Binarise.apply(x, self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x >= 0.5).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.slope is None:
            return gradient, None
        (x,) = ctx.saved_tensors
        soft = torch.sigmoid(ctx.slope * (x - 0.5))
        return gradient * ctx.slope * soft * (1 - soft), None


class TanhPool(nn.Module):
    """max pooling of tanh(x), computed as tanh of the pooled x: the same values, with a quarter of the tanh."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.max_pool2d(x, 2))


def eat_c(classes: int = 10) -> nn.Module:
    """Architecture C of EAT, Table 5: two 3x3 convolutions with tanh and 2x2 max pooling, then 128 units."""
    return glorot(
        nn.Sequential(
            nn.Conv2d(1, 128, 3),
            TanhPool(),
            nn.Conv2d(128, 64, 3),
            TanhPool(),
            nn.Flatten(),
            nn.Linear(64 * 5 * 5, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
    )


def eat_d(classes: int = 10) -> nn.Module:
    """Architecture D of EAT: four layers of 300 units, each with dropout 0.5 and He initialisation (their code)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (28 * 28, 300, 300, 300):
        layers += [nn.Linear(inputs, 300), nn.ReLU(), nn.Dropout(0.5)]
    model = glorot(nn.Sequential(*layers, nn.Linear(300, classes)))
    for layer in model:
        if isinstance(layer, nn.Linear) and layer.out_features == 300:
            nn.init.kaiming_normal_(layer.weight)
    return model


def madry_mnist(classes: int = 10, *, units: int = 1024) -> nn.Module:
    """The MNIST network of Madry et al. (2018), 13.9 M multiplications an image (BS, section 4.1).

    Weights start from a truncated normal of standard deviation 0.1, biases at 0.1, as in the authors' code.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    )
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
            nn.init.constant_(layer.bias, 0.1)  # type: ignore[arg-type]
    return model


def madry_mnist_narrow(classes: int = 10) -> nn.Module:
    """The same with 128 hidden units instead of 1,024: an eighth of the weights, four fifths of the work."""
    return madry_mnist(classes, units=128)


def kolter_wong_small(classes: int = 10, *, channels: int = 1, side: int = 28) -> nn.Module:
    """The small MNIST network of Wong & Kolter (2018), 166,406 parameters (BS, Table 4). 28x28 grey images."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (side // 4) ** 2, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


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


class PreActBlock(nn.Module):
    """A pre-activation residual block of two 3x3 convolutions (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.rest = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = (
            nn.Identity()
            if (inputs, stride) == (outputs, 1)
            else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        return self.rest(active) + (x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active))


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


def small_cnn(classes: int = 10) -> nn.Module:
    """A small network for demonstrations: two convolutions of 16 and 32, then 64 units. 28x28 grey images."""
    return glorot(
        nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        )
    )


def acgan_mnist(classes: int = 10) -> nn.Module:
    """The AC-GAN of the authors' code for MNIST (INV, section 4), 8.9 M parameters. 28x28 grey images."""
    return ACGAN(classes)


def acgan_mnist_narrow(classes: int = 10) -> nn.Module:
    """The same with a quarter of the channels: a sixteenth of the work."""
    return ACGAN(classes, width=32)


def vae_gan(classes: int = 10) -> nn.Module:
    """The VAE-GAN of DIS, supplement, for one class: it gives reconstructions instead of logits. 28x28 grey images."""
    return VaeGan()


def vae_gan_narrow(classes: int = 10) -> nn.Module:
    """The same with half of the channels: a quarter of the work."""
    return VaeGan(width=0.5)


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


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "abs_mnist": abs_mnist,
    "binary_abs_mnist": binary_abs_mnist,
    "acgan_mnist": acgan_mnist,
    "acgan_mnist_narrow": acgan_mnist_narrow,
    "dis_cnn": dis_cnn,
    "dis_mlp": dis_mlp,
    "dis_resnet13": dis_resnet13,
    "dis_vgg": dis_vgg,
    "eat_a": eat_a,
    "eat_a_input_dropout": eat_a_input_dropout,
    "eat_b": eat_b,
    "eat_b_star": eat_b_star,
    "eat_c": eat_c,
    "eat_c_input_dropout": eat_c_input_dropout,
    "eat_d": eat_d,
    "eat_d_input_dropout": eat_d_input_dropout,
    "inv_cnn": inv_cnn,
    "kolter_wong_cifar": kolter_wong_cifar,
    "kolter_wong_small": kolter_wong_small,
    "l0_sparse_mnist": l0_sparse_mnist,
    "madry_mnist": madry_mnist,
    "madry_mnist_narrow": madry_mnist_narrow,
    "preact_resnet18": preact_resnet18,
    "resnet_mnist": resnet_mnist,
    "small_cnn": small_cnn,
    "vae_gan": vae_gan,
    "vae_gan_narrow": vae_gan_narrow,
    "wrm_mnist": wrm_mnist,
}


def architecture(name: str) -> Callable[[int], nn.Module]:
    """The builder of an architecture.

    Raises:
        ValueError: no architecture has this name; the message lists those there are.
    """
    if name not in ARCHITECTURES:
        raise ValueError(unknown("architecture", name, ARCHITECTURES))
    return ARCHITECTURES[name]


def build(name: str, *, classes: int = 10, seed: int = 0) -> nn.Module:
    """A fresh network with weights drawn from ``seed``, in the channels-last layout, which is the faster one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture(name)(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Average(nn.Module):
    """Several models as one: the logarithm of the mean of their softmax outputs, as logits [N, K]."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        log_probabilities = torch.stack([F.log_softmax(model(x).float(), 1) for model in self.models])
        return log_probabilities.logsumexp(0) - math.log(len(self.models))


def glorot(model: nn.Sequential) -> nn.Sequential:
    """Glorot-uniform weights and zero biases, the initialisation of Keras (EAT, section C.1). Returns the model."""
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return model


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


def count_parameters(model: nn.Module) -> int:
    """Number of trainable numbers of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class ModelError(ValueError):
    """A model of the user's cannot be loaded; the message says what is wrong with it."""


def weights_folder() -> Path:
    """Where the published networks lie: ``book/weights`` of the checkout."""
    return provenance.repository() / "book" / "weights"


def published_headers() -> dict[Path, dict[str, Any]]:
    """What the file of each published network says about itself: see :func:`robustutils.storage.header`.

    A damaged file is reported in the log and left out.
    """
    headers = {}
    for path in sorted(weights_folder().glob("*.safetensors")):
        try:
            headers[path] = storage.header(path)
        except (storage.Damaged, OSError) as problem:
            log.warning("damaged network %s (%s): git restores it", path, problem)
    return headers


def published(name: str, *, device: str | torch.device = "cpu") -> nn.Module:
    """A published network by name, in evaluation mode: ``published("madry_mnist")``.

    Takes float32 pixels [N, C, H, W] in [0, 1] and returns logits [N, K]. ``python -m robustutils networks`` lists them.

    Raises:
        ModelError: no network of this name is published, or its file is damaged.
    """
    path = weights_folder() / f"{name}.safetensors"
    if not path.is_file():
        names = [other.stem for other in sorted(weights_folder().glob("*.safetensors"))]
        raise ModelError(unknown("published network", name, names))
    try:
        tensors, about = storage.read(path)
        if about.get("network") != name:
            raise storage.Damaged(f"it holds {about.get('network')}")
    except (storage.Damaged, OSError) as problem:
        raise ModelError(f"damaged network {path} ({problem}): git restores it") from problem
    model = build(about["architecture"], classes=about["classes"])
    model.load_state_dict(tensors)
    return model.to(device).eval()


def find(model: str, weights: str | Path | None = None) -> nn.Module:
    """A published network by its name, or a model of one's own, see :func:`load`, where the name has a colon.

    Raises:
        ModelError: as :func:`published` and :func:`load`, or there are weights for a published network.
    """
    if ":" in model:
        return load(model, weights)
    if weights is not None:
        raise ModelError(f"weights={str(weights)!r}: model={model!r} is a published network and has its own")
    return published(model)


def load(function: str, weights: str | Path | None = None) -> nn.Module:
    """A model of one's own, in evaluation mode: ``package.module:function`` builds it, a safetensors file fills it.

    The function is called without arguments and returns a module that takes float32 pixels [N, C, H, W] in [0, 1]
    and returns logits. Its module is found on Python's path. Without ``weights`` the model keeps those it is built
    with.

    Raises:
        ModelError: the name, what it returns or the file does not fit; the message names the value and the reason.
    """
    module, _, name = function.partition(":")
    if not module or not name:
        raise ModelError(f"model={function!r}: expected package.module:function")
    try:
        builder = getattr(importlib.import_module(module), name)
        model = builder()
    except Exception as error:
        raise ModelError(f"model={function!r}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model={function!r} returns a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        try:
            model.load_state_dict(safetensors.torch.load_file(weights))
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"weights={str(weights)!r} is no readable safetensors file: {error}") from error
        except RuntimeError as error:
            raise ModelError(f"weights={str(weights)!r} do not fit {function!r}: {error}") from error
    return model.eval()
