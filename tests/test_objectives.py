"""Objectives against losses written out by hand."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import models
from robustutils.attacks import FGSM, PGD, RFGSM
from robustutils.objectives import Adversarial, Clean, EnsembleAdversarial, RampedAdversarial, single_step
from robustutils.threats import Linf


class Scores(nn.Module):
    """Three linear scores of four pixels, and dropout that can be seen."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        self.weight, self.dropout = nn.Parameter(weights), nn.Dropout(dropout)
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        self.modes.append(self.training)
        return self.dropout(x.flatten(1)) @ self.weight


X = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def loss_at(model: nn.Module, x: Tensor, y: Tensor = Y) -> Tensor:
    return F.cross_entropy(model(x), y)


def test_clean_is_the_mean_cross_entropy():
    model = Scores()
    logits = model(X)
    by_hand = sum(
        math.log(sum(math.exp(z) for z in row)) - row[y] for row, y in zip(logits.tolist(), Y, strict=True)
    )
    assert Clean()(model, X, Y, 0.0).item() == pytest.approx(by_hand / 6, rel=1e-5)


@pytest.mark.parametrize("clean", [0.0, 0.25, 0.5])
def test_adversarial_mixes_the_clean_loss_and_that_of_the_attack(clean):
    model = Scores()
    attack = FGSM(eps=0.1)
    expected = clean * loss_at(model, X) + (1 - clean) * loss_at(model, attack(model, X, Y))
    torch.testing.assert_close(Adversarial(attack=attack, clean=clean)(model, X, Y, 0.0), expected)


def test_adversarial_without_a_clean_share_never_looks_at_the_clean_images_in_training_mode():
    model = Scores()
    Adversarial(attack=lambda model, x, y, generator=None: 1 - x)(model, X, Y, 0.0)
    assert len(model.seen) == 1
    assert torch.equal(model.seen[0], 1 - X)


def test_adversarial_attacks_in_evaluation_mode_and_learns_in_training_mode():
    model = Scores(dropout=0.5).train()
    Adversarial(attack=FGSM(eps=0.1))(model, X, Y, 0.0)
    assert not any(model.modes[:-1])
    assert model.modes[-1]


@pytest.mark.parametrize(
    "objective", [Clean(), Adversarial(attack=FGSM(eps=0.1)), EnsembleAdversarial(eps=0.1)]
)
@pytest.mark.parametrize("training", [True, False])
def test_objectives_give_gradients_and_leave_mode_and_images_alone(objective, training):
    model = Scores().train(training)
    before = X.clone()
    loss = objective(model, X, Y, 0.5)
    assert loss.shape == ()
    loss.backward()
    assert model.weight.grad.abs().min() > 0
    assert model.training == training
    assert torch.equal(X, before)
    assert X.grad is None


def test_single_step_climbs_the_loss_of_the_models_own_prediction():
    model = Scores()
    x = X.clone().requires_grad_(True)
    F.cross_entropy(model(x), model(x).argmax(1), reduction="sum").backward()
    expected = (X + 0.2 * x.grad.sign()).clamp(0, 1)
    found = single_step(model, X, 0.2)
    assert torch.equal(found, expected)
    assert not torch.equal(found, FGSM(eps=0.2)(model, X, (model(X).argmax(1) + 1) % 3)), (
        "it used other labels"
    )
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1


def test_single_step_leaves_the_source_without_gradients_and_in_its_mode():
    for training in (True, False):
        source = Scores(dropout=0.5).train(training)
        single_step(source, X, 0.2)
        assert source.modes == [training]
        assert source.weight.grad is None


def test_dropout_is_active_in_the_training_attack():
    source = Scores(dropout=0.5).train()
    torch.manual_seed(0)
    x_adv = [single_step(source, X, 0.2) for _ in range(2)]
    assert not torch.equal(*x_adv)
    source.eval()
    assert torch.equal(single_step(source, X, 0.2), single_step(source, X, 0.2))


def test_ensemble_without_sources_is_fgsm_training_on_both_halves():
    model = Scores()
    x_adv = single_step(model, X, 0.3)
    expected = (loss_at(model, X) + loss_at(model, x_adv)) / 2
    torch.testing.assert_close(EnsembleAdversarial(eps=0.3)(model, X, Y, 0.0), expected)


def test_ensemble_draws_every_source_and_the_model_equally_often():
    model, sources = Scores(0), (Scores(1), Scores(2), Scores(3))
    objective = EnsembleAdversarial(eps=0.3, sources=sources)
    losses = [
        (loss_at(model, X) + loss_at(model, single_step(source, X, 0.3))) / 2 for source in (*sources, model)
    ]
    assert len({round(loss.item(), 5) for loss in losses}) == 4
    drawn: Counter[int] = Counter()
    torch.manual_seed(0)
    for _ in range(400):
        loss = objective(model, X, Y, 0.0)
        drawn[int(torch.stack(losses).sub(loss).abs().argmin())] += 1
        assert torch.stack(losses).sub(loss).abs().min() < 1e-5, "the loss is that of no source"
    # Four standard deviations of a binomial with n = 400 and p = 1/4.
    assert all(abs(drawn[source] - 100) < 35 for source in range(4)), drawn


def test_ensemble_draws_repeat_with_torchs_seed():
    model, objective = Scores(0), EnsembleAdversarial(eps=0.3, sources=(Scores(1), Scores(2)))

    def losses() -> list[float]:
        torch.manual_seed(3)
        return [objective(model, X, Y, 0.0).item() for _ in range(10)]

    assert losses() == losses()


def test_ensemble_gives_no_gradient_to_its_sources():
    model, source = Scores(0), Scores(1)
    torch.manual_seed(0)
    for _ in range(4):
        EnsembleAdversarial(eps=0.3, sources=(source,))(model, X, Y, 0.0).backward()
    assert source.weight.grad is None
    assert model.weight.grad is not None


@pytest.mark.parametrize("eps", [0.0, -0.1, 76.5, math.nan])
def test_ensemble_refuses_a_radius_out_of_range(eps):
    with pytest.raises(ValueError, match=rf"eps={eps}: .*\(0, 1\]"):
        EnsembleAdversarial(eps=eps)


@pytest.mark.parametrize("clean", [-0.1, 1.0, 50.0, math.nan])
def test_adversarial_refuses_a_clean_share_out_of_range(clean):
    with pytest.raises(ValueError, match=rf"clean={clean}: .*\[0, 1\)"):
        Adversarial(attack=FGSM(eps=0.1), clean=clean)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_attack_under_autocast_leaves_every_weight_its_gradient(precision):
    """Autocast keeps casts of weights: one that an attack made without gradients must not reach the loss."""

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        net = models.build("small_cnn").train()
        x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        attack = PGD(threat=Linf(eps=0.1), steps=2, step_size=0.05, random_start=False, dtype=precision)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            Adversarial(attack=attack)(net, x, torch.arange(4), 0.0).backward()
        return [parameter.grad for parameter in net.parameters()]

    for full, half in zip(gradients(torch.float32), gradients(torch.bfloat16), strict=True):
        assert (full - half).norm() < 0.1 * full.norm()


def test_adversarial_starts_at_random_anew_in_every_batch():
    model = Scores()
    objective = Adversarial(attack=RFGSM(eps=0.2, alpha=0.2))
    objective(model, X, Y, 0.0)
    first = model.seen[-1]
    objective(model, X, Y, 0.0)
    assert not torch.equal(first, model.seen[-1])


# ---- ramped adversarial training ----


class Watched(nn.Module):
    """A linear model that keeps the largest distance of its training inputs from grey."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.moved = nn.Parameter(torch.linspace(-1, 1, 12).view(4, 3)), []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.moved.append((x.detach() - 0.5).flatten(1))
        return x.flatten(1) @ self.weight


@pytest.mark.parametrize(("progress", "radius"), [(0.0, 0.05), (0.2, 0.175), (0.4, 0.3), (0.9, 0.3)])
def test_ramped_adversarial_training_grows_its_radius(progress, radius):
    objective = RampedAdversarial(eps=0.3, steps=3, step_size=0.15, ramp=0.4)
    model, x, y = Watched().train(), torch.full((32, 1, 2, 2), 0.5), torch.arange(32) % 3
    torch.manual_seed(0)
    loss = objective(model, x, y, progress)
    (moved,) = model.moved
    assert moved.abs().max().item() == pytest.approx(radius, abs=1e-6)
    torch.testing.assert_close(loss, F.cross_entropy((x.flatten(1) + moved) @ model.weight, y))
    loss.backward()
    assert model.weight.grad.abs().sum() > 0
    assert model.training


def test_ramped_adversarial_training_starts_at_random_anew_in_every_batch():
    objective = RampedAdversarial(eps=0.3, steps=1, step_size=1e-6, ramp=0.4)
    model, x, y = Watched().train(), torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        objective(model, x, y, 0.5)
        objective(model, x, y, 0.5)
    first, second, again, _, other, _ = model.moved
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("ramp", [0.0, -0.1, 1.5])
def test_a_ramp_that_is_no_share_of_the_training_is_refused(ramp):
    with pytest.raises(ValueError, match=rf"ramp={ramp}: the share of the training must lie in \(0, 1\]"):
        RampedAdversarial(eps=0.3, steps=3, step_size=0.15, ramp=ramp)
