"""The papers' architectures by name.

A model takes float32 pixels [N, C, H, W] in [0, 1] and returns logits [N, classes]; what normalisation it needs
is part of it. Builders draw their initial weights from torch's global generator: seed it first, or use
:func:`build`.
"""

from collections.abc import Callable
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def madry_mnist(classes: int = 10) -> nn.Module:
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
        nn.Linear(64 * 7 * 7, 1024),
        nn.ReLU(),
        nn.Linear(1024, classes),
    )
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
            nn.init.constant_(layer.bias, 0.1)  # type: ignore[arg-type]
    return model


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
    "eat_a": eat_a,
    "eat_b": eat_b,
    "eat_b_star": eat_b_star,
    "eat_c": eat_c,
    "eat_d": eat_d,
    "madry_mnist": madry_mnist,
    "small_cnn": small_cnn,
}


def architecture(name: str) -> Callable[[int], nn.Module]:
    """The builder of an architecture.

    Raises:
        ValueError: no architecture has this name; the message lists those there are.
    """
    if name not in ARCHITECTURES:
        near = get_close_matches(name, ARCHITECTURES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown architecture {name!r}{hint}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


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
