"""What a GPU must not change: trainings end the same, attacks reach the same verdicts, and no step waits for it."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustutils import (
    artifacts,
    attacks,
    evaluation,
    models,
    networks,
    objectives,
    recipes,
    speed,
    square,
    storage,
    threats,
    training,
)
from robustutils.networks import Network
from robustutils.papers.blind_spot import carlini
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.threats import L2, Linf

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU = torch.device("cuda")
FLOAT32: dict[str, Any] = {"dtype": torch.float32}
CLEAN = recipes.Recipe(architecture="eat_d", objective=objectives.Clean(), epochs=20, batch_size=64)
ATTACKS: dict[str, attacks.Attack] = {
    "FGSM": attacks.FGSM(eps=0.1, **FLOAT32),
    "R+FGSM": attacks.RFGSM(eps=0.1, **FLOAT32),
    "PGD linf": attacks.PGD(threat=Linf(eps=0.1), steps=10, step_size=0.02, restarts=2, **FLOAT32),
    "PGD l2": attacks.PGD(threat=L2(eps=1.0), steps=10, step_size=0.25, **FLOAT32),
    "square": square.Square(eps=0.1, queries=100),
}
OBJECTIVES = {
    "clean": objectives.Clean(),
    "single steps": EnsembleAdversarial(eps=0.3),
    "random steps": objectives.Adversarial(attack=attacks.RFGSM(eps=0.3, dtype=torch.bfloat16)),
    "PGD": objectives.RampedAdversarial(eps=0.3, steps=2, step_size=0.1, ramp=0.5, dtype=torch.bfloat16),
}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """As in every run: float32 on a GPU is float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(256)


@pytest.fixture(scope="module")
def on_gpu(digits_net) -> nn.Module:
    return deepcopy(digits_net).to(GPU)


def share_that_differs(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a != b).double().mean().item()


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().cpu() for parameter in model.parameters()]


# ---- attacks ----


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stays_in_its_threat_set_and_reaches_the_verdicts_of_the_cpu(name, few, digits_net, on_gpu):
    attack = ATTACKS[name]
    x, y = few.images.to(GPU), few.labels.to(GPU)
    x_adv = attack(on_gpu, x, y)
    assert x_adv.device.type == "cuda"
    threats.check_inside(attack.threat, x, x_adv)
    there = evaluation.correct(on_gpu, x_adv.cpu(), few.labels)
    here = evaluation.correct(digits_net, attack(digits_net, few.images, few.labels), few.labels)
    assert share_that_differs(there, here) <= 0.02, (there.sum(), here.sum())


def test_carlini_stays_in_the_box_and_finds_distances_like_those_of_the_cpu(few, digits_net, on_gpu):
    attack, part = carlini.CarliniLinf(iterations=20, **FLOAT32), few.first(16)
    here, there = (carlini.Nearest(**carlini.batches(net, attack, part)[0]()) for net in (digits_net, on_gpu))
    threats.check_inside(attack.threat, part.images, there.images)
    fell = here.distances.isfinite()
    assert torch.equal(there.distances.isfinite(), fell)
    assert not evaluation.correct(on_gpu, there.images, part.labels)[fell].any()
    assert there.distances[fell].mean().item() == pytest.approx(here.distances[fell].mean().item(), rel=0.1)


def test_what_is_evaluated_is_kept_under_the_name_that_it_has_on_the_cpu(few, digits_net, on_gpu, cache):
    attack, seen = ATTACKS["PGD linf"], []
    for net in (digits_net, on_gpu):
        artifacts.shelf.clear()
        seen.append(evaluation.evaluate(net, attack, few))
        (name,) = artifacts.shelf.used
        seen.append(name)
    here, name_here, there, name_there = seen
    assert name_here == name_there
    assert share_that_differs(here.attacked, there.attacked) <= 0.02
    assert len(list(cache.glob("*.safetensors"))) == 2, "a file for each device"
    assert artifacts.shelf.used[name_there]["device"] == torch.cuda.get_device_name(GPU)
    again = evaluation.evaluate(on_gpu, attack, few)
    assert torch.equal(again.attacked, there.attacked)
    assert len(list(cache.glob("*.safetensors"))) == 2


def test_bfloat16_is_what_passes_run_in_where_the_gpu_has_it(few, on_gpu):
    x = few.images[:8].to(GPU)
    with speed.autocast(GPU, torch.bfloat16):
        assert on_gpu(x).dtype == speed.fast_dtype(GPU)
        with speed.exact(x):
            assert on_gpu(x).dtype == torch.float32
    fast = attacks.PGD(threat=Linf(eps=0.1), steps=10, step_size=0.02, dtype=torch.bfloat16)
    exact = attacks.PGD(threat=Linf(eps=0.1), steps=10, step_size=0.02, **FLOAT32)
    verdicts = [evaluation.evaluate(on_gpu, attack, few).attacked for attack in (fast, exact)]
    assert share_that_differs(*verdicts) <= 0.03


# ---- networks ----


def test_a_published_network_loads_onto_the_gpu(few):
    there = [path.stem for path in sorted(models.weights_folder().glob("*.safetensors"))]
    name = next((name for name in there if name.startswith(("eat_", "madry_"))), None)
    if name is None:
        pytest.skip("no published network is here")
    here, on_it = models.published(name), models.published(name, device="cuda")
    assert speed.device_of(on_it).type == "cuda"
    with torch.no_grad():
        torch.testing.assert_close(on_it(few.images.to(GPU)).cpu(), here(few.images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    name, few, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    objective = OBJECTIVES[name]

    def fit(checkpoint: Path, objective: Callable) -> nn.Module:
        model = models.build("eat_d").to(GPU)  # with dropout: the GPU's generator counts
        return training.fit(model, few, objective, epochs=2, batch_size=64, seed=3, checkpoint=checkpoint)

    def interrupted(model: nn.Module, x: torch.Tensor, y: torch.Tensor, progress: float) -> torch.Tensor:
        if progress >= 0.6:
            raise KeyboardInterrupt
        return objective(model, x, y, progress)

    whole = fit(tmp_path / "whole", objective)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "part", interrupted)
    assert storage.read(tmp_path / "part")[1]["step"] > 0
    resumed = fit(tmp_path / "part", objective)
    for ours, theirs in zip(weights_of(resumed), weights_of(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_does_not_wait_for_the_gpu_at_every_step(name, few):
    model, steps = models.build("eat_d").to(GPU), 64
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training.fit(model, few, OBJECTIVES[name], epochs=2, batch_size=8, dtype=torch.bfloat16)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [str(w.message) for w in waits if "synchroniz" in str(w.message)]
    assert 0 < len(found) < steps / 2, "\n".join(sorted(set(found)))


def test_siblings_train_side_by_side_and_are_found_by_name(few, weights, monkeypatch):
    asked: list[int] = []
    through = networks.train_side_by_side
    monkeypatch.setattr(
        networks, "train_side_by_side", lambda missing: (asked.append(len(missing)), through(missing))
    )
    family = Family(few, [0, 1], device="cuda")
    family.train({"a": [0, 1]}, lambda name, seed: CLEAN)
    first = family["a", 0]()
    assert asked == [2]
    assert speed.device_of(first).type == "cuda"
    assert family["a", 1].is_there()
    on_cpu = Network(CLEAN, few)
    assert (family["a", 0].name, on_cpu.is_there()) == (on_cpu.name, False)
    certificate = storage.read(family["a", 0].path)[1]["certificate"]
    assert (certificate["device"], certificate["precision"]) == (torch.cuda.get_device_name(GPU), "float32")
    hits = evaluation.correct(first, few.images, few.labels).double().mean().item()
    assert hits > 0.5, "twenty epochs teach it something"
