"""Carlini & Wagner's attacks on a linear model, whose nearest adversarial image is known, and against the peers."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustutils import threats
from robustutils.attacks import PGD, evaluation_mode, margin
from robustutils.data import Dataset
from robustutils.papers.blind_spot import carlini
from robustutils.papers.blind_spot.carlini import LADDER, CarliniL2, CarliniLinf, Nearest, pgd_nearest
from robustutils.threats import Linf

WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5])
LINF = CarliniLinf(iterations=100, initial_c=0.1, learning_rate=1e-2)
L2 = CarliniL2(iterations=120, initial_c=0.1, learning_rate=0.02, binary_steps=6)
BOTH = pytest.mark.parametrize("attack", [LINF, L2], ids=["linf", "l2"])
QUICK = {"iterations": 30, "learning_rate": 0.05}


class Linear(nn.Module):
    """Two classes with scores 0 and w x + bias, computed row by row so that the batch does not change a bit of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(WEIGHTS), nn.Parameter(-WEIGHTS.sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) * self.weight).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def dense() -> nn.Module:
    """The same out of torch's layers, so that what is computed on it is kept."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros(6), WEIGHTS]))
        net[1].bias.copy_(torch.tensor([0.0, -WEIGHTS.sum() / 2]))
    return net


class Constant(nn.Module):
    """It says class 0, whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([2.0, 0.0]) + 0 * x.flatten(1).sum(1, keepdim=True)


def images(n: int = 8) -> tuple[Tensor, Tensor]:
    """Images at a linf distance of 0.02 to 0.1 from the border between the classes, and their classes."""
    y = torch.arange(n) % 2
    side = torch.linspace(0.02, 0.1, n) * (2 * y - 1)
    noise = 0.2 * torch.rand(n, 6, generator=torch.Generator().manual_seed(3)) - 0.1
    noise -= (noise @ WEIGHTS / WEIGHTS.square().sum())[:, None] * WEIGHTS
    return (0.5 + noise + side[:, None] * WEIGHTS.sign()).view(n, 1, 2, 3), y


def margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with evaluation_mode(model), torch.no_grad():
        return margin(model(x), y)


def moved(attack: CarliniLinf | CarliniL2, x: Tensor, x_adv: Tensor) -> Tensor:
    return attack.threat.size(x, x_adv)


# ---- the nearest image of a linear model ----


@pytest.mark.parametrize("abort_early", [True, False])
@pytest.mark.parametrize(("attack", "dual", "slack"), [(LINF, 1, 1 / 9), (L2, 2, 0.03)], ids=["linf", "l2"])
def test_the_distance_is_the_margin_over_the_dual_norm(attack, dual, slack, abort_early):
    (x, y), model = images(), Linear()
    x_adv = replace(attack, abort_early=abort_early)(model, x, y)
    assert (margins(model, x_adv, y) > 0).all(), "an image does not fool the model"
    ratio = moved(attack, x, x_adv) / (-margins(model, x, y) / WEIGHTS.norm(p=dual))
    assert (ratio > 0.999).all(), f"nearer than possible: {ratio}"
    assert (ratio < 1.001 + slack).all(), f"too far: {ratio}"


@BOTH
def test_an_image_runs_its_own_schedule_whatever_is_beside_it(attack):
    (x, y), model = images(), Linear()
    start = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    together, distances = attack.search(model, x, y, start)
    assert distances.unique().numel() == len(x), "the images should differ in this test"
    for i in (0, 7):
        alone, distance = attack.search(model, x[i : i + 1], y[i : i + 1], start[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
        torch.testing.assert_close(distance[0], distances[i], rtol=0, atol=1e-5)


@BOTH
def test_a_start_that_fools_already_ends_at_the_border_too(attack):
    (x, y), model = images(), Linear()
    start = (x - (2 * y - 1).view(-1, 1, 1, 1) * 0.3 * WEIGHTS.sign().view(1, 1, 2, 3)).clamp(0, 1)
    assert (margins(model, start, y) > 0).all(), "every start should fool in this test"
    _, distances = attack.search(model, x, y, start)
    optimum = -margins(model, x, y) / WEIGHTS.norm(p=1 if isinstance(attack, CarliniLinf) else 2)
    assert (distances / optimum < 1.112).all(), f"too far: {distances / optimum}"


# ---- starts ----


@BOTH
def test_of_the_two_starts_the_nearer_result_is_kept(attack, monkeypatch):
    x, y = (
        torch.rand(8, 1, 20, 20, generator=torch.Generator().manual_seed(5)),
        torch.zeros(8, dtype=torch.int64),
    )
    y[2] = 1
    first, second = torch.tensor([[1.0, 2, 1, torch.inf, 2, 1, 2], [2.0, 1, torch.inf, 1, 1, 2, 1]])
    asked: list[Tensor] = []

    def search(self: object, model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(start)
        return start, torch.cat([first, second])

    monkeypatch.setattr(type(attack), "search", search)
    x_adv = attack(Constant(), x, y)
    noise, grey = asked[0].chunk(2)
    right = y == 0
    assert (grey == 0.5).all(), "the second start is not mid-grey"
    inner = (noise > 0) & (noise < 1) & ((x[right] - 0.5).abs() < 0.1)
    assert 0.15 < (noise - x[right])[inner].std() < 0.2, "the noise of the first start is not 0.2, clipped"
    assert ((noise >= 0) & (noise <= 1)).all()
    assert torch.equal(x_adv[right], torch.where((first < second).view(-1, 1, 1, 1), noise, grey))
    assert torch.equal(x_adv[2], x[2]), "a misclassified image was changed"


def test_a_seed_repeats_the_attack_and_a_generator_goes_before_it():
    (x, y), model = images(), Linear()
    attack = replace(L2, **QUICK)
    first = attack(model, x, y)
    assert torch.equal(attack(model, x, y), first)
    assert torch.equal(attack(model, x, y, torch.Generator().manual_seed(0)), first)
    assert not torch.equal(attack(model, x, y, torch.Generator().manual_seed(1)), first)


# ---- what every result must be ----


@pytest.mark.usefixtures("bfloat16")
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_stay_in_the_box_fool_in_float32_and_spare_what_is_wrong_already(
    attack, dtype, digits, digits_net
):
    few = digits.first(16)
    x, y = few.images, few.labels.clone()
    y[:3] = (digits_net(x[:3]).argmax(1) + 1) % 10
    x_adv = replace(attack, dtype=dtype, **QUICK)(digits_net, x, y)
    threats.check_inside(attack.threat, x, x_adv, tolerance=0)
    wrong = margins(digits_net, x, y) > 0
    assert wrong[:3].all()
    assert torch.equal(x_adv[wrong], x[wrong]), "a misclassified image was changed"
    assert (moved(attack, x, x_adv)[~wrong] > 0).all(), "nothing was found for an image"
    assert (margins(digits_net, x_adv, y) > 0).all(), "a result does not fool in float32"


@pytest.mark.usefixtures("bfloat16")
@BOTH
def test_bfloat16_finds_nearly_the_same_distances(attack, digits, digits_net):
    few = digits.first(16)
    x, y = few.images, few.labels
    means = [
        moved(
            attack, x, replace(attack, dtype=dtype, iterations=40, learning_rate=0.03)(digits_net, x, y)
        ).mean()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert 0.97 < means[1] / means[0] < 1.05


@BOTH
def test_where_nothing_is_found_the_image_comes_back(attack):
    x, y = images()[0], torch.zeros(8, dtype=torch.int64)
    attack = replace(attack, **QUICK)
    assert torch.equal(attack(Constant(), x, y), x)
    found, distances = attack.search(Constant(), x, y, torch.rand_like(x))
    assert torch.equal(found, x)
    assert distances.isinf().all()


def test_linf_distances_are_near_the_smallest_radius_at_which_pgd_succeeds(digits, digits_net):
    few = digits.first(8)
    x, y = few.images, few.labels
    right = margins(digits_net, x, y) < 0
    radius = torch.full((len(x),), torch.inf)
    for eps in np.arange(0.3, 0, -0.03).tolist():
        pgd = PGD(threat=Linf(eps=eps), steps=20, step_size=eps / 8, loss=margin)
        radius[margins(digits_net, pgd(digits_net, x, y), y) > 0] = eps
    attack = CarliniLinf(iterations=100, learning_rate=0.03, initial_c=0.1)
    assert moved(attack, x, attack(digits_net, x, y))[right].mean() < 1.15 * radius[right].mean()


# ---- peers ----


def test_the_peers_find_no_nearer_images(digits, digits_net):
    with warnings.catch_warnings():
        # foolbox 3.3.4 takes gaussian_filter from a namespace that SciPy 2.0 will remove.
        warnings.filterwarnings("ignore", r"Please import `gaussian_filter` from", DeprecationWarning)
        foolbox = pytest.importorskip("foolbox", reason="the oracle foolbox is not installed")
    evasion = pytest.importorskip("art.attacks.evasion", reason="the oracle ART is not installed")
    estimators = pytest.importorskip("art.estimators.classification", reason="ART is not installed")
    few = digits.first(24)
    right = margins(digits_net, few.images, few.labels) < 0
    x, y = few.images[right], few.labels[right]
    # The peers start at x itself.
    _, ours = L2.search(digits_net, x, y, x)
    assert ours.isfinite().all()
    shared = {"binary_search_steps": L2.binary_steps, "initial_const": L2.initial_c}
    by_foolbox = foolbox.attacks.L2CarliniWagnerAttack(
        steps=L2.iterations, stepsize=L2.learning_rate, **shared
    )
    model = foolbox.PyTorchModel(digits_net, bounds=(0, 1), device="cpu")
    theirs = moved(L2, x, by_foolbox(model, x, y, epsilons=None)[1])
    assert ours.mean() < 1.03 * theirs.mean(), "foolbox finds nearer images"
    estimator = estimators.PyTorchClassifier(
        digits_net, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )
    # Up to ten passes of line search in each of its iterations.
    by_art = evasion.CarliniL2Method(
        estimator,
        max_iter=L2.iterations // 10,
        learning_rate=L2.learning_rate,
        batch_size=50,
        verbose=False,
        **shared,
    )
    made = torch.from_numpy(by_art.generate(x.numpy(), y.numpy()))
    fooled = margins(digits_net, made, y) > 0
    assert fooled.sum() > 12, "ART should fool most in this test"
    assert ours[fooled].mean() < 1.03 * moved(L2, x, made)[fooled].mean(), "ART finds nearer images"


# ---- nearest ----


def nearest(
    model: nn.Module, attack: CarliniLinf | CarliniL2, data: Dataset, batch_size: int = 100
) -> Nearest:
    """The attack on a whole data set."""
    parts = [part() for part in carlini.batches(model, attack, data, batch_size=batch_size)]
    return Nearest(*(torch.cat([part[name] for part in parts]) for name in ("images", "distances")))


def test_nearest_names_every_distance_and_computes_each_batch_once(cache, monkeypatch):
    x, y = images()
    y[1] = 1 - y[1]
    data = Dataset("linear", "test", x, y, ("a", "b"), "fingerprint")
    model, attack = dense(), replace(LINF, **QUICK)
    done: list[int] = []
    search = carlini.CarliniLinf.search

    def counted(self: CarliniLinf, model: nn.Module, x: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        done.append(len(x))
        return search(self, model, x, *rest)

    monkeypatch.setattr(carlini.CarliniLinf, "search", counted)
    result = nearest(model, attack, data, batch_size=3)
    assert done == [4, 6, 4], "two starts for each correct image of three batches"
    assert result.distances[1] == 0
    torch.testing.assert_close(result.distances, moved(attack, x, result.images))
    assert len(list(cache.glob("nearest-*.safetensors"))) == 3
    again = nearest(model, attack, data, batch_size=3)
    assert torch.equal(again.images, result.images)
    assert torch.equal(again.distances, result.distances)
    parts = carlini.batches(model, attack, data, batch_size=3)
    assert torch.equal(carlini.all_distances([part() for part in parts]), result.distances)
    assert len(done) == 3, "a finished batch was computed again"
    nearest(model, replace(attack, iterations=29), data, batch_size=3)
    assert len(done) == 6, "another attack was answered from the cache"


def test_nearest_is_inf_where_nothing_was_found():
    class Stubborn(Constant):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

    data = Dataset("constant", "test", images()[0], torch.arange(8) % 2, ("a", "b"), "fingerprint")
    result = nearest(Stubborn(), replace(L2, **QUICK), data)
    assert result.distances.tolist() == [torch.inf, 0.0] * 4
    assert torch.equal(result.images, data.images)


def test_shortened_ends_where_the_line_leaves_the_class():
    """A linear model is left at one point of the line, which bisection finds to 2^-10 of it."""
    x, y = images()
    model = Linear()
    x_adv = x + 0.06 * (1 - 2 * y.float()).view(-1, 1, 1, 1) * WEIGHTS.sign().view(1, 1, 2, 3)
    fools = margins(model, x_adv, y) > 0
    assert fools.any()
    assert not fools.all()
    nearer = carlini.shortened(model, x, y, x_adv)
    assert torch.equal(nearer[~fools], x_adv[~fools]), "what does not fool comes back"
    found = margins(model, nearer, y)[fools]
    ends = (margins(model, x, y)[fools], margins(model, x_adv, y)[fools])
    step = (ends[1] - ends[0]) / 1024
    assert ((found > 0) & (found <= step + 1e-4)).all()


# ---- every complaint ----


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        *[
            (kind, settings, message)
            for kind in (CarliniLinf, CarliniL2)
            for settings, message in (
                ({"iterations": 0}, "iterations=0"),
                ({"initial_c": 0.0}, "initial_c=0.0"),
                ({"learning_rate": -0.1}, "learning_rate=-0.1"),
                ({"learning_rate": float("nan")}, "learning_rate=nan"),
            )
        ],
        (CarliniLinf, {"largest_c": 1e-6}, "largest_c=1e-06.*initial_c=1e-05"),
        (CarliniL2, {"binary_steps": 0}, "binary_steps=0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@BOTH
def test_wrong_input_is_refused(attack):
    x, y = images()
    with pytest.raises(ValueError, match="pixels"):
        attack(Linear(), x + 1, y)
    with pytest.raises(ValueError, match=r"labels.* 2 classes"):
        attack(Linear(), x, y + 1)


# ---- PGD in the smallest ball ----


def test_pgd_stops_in_the_smallest_ball_of_its_ladder_that_holds_an_example():
    net = dense()
    x = torch.rand(12, 1, 2, 3, generator=torch.Generator().manual_seed(5))
    y = net(x).argmax(1)
    images = Dataset("linear", "test", x, y, ("a", "b"), "e" * 64)
    found = pgd_nearest(net, images, steps=20)
    score = (net(x)[:, 1] - net(x)[:, 0]).abs().detach()
    exact = score / (net[1].weight[1] - net[1].weight[0]).abs().sum().item()
    apart = (found - x).flatten(1).abs().amax(1)
    inside = ((x - exact[:, None, None, None]).amin((1, 2, 3)) > 0) & (
        (x + exact[:, None, None, None]).amax((1, 2, 3)) < 1
    )
    reached = inside & (exact > LADDER[0])
    assert reached.sum() >= 3, "images whose nearest example lies inside the box"
    assert (net(found)[reached].argmax(1) != y[reached]).all()
    assert (apart[reached] >= exact[reached] - 1e-5).all()
    assert (apart[reached] <= 1.05 * 1.02 * exact[reached]).all(), "a step of the ladder is a twentieth"


def test_two_attacks_are_compared_on_the_images_that_fall_to_both():
    net = dense()
    x = torch.rand(12, 1, 2, 3, generator=torch.Generator().manual_seed(5))
    few = Dataset("linear", "test", x, net(x).argmax(1), ("a", "b"), "e" * 64)
    pgd = pgd_nearest(net, few, steps=20)
    stays = torch.arange(12) % 3 == 0
    cw = torch.where(stays[:, None, None, None], x, pgd)  # the same examples, but for those it did not find
    parts = [{"images": torch.cat([cw, x])[first : first + 8]} for first in (0, 8, 16)]
    found = carlini.beside_pgd(net, parts, few, steps=20)
    fell = ~stays & (pgd != x).flatten(1).any(1)
    assert fell.sum() == 8, "PGD finds an example of every image"
    assert torch.equal(found["fell"], fell)
    size = (pgd - x).flatten(1).abs().amax(1)[fell]
    torch.testing.assert_close(found["as found"], torch.stack([size, size]))
    near = (carlini.shortened(net, x, few.labels, pgd) - x).flatten(1).abs().amax(1)[fell]
    torch.testing.assert_close(found["drawn near"], torch.stack([near, near]))
    assert (found["drawn near"] < found["as found"]).any()
