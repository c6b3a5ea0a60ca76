"""The architectures of EAT, Table 5, and several models as one."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils.models import glorot


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


class Average(nn.Module):
    """Several models as one: the logarithm of the mean of their softmax outputs, as logits [N, K]."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        log_probabilities = torch.stack([F.log_softmax(model(x).float(), 1) for model in self.models])
        return log_probabilities.logsumexp(0) - math.log(len(self.models))


_PLAIN = (eat_a, eat_b, eat_b_star, eat_c, eat_d)
_DROPPING = (eat_a_input_dropout, eat_c_input_dropout, eat_d_input_dropout)
ARCHITECTURES = {build.__name__: build for build in (*_PLAIN, *_DROPPING)}
