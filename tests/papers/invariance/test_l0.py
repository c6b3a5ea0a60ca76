"""The l0 attacks on a linear model, whose fewest pixels are known, on models without gradients, and against a peer."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustutils import threats
from robustutils.artifacts import describe, kept
from robustutils.attacks import evaluation_mode, margin
from robustutils.models import Binarise
from robustutils.papers.invariance.l0 import GreedyPixels, SigmaZero, l0_distance, minimal_l0

SIGMA, GREEDY = SigmaZero(steps=100), GreedyPixels()
BOTH = pytest.mark.parametrize("attack", [SIGMA, GREEDY], ids=["sigma-zero", "greedy"])


class Linear(nn.Module):
    """Two classes with scores 0 and w (x - 1/2), computed row by row so that the batch does not change a bit of it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        score = ((x.flatten(1) - 0.5) * self.weight).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def linear(channels: int = 1, side: int = 12, n: int = 32) -> tuple[Linear, Tensor, Tensor]:
    """A linear model, random images, and the classes it gives them."""
    x = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(2))
    model = Linear(x[0].numel())
    return model, x, model(x).argmax(1)


def fewest(model: Linear, x: Tensor, y: Tensor) -> Tensor:
    """The true numbers for :class:`Linear`: the pixels from which there is most to win, until the sign changes."""
    weight = model.weight.detach() * (2 * y - 1)[:, None]
    images = x.flatten(1)
    room = torch.where(weight > 0, weight * images, -weight * (1 - images))
    by_pixel = room.view(len(x), x.shape[1], -1).sum(1).sort(1, descending=True).values
    score = (weight * (images - 0.5)).sum(1)
    return (by_pixel.cumsum(1) <= score[:, None]).sum(1) + 1


def fooled(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with evaluation_mode(model), torch.no_grad():
        return margin(model(x), y) > 0


# ---- the fewest pixels of a linear model ----


def test_l0_distance_counts_a_pixel_once():
    x = torch.zeros(3, 3, 4, 4)
    x_adv = x.clone()
    x_adv[1, :, 0, 0] = 1e-6
    x_adv[2, 0, 0, 0] = x_adv[2, 1, 3, 2] = 1
    assert l0_distance(x, x_adv).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("channels", "side"), [(1, 2), (1, 8), (1, 28), (3, 12)])
def test_sigma_zero_comes_within_two_pixels_of_the_true_number(channels, side):
    model, x, y = linear(channels, side)
    true = fewest(model, x, y)
    found = l0_distance(x, SIGMA(model, x, y))
    assert (found >= true).all(), "fewer than possible"
    assert (found <= true + 2).all(), f"{(found - true).max()} too many"
    assert (found == true).float().mean() > 0.75


@pytest.mark.parametrize("side", [2, 8, 28])
def test_greedy_is_exact_on_a_linear_model(side):
    model, x, y = linear(1, side)
    assert torch.equal(l0_distance(x, GREEDY(model, x, y)), fewest(model, x, y))


def test_greedy_gives_a_pixel_of_a_colour_image_all_its_channels_at_once():
    model, x, y = linear(3, 6)
    x_adv = GREEDY(model, x, y)
    changed = (x_adv != x).any(1, keepdim=True).expand_as(x)
    values = x_adv.masked_select(changed).view(-1, 1)
    assert ((values == 0) | (values == 1)).all()
    assert (l0_distance(x, x_adv) >= fewest(model, x, y)).all(), "fewer than possible"


def test_more_steps_find_no_more_pixels_on_average(digits, digits_net):
    few = digits.first(16)
    means = [
        minimal_l0(digits_net, replace(SIGMA, steps=steps), few.images, few.labels).mean()
        for steps in (10, 100)
    ]
    assert means[1] < 0.8 * means[0]


# ---- what every result must be ----


@BOTH
def test_results_stay_in_the_box_and_fool_and_spare_what_is_wrong_already(attack, digits, digits_net):
    few = digits.first(8)
    x, y = few.images, few.labels.clone()
    y[:3] = (digits_net(x[:3]).argmax(1) + 1) % 10
    x_adv = attack(digits_net, x, y)
    threats.check_inside(attack.threat, x, x_adv, tolerance=0)
    wrong = fooled(digits_net, x, y)
    assert wrong[:3].all()
    assert torch.equal(x_adv[wrong], x[wrong]), "a misclassified image was changed"
    assert fooled(digits_net, x_adv, y).all(), "a result does not fool"
    assert (l0_distance(x, x_adv)[~wrong] < 60).all(), "most pixels should stay as they are, bit for bit"
    assert torch.equal(attack(digits_net, x, y), x_adv), "the attack does not repeat itself"
    assert torch.equal(attack(digits_net, x, y, torch.Generator().manual_seed(1)), x_adv)


@BOTH
def test_an_image_is_attacked_alike_whatever_is_beside_it(attack):
    model, x, y = linear()
    together = attack(model, x, y)
    assert torch.equal(attack(model, x[5:6], y[5:6])[0], together[5])


@BOTH
def test_a_model_keeps_its_mode(attack, tiny_data, tiny_net):
    model = tiny_net().train()
    attack(model, tiny_data.images[:4], tiny_data.labels[:4])
    assert all(part.training for part in model.modules())


def test_greedy_needs_no_candidates_beyond_those_that_it_may_change():
    model, x, y = linear(1, 2)
    for attack in (replace(GREEDY, batch_size=1), replace(GREEDY, candidates=10_000)):
        assert torch.equal(attack(model, x, y), GREEDY(model, x, y))


def test_greedy_gives_up_after_so_many_pixels():
    model, x, y = linear(1, 28)
    true = fewest(model, x, y).float()
    assert true.max() > 3
    found = minimal_l0(model, replace(GREEDY, max_pixels=3), x, y)
    assert torch.equal(found, true.masked_fill(true > 3, torch.inf))


def test_greedy_sets_each_pixel_once():
    asked: list[int] = []

    class Stubborn(Linear):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return torch.tensor([2.0, 0.0]) + 0 * super().forward(x)

    x, y = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    assert torch.equal(GREEDY(Stubborn(4), x, y), x)
    assert [count for count in asked if count > 1] == [8, 6, 4, 2]


@BOTH
def test_what_does_not_fool_on_a_fresh_pass_is_not_returned(attack, monkeypatch):
    model, x, y = linear()
    made = torch.where((torch.arange(32) < 9).view(-1, 1, 1, 1), attack(model, x, y), (x + 1e-6).clamp(0, 1))
    fools = fooled(model, made, y)
    assert fools[:9].all()
    assert not fools.all()
    monkeypatch.setattr(type(attack), "_search", lambda *_: made)
    assert torch.equal(attack(model, x, y), torch.where(fools.view(-1, 1, 1, 1), made, x))


# ---- models without gradients ----


class Hard(nn.Module):
    """The linear model of pixels that are rounded, without a gradient to follow."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = Linear(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x >= 0.5).float())


def test_sigma_zero_finds_nothing_where_gradients_vanish_and_greedy_does():
    model, (_, x, _) = Hard(144), linear()
    y = model(x).argmax(1)
    assert torch.equal(SIGMA(model, x, y), x)
    assert minimal_l0(model, SIGMA, x, y).isinf().all()
    rounded = x.round()
    assert torch.equal(minimal_l0(model, GREEDY, x, y), fewest(model.linear, rounded, y).float())


@BOTH
def test_a_straight_through_gradient_is_followed(attack):
    _, x, _ = linear()
    model = nn.Sequential(Binarise(), Linear(144))
    y = model(x).argmax(1)
    found = minimal_l0(model, attack, x, y)
    true = fewest(model[1], (x >= 0.5).float(), y)
    assert (found >= true).all(), "fewer than possible"
    assert (found <= true + 3).all(), f"{(found - true).max()} too many"


def test_a_gradient_that_is_not_finite_is_named():
    class Broken(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * (x.flatten(1).sum(1, keepdim=True) * 0).sqrt()

    _, x, _ = linear()
    model = Broken(144)
    with pytest.raises(ValueError, match=r"gradient.*32 of 32"):
        SIGMA(model, x, model(x).argmax(1))


# ---- the numbers of a data set ----


@BOTH
def test_minimal_l0_is_0_where_the_model_is_wrong_and_inf_where_nothing_is_found(attack):
    class Constant(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([2.0, 0.0]) + 0 * super().forward(x)

    _, x, _ = linear()
    y = torch.arange(32) % 2
    assert minimal_l0(Constant(144), attack, x, y).tolist() == [torch.inf, 0.0] * 16


@BOTH
def test_minimal_l0_does_not_depend_on_the_batch(attack):
    model, x, y = linear()
    found = minimal_l0(model, attack, x, y)
    assert torch.equal(found, l0_distance(x, attack(model, x, y)).float())
    assert torch.equal(minimal_l0(model, attack, x, y, batch_size=7), found)


def test_minimal_l0_is_kept_under_the_names_of_model_and_attack(cache):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    y = net(x).argmax(1)
    attacks = (replace(SIGMA, steps=5), replace(SIGMA, steps=6), GREEDY)
    first = [kept(minimal_l0, net, attack, x, y) for attack in attacks]
    assert len(list(cache.glob("minimal_l0-*.safetensors"))) == 3
    again = [kept(minimal_l0, net, attack, x, y) for attack in attacks]
    assert all(torch.equal(old, new) for old, new in zip(first, again, strict=True))
    assert len(list(cache.glob("minimal_l0-*.safetensors"))) == 3
    assert describe(SigmaZero(steps=5)) == {"is": "SigmaZero", "steps": 5}


# ---- a peer ----


def test_a_peer_finds_no_fewer_pixels(digits, digits_net):
    with warnings.catch_warnings():
        # foolbox 3.3.4 takes gaussian_filter from a namespace that SciPy 2.0 will remove.
        warnings.filterwarnings("ignore", r"Please import `gaussian_filter` from", DeprecationWarning)
        foolbox = pytest.importorskip("foolbox", reason="the oracle foolbox is not installed")
    few = digits.first(30)
    right = ~fooled(digits_net, few.images, few.labels)
    x, y = few.images[right], few.labels[right]
    model = foolbox.PyTorchModel(digits_net, bounds=(0, 1), device="cpu")
    made = foolbox.attacks.L0FMNAttack(steps=SIGMA.steps)(model, x, y, epsilons=None)[1]
    theirs = fooled(digits_net, made, y)
    assert theirs.sum() > 15, "the peer should fool most in this test"
    ours = minimal_l0(digits_net, SIGMA, x, y)[theirs]
    assert ours.mean() < 1.05 * l0_distance(x, made)[theirs].float().mean()


# ---- every complaint ----


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SigmaZero, {"steps": 0}, "steps=0"),
        (SigmaZero, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (SigmaZero, {"sigma": -1.0}, "sigma=-1.0"),
        (SigmaZero, {"threshold_step": float("nan")}, "threshold_step=nan"),
        (SigmaZero, {"threshold": 1.5}, "threshold=1.5"),
        (GreedyPixels, {"max_pixels": 0}, "max_pixels=0"),
        (GreedyPixels, {"candidates": 0}, "candidates=0"),
        (GreedyPixels, {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@BOTH
def test_wrong_input_is_refused(attack):
    model, x, y = linear()
    with pytest.raises(ValueError, match="pixels"):
        attack(model, x + 1, y)
    with pytest.raises(ValueError, match=r"labels.* 2 classes"):
        attack(model, x, y + 1)
