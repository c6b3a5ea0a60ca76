"""Objectives against losses written out by hand."""

import math
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import models
from robustutils.attacks import FGSM, PGD, RFGSM
from robustutils.bounds import crown_ibp_margins, interval_margins
from robustutils.objectives import Adversarial, Certified, Clean, RampedAdversarial, Stages
from robustutils.papers.blind_spot.dual import dual_margins
from robustutils.papers.blind_spot.objectives import (
    Augmented,
    ScaledAndShifted,
    Wasserstein,
    wasserstein_ascent,
)
from robustutils.papers.ensemble.objectives import EnsembleAdversarial, single_step
from robustutils.papers.invariance import objectives as invariance_objectives
from robustutils.papers.invariance.objectives import AffineAugmented, CrownIbp
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
    "objective",
    [
        Clean(),
        Adversarial(attack=FGSM(eps=0.1)),
        EnsembleAdversarial(eps=0.1),
        Wasserstein(),
        Stages(((1.0, Clean()),)),
    ],
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
    with pytest.raises(ValueError, match=f"eps={eps}"):
        EnsembleAdversarial(eps=eps)


@pytest.mark.parametrize("clean", [-0.1, 1.0, 50.0, math.nan])
def test_adversarial_refuses_a_clean_share_out_of_range(clean):
    with pytest.raises(ValueError, match=f"clean={clean}"):
        Adversarial(attack=FGSM(eps=0.1), clean=clean)


@pytest.mark.usefixtures("bfloat16")
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
    with pytest.raises(ValueError, match=f"ramp={ramp}"):
        RampedAdversarial(eps=0.3, steps=3, step_size=0.15, ramp=ramp)


# ---- stages ----


def recorder(seen: list[tuple[str, float]], name: str):
    def objective(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        seen.append((name, progress))
        return loss_at(model, x, y)

    return objective


def test_stages_hand_each_objective_its_own_progress():
    seen: list[tuple[str, float]] = []
    stages = Stages(((0.2, recorder(seen, "a")), (0.6, recorder(seen, "b")), (1.0, recorder(seen, "c"))))
    for progress in (0.0, 0.1, 0.2, 0.5, 0.6, 0.9, 1.0):
        torch.testing.assert_close(stages(Scores(), X, Y, progress), loss_at(Scores(), X))
    assert [name for name, _ in seen] == ["a", "a", "b", "b", "c", "c", "c"]
    assert [progress for _, progress in seen] == pytest.approx([0, 0.5, 0, 0.75, 0, 0.75, 1])


@pytest.mark.parametrize(
    "ends",
    [
        (),
        (0.5,),
        (0.5, 0.9),
        (0.5, 1.1),
        (0.0, 1.0),
        (-0.1, 1.0),
        (0.6, 0.4, 1.0),
        (0.5, 0.5, 1.0),
        (1.0, 1.0),
    ],
)
def test_stages_that_do_not_rise_to_one_are_refused(ends):
    with pytest.raises(ValueError, match=re.escape(str(list(ends)))):
        Stages(tuple((end, Clean()) for end in ends))


# ---- distributionally robust training ----


def smoothed(y: Tensor, share: float) -> Tensor:
    return torch.stack(
        [torch.tensor([1 - share if k == label else share / 2 for k in range(3)]) for label in y]
    )


@pytest.mark.parametrize(("c", "steps"), [(1.3, 15), (0.5, 3), (2.0, 0)])
def test_the_ascent_of_wrm_is_that_of_the_authors_formulas(c, steps):
    model, targets = Scores(), smoothed(Y, 0.1)

    def gradient(x: Tensor) -> Tensor:
        """Of the cross-entropy of a linear model: W (softmax - t)."""
        with torch.no_grad():
            return ((x.flatten(1) @ model.weight).softmax(1) - targets).mm(model.weight.T).view_as(x)

    x_star = X + c * gradient(X)
    for t in range(steps):
        x_star = x_star + (c * gradient(x_star) - (x_star - X)) / (t + 2) ** 0.5
    found = wasserstein_ascent(model, X, targets, c=c, steps=steps)
    torch.testing.assert_close(found, x_star)
    assert not found.requires_grad
    assert model.weight.grad is None


def test_the_ascent_of_wrm_climbs_its_objective_and_leaves_the_box():
    model, targets = Scores(), smoothed(Y, 0.1)

    def value(x: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), targets, reduction="none")
        return 1.3 * loss - (x - X).flatten(1).square().sum(1) / 2

    found = wasserstein_ascent(model, X, targets, c=1.3, steps=15)
    assert (value(found) > value(X)).all()
    assert found.min() < 0, "the authors' code does not clip"
    assert found.max() > 1, "the authors' code does not clip"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_wrm_is_the_loss_on_smoothed_labels_where_the_ascent_ends(smoothing):
    model, targets = Scores(), smoothed(Y, smoothing)
    x_star = wasserstein_ascent(model, X, targets, c=1.3, steps=4)
    expected = -(targets * model(x_star).log_softmax(1)).sum(1).mean()
    found = Wasserstein(steps=4, smoothing=smoothing)(model, X, Y, 0.3)
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(found, model.weight)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, model.weight)[0])


@pytest.mark.usefixtures("bfloat16")
def test_wrm_under_autocast_leaves_every_weight_its_gradient():
    def gradients(dtype: torch.dtype) -> list[Tensor]:
        net = models.build("wrm_mnist").train()
        x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            Wasserstein(steps=2, dtype=dtype)(net, x, torch.arange(4), 0.0).backward()
        return [parameter.grad for parameter in net.parameters()]

    for full, half in zip(gradients(torch.float32), gradients(torch.bfloat16), strict=True):
        assert (full - half).norm() < 0.1 * full.norm()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"c": 0.0}, "c=0.0"),
        ({"c": -1.3}, "c=-1.3"),
        ({"c": math.nan}, "c=nan"),
        ({"steps": -1}, "steps=-1"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"smoothing": -0.1}, "smoothing=-0.1"),
    ],
)
def test_wrm_refuses_bad_values(changes, text):
    with pytest.raises(ValueError, match=text):
        Wasserstein(**changes)


# ---- certified training ----


@pytest.fixture(scope="module")
def certifiable() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("margins", [interval_margins, dual_margins])
def test_the_certified_loss_is_the_clean_one_at_radius_0_and_grows_from_there(margins, certifiable):
    losses = [
        Certified(margins=margins, eps=eps, start=eps)(certifiable, X, Y, 0.5)
        for eps in (0.0, 0.02, 0.1, 0.3)
    ]
    torch.testing.assert_close(losses[0], loss_at(certifiable, X))
    assert all(more > less + 1e-4 for less, more in pairwise(losses)), losses


@pytest.mark.parametrize("margins", [interval_margins, dual_margins])
def test_the_certified_loss_is_above_that_of_any_attack(margins, certifiable):
    found = Certified(margins=margins, eps=0.1, start=0.1)(certifiable, X, Y, 0.0)
    for attack in (FGSM(eps=0.1), PGD(threat=Linf(eps=0.1), steps=20, step_size=0.02)):
        assert found >= loss_at(certifiable, attack(certifiable, X, Y))


@pytest.mark.parametrize(("progress", "radius"), [(0.0, 0.05), (0.5, 0.15), (1.0, 0.25)])
def test_the_certified_radius_rises_in_a_straight_line_within_the_pixel_range(progress, radius):
    boxes = []

    def margins(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
        boxes.append((low, high))
        return model(low) * torch.tensor([0.0, 1.0, 2.0])

    model = Scores()
    loss = Certified(margins=margins, eps=0.25, start=0.05)(model, X, Y, progress)
    ((low, high),) = boxes
    torch.testing.assert_close(low, (X - radius).clamp(0, 1))
    torch.testing.assert_close(high, (X + radius).clamp(0, 1))
    torch.testing.assert_close(loss, F.cross_entropy(-margins(model, low, high, Y), Y))


@pytest.mark.parametrize(
    ("start", "eps"), [(-0.1, 0.1), (0.2, 0.1), (0.0, 1.5), (0.0, 25.5), (math.nan, 0.1), (0.0, math.nan)]
)
def test_certified_refuses_radii_that_do_not_rise_within_the_pixel_range(start, eps):
    with pytest.raises(ValueError, match=f"start={start}, eps={eps}"):
        Certified(margins=interval_margins, eps=eps, start=start)


# ---- CROWN-IBP ----


@pytest.mark.parametrize(
    ("progress", "radius", "beta"), [(0.0, 0.0, 1.0), (0.2, 0.1, 0.75), (0.6, 0.3, 0.25), (0.9, 0.4, 0.0)]
)
def test_the_radius_rises_while_the_tighter_bound_is_blended_out(progress, radius, beta, certifiable):
    found = CrownIbp(eps=0.4, ramp=0.8)(certifiable, X, Y, progress)
    box = (X - radius).clamp(0, 1), (X + radius).clamp(0, 1)
    tight, loose = (margins(certifiable, *box, Y) for margins in (crown_ibp_margins, interval_margins))
    torch.testing.assert_close(found, F.cross_entropy(-(beta * tight + (1 - beta) * loose), Y))
    assert radius == 0 or not torch.allclose(tight, loose, rtol=0.05), "this test needs two different bounds"


def test_the_loss_of_crown_ibp_is_the_clean_one_at_the_start_and_above_any_attack_s_later(certifiable):
    objective = CrownIbp(eps=0.2, ramp=1.0)
    torch.testing.assert_close(objective(certifiable, X, Y, 0.0), loss_at(certifiable, X))
    for progress in (0.25, 0.5, 1.0):
        attack = PGD(threat=Linf(eps=0.2 * progress), steps=20, step_size=0.02)
        assert objective(certifiable, X, Y, progress) >= loss_at(certifiable, attack(certifiable, X, Y))


def test_crown_ibp_costs_only_intervals_once_the_tighter_bound_is_blended_out(monkeypatch, certifiable):
    def refuse(*args: object) -> Tensor:
        raise AssertionError("computed in vain")

    monkeypatch.setattr(invariance_objectives, "crown_ibp_margins", refuse)
    assert CrownIbp(eps=0.2, ramp=0.4)(certifiable, X, Y, 0.4).isfinite()


@pytest.mark.parametrize(
    ("eps", "ramp"), [(0.0, 0.6), (-0.1, 0.6), (1.5, 0.6), (math.nan, 0.6), (0.4, 0.0), (0.4, 1.2)]
)
def test_crown_ibp_refuses_a_radius_or_a_share_out_of_range(eps, ramp):
    with pytest.raises(ValueError, match=f"eps={eps}, ramp={ramp}"):
        CrownIbp(eps=eps, ramp=ramp)


# ---- moved, mirrored, scaled and shifted images ----


def images_seen(wrapped: type, x: Tensor, **settings) -> tuple[Tensor, float]:
    """The images and the progress that the objective within ``wrapped`` is given."""
    seen = []

    def objective(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        seen.append((x, progress))
        return x.sum()

    wrapped(objective=objective, **settings)(Scores(), x, torch.zeros(len(x), dtype=torch.int64), 0.3)
    return seen[0]


@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_are_crops_of_the_padded_image_each_equally_often(flip):
    image = torch.arange(1.0, 25.0).view(1, 2, 3, 4) / 25
    padded = F.pad(image[0], (1,) * 4)
    crops = [padded[:, i : i + 3, j : j + 4] for i in range(3) for j in range(3)]
    crops += [crop.flip(2) for crop in crops] if flip else []
    torch.manual_seed(0)
    moved, progress = images_seen(Augmented, image.expand(1800, -1, -1, -1), pad=1, flip=flip)
    assert progress == 0.3
    same = (moved[:, None] == torch.stack(crops)).flatten(2).all(2)
    assert same.any(1).all(), "an image is no crop"
    counts = same.sum(0)
    expected = 1800 / len(crops)
    assert (counts - expected).abs().max() < 4 * math.sqrt(expected), counts  # four standard deviations


def test_augmented_without_padding_and_mirrors_changes_nothing():
    assert torch.equal(images_seen(Augmented, X, pad=0, flip=False)[0], X)
    with pytest.raises(ValueError, match="pad=-1"):
        Augmented(objective=Clean(), pad=-1, flip=True)


def test_scaled_and_shifted_images_keep_to_the_pixel_range_and_to_the_smallest_scale():
    x = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 1, 2, 2).expand(2000, -1, -1, -1)
    torch.manual_seed(0)
    out, progress = images_seen(ScaledAndShifted, x, least=0.6)
    assert progress == 0.3
    low, high = out.flatten(1)[:, 0], out.flatten(1)[:, 3]
    scale, beta = high - low, (low + high - 1) / 2
    torch.testing.assert_close(out.flatten(1), low[:, None] + scale[:, None] * x.flatten(1))
    assert out.min() >= 0
    assert out.max() <= 1
    assert 0.6 <= scale.min() < 0.61
    assert 0.99 < scale.max() <= 1
    assert scale.mean().item() == pytest.approx(0.8, abs=0.015)
    share = beta / ((1 - scale) / 2)
    assert share.abs().max() <= 1.01
    assert share.mean().abs() < 0.06
    assert share.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("least", [0.0, -0.5, 1.1, math.nan])
def test_a_smallest_scale_out_of_range_is_refused(least):
    with pytest.raises(ValueError, match=f"least={least}"):
        ScaledAndShifted(objective=Clean(), least=least)


def test_affine_augmentation_without_any_change_is_the_identity():
    image = torch.rand(1, 1, 9, 9)
    seen, progress = images_seen(AffineAugmented, image, degrees=0, shear=0, scale=0, shift=0)
    torch.testing.assert_close(seen, image, atol=1e-5, rtol=0)
    assert progress == 0.3


@pytest.mark.parametrize("change", [{"degrees": 20}, {"scale": 0.3}, {"shift": 2}], ids=str)
def test_affine_augmentation_moves_as_far_as_it_says(change):
    still = {"degrees": 0, "shear": 0, "scale": 0, "shift": 0}
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 18:23, 28:33] = 1  # ten pixels to the right of the centre
    seen = images_seen(AffineAugmented, dot.expand(200, -1, -1, -1), **still | change)[0][:, 0]
    pixels = torch.arange(41.0) - 20
    x, y = ((seen.sum(axis) * pixels).sum(1) / seen.sum((1, 2)) for axis in (1, 2))
    ((kind, most),) = change.items()
    values, low, high = {
        "degrees": (torch.atan2(y, x).rad2deg(), -most, most),
        "scale": (torch.hypot(x, y), 10 * (1 - most), 10 * (1 + most)),
        "shift": (x, 10 - most, 10 + most),
    }[kind]
    slack = 0.05 * (high - low)
    assert low - slack <= values.min() <= low + slack, "the lower end"
    assert high - slack <= values.max() <= high + slack, "the upper end"


def test_shear_moves_columns_by_their_row():
    dot = torch.zeros(1, 1, 41, 41)
    dot[..., 28:33, 18:23] = 1  # ten pixels below the centre
    still = {"degrees": 0, "scale": 0, "shift": 0}
    seen = images_seen(AffineAugmented, dot.expand(200, -1, -1, -1), shear=0.3, **still)[0][:, 0]
    x = (seen.sum(1) * (torch.arange(41.0) - 20)).sum(1) / seen.sum((1, 2))
    assert x.abs().max() <= 3.1
    assert x.min() < -2.7
    assert x.max() > 2.7


@pytest.mark.parametrize("change", [{"degrees": -1}, {"shear": -0.1}, {"scale": 1}, {"shift": -1}], ids=str)
def test_affine_augmentation_refuses(change):
    with pytest.raises(ValueError, match="none may be negative, and scale must be below 1"):
        AffineAugmented(objective=Clean(), **change)
