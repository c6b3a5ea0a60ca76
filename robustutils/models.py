"""The papers' architectures by name.

A model takes float32 pixels [N, C, H, W] in [0, 1] and returns logits [N, classes], a VAE-GAN reconstructions; what
normalisation it needs is part of it. Builders draw their initial weights from torch's global generator: seed it first,
or use :func:`build`.
"""

import importlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from robustutils import provenance, registry, storage
from robustutils.registry import unknown
from robustutils.speed import said

log = logging.getLogger(__name__)


class Binarise(nn.Module):
    """1 where a pixel is at least 0.5, else 0; its gradient, which is zero, is replaced by a surrogate's.

    ``slope=None`` passes the gradient through unchanged (straight-through, the derivative of x); a number gives the
    derivative of sigmoid(slope (x - 0.5)).
    """

    def __init__(self, slope: float | None = None) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        soft = x if self.slope is None else torch.sigmoid(self.slope * (x - 0.5))
        return (x >= 0.5).to(x.dtype) + (soft - soft.detach())


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


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "kolter_wong_small": kolter_wong_small,
    "madry_mnist": madry_mnist,
    "madry_mnist_narrow": madry_mnist_narrow,
    "small_cnn": small_cnn,
}
"""Those that several papers share; each paper's folder has its own."""


def architecture(name: str) -> Callable[[int], nn.Module]:
    """The builder of an architecture.

    Raises:
        ValueError: no architecture has this name; the message lists those there are.
    """
    return registry.find("models", "ARCHITECTURES", name, ARCHITECTURES, "architecture")


def build(name: str, *, classes: int = 10, seed: int = 0) -> nn.Module:
    """A fresh network with weights drawn from ``seed``, in the channels-last layout, which is the faster one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture(name)(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def glorot(model: nn.Sequential) -> nn.Sequential:
    """Glorot-uniform weights and zero biases, the initialisation of Keras (EAT, section C.1). Returns the model."""
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
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
    except (Exception, SystemExit) as error:
        raise ModelError(f"model={function!r}: {said(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model={function!r} returns a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        try:
            model.load_state_dict(safetensors.torch.load_file(weights))
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"weights={str(weights)!r} is no readable safetensors file: {error}") from error
        except RuntimeError as error:
            raise ModelError(f"weights={str(weights)!r} do not fit {function!r}: {error}") from error
    with suppress(NotImplementedError):  # an exported one has no other mode
        model.eval()
    return model
