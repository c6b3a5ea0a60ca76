"""How the models of the paper's tables are trained, by their names."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from robustutils.attacks import RFGSM
from robustutils.objectives import Adversarial, Clean, RampedAdversarial
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.papers.ensemble.recipes import by_name
from robustutils.recipes import Recipe

EPOCHS = {"epochs": 4, "epochs_adv": 9, "epochs_rfgsm": 7, "epochs_madry": 3}
SETTINGS: Any = SimpleNamespace(epsilon=0.2, dtype=torch.float32, n_train=100, **EPOCHS)


@pytest.fixture(scope="module")
def family(digits) -> Family:
    found = Family(digits, [0, 1, 2])
    found.train({name: [0, 1, 2] for name in ("A", "B", "B*", "C", "D")}, recipe)
    return found


def recipe(name: str, seed: int) -> Recipe:
    return by_name(name, seed, SETTINGS, Family.__new__(Family))


@pytest.mark.parametrize(
    ("name", "architecture", "objective", "epochs"),
    [
        ("B*", "eat_b_star", Clean(), 4),
        ("C_adv", "eat_c", EnsembleAdversarial(eps=0.2), 9),
        ("C_adv, epoch 2", "eat_c", EnsembleAdversarial(eps=0.2), 2),
        ("A_adv-input-dropout", "eat_a_input_dropout", EnsembleAdversarial(eps=0.2), 9),
        ("R+FGSM", "eat_a", Adversarial(attack=RFGSM(eps=0.2)), 7),
    ],
)
def test_a_name_says_architecture_objective_and_epochs(name, architecture, objective, epochs):
    found = recipe(name, 0)
    assert (found.architecture, found.objective, found.epochs) == (architecture, objective, epochs)
    assert (found.batch_size, found.learning_rate, found.dtype) == (64, 1e-3, torch.float32)


@pytest.mark.parametrize(
    ("name", "sources", "epochs"),
    [("C_adv-ens, epoch 1", "C", 1), ("B_adv-ens3", "BCD", 9), ("A_adv-ens3", "ACD", 9)],
)
def test_static_sources_are_standard_models_of_another_seed(family, name, sources, epochs):
    found = by_name(name, 1, SETTINGS, family)
    assert found.objective == EnsembleAdversarial(eps=0.2, sources=tuple(family[a, 0] for a in sources))
    assert (found.architecture, found.epochs) == (f"eat_{name[0].lower()}", epochs)


def test_the_fast_madry_network_takes_the_radius_of_the_run_and_batches_that_fit():
    found = recipe("Madry net", 0)
    objective = found.objective
    assert isinstance(objective, RampedAdversarial)
    assert (objective.eps, objective.step_size, objective.dtype) == (0.2, 0.1, torch.float32)
    assert (found.batch_size, found.epochs) == (100, 3)
