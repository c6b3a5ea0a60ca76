"""Attacks on models so small that the right answer is known in closed form; images are [N, 1, 2, 3]."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustutils import attacks, speed, threats
from robustutils.attacks import FGSM, IFGSM, PGD, RFGSM, Adam, Hinge, WorstOf, cross_entropy, margin
from robustutils.threats import L2, Linf

WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5])


@pytest.fixture(autouse=True)
def closed_forms_are_of_float32(monkeypatch, request):
    """A plain call may run in bfloat16; where a test is not about that, passes stay in float32."""
    if "bfloat16" not in request.node.name:
        monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.float32)


class Function(nn.Module):
    """Two classes: the logit of class 0 is zero, that of class 1 a function of the flattened pixels."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x.flatten(1))
        return torch.stack([torch.zeros_like(score), score], 1)


class Pixels(nn.Module):
    """As many classes as pixels: the logits are ten times the pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.flatten(1)


def linear(bias: float = 0.0) -> Function:
    """The score w x + bias."""
    return Function(lambda x: x @ WEIGHTS.to(x.dtype) + bias)


def images(low: float, high: float, n: int = 8) -> tuple[Tensor, Tensor]:
    """Uniform random images and labels 0 and 1 in turn."""
    x = low + (high - low) * torch.rand(n, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    return x, torch.arange(n) % 2


def scores(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(model(x), y)


def fooled(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return scores(model, x, y) > 0


def pgd(threat, **changes) -> PGD:
    """Ten steps that reach the border from x, and on to the last step."""
    settings = {"steps": 10, "step_size": threat.eps / 10, "random_start": False, "drop_fooled": False}
    return PGD(threat=threat, **settings | changes)


def small_network(seed: int = 0, classes: int = 5) -> nn.Sequential:
    """A random network with dropout, rough enough that attacks differ on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(6, 32),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Linear(32, 32),
            nn.Tanh(),
            nn.Linear(32, classes),
        )
        for layer in net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.6)
    return net


def every_attack(eps: float = 0.2) -> dict[str, attacks.Attack]:
    """One of each kind, for what must hold of all of them."""
    return {
        "FGSM": FGSM(eps=eps),
        "RFGSM": RFGSM(eps=eps),
        "IFGSM": IFGSM(eps=eps, steps=3),
        "PGD": PGD(threat=Linf(eps=eps), steps=3, step_size=eps / 2),
        "PGD l2": PGD(threat=L2(eps=eps), steps=3, step_size=eps / 2, loss=margin, restarts=2),
        "WorstOf": WorstOf(attacks=(FGSM(eps=eps), PGD(threat=Linf(eps=eps), steps=2, step_size=eps))),
    }


ALL = pytest.mark.parametrize("name", every_attack())


def network_batch(n: int = 64, seed: int = 0) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A small network, images, and the labels it gives them."""
    net = small_network(seed).eval()
    x = torch.rand(n, 1, 2, 3, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return net, x, net(x).argmax(1)


# ---- losses, schedules, optimisers ----


def test_losses_have_their_closed_forms():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.0, 3.0], [1.0, 1.0, 0.0]])
    y = torch.tensor([0, 1, 0])
    torch.testing.assert_close(margin(logits, y), torch.tensor([-1.0, 3.0, 0.0]))
    torch.testing.assert_close(margin(logits - 5, y), torch.tensor([-1.0, 3.0, 0.0]))
    expected = torch.tensor(
        [math.log(1 + math.exp(-1) + math.exp(-3)), math.log(2 + math.exp(3)), math.log(2 + math.exp(-1))]
    )
    torch.testing.assert_close(cross_entropy(logits, y), expected)


@pytest.mark.parametrize("loss", [margin, cross_entropy])
def test_losses_are_float32_whatever_the_logits(loss):
    logits, y = torch.tensor([[1.0, 3.0]]), torch.tensor([0])
    assert loss(logits.bfloat16(), y).dtype == torch.float32
    torch.testing.assert_close(loss(logits.bfloat16(), y), loss(logits, y))


def test_schedules():
    assert [attacks.decaying(t) for t in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert [attacks.constant(t) for t in (0.0, 0.25, 1.0)] == [1.0, 1.0, 1.0]


def test_the_schedule_scales_each_step_by_its_progress():
    asked: list[float] = []

    def schedule(progress: float) -> float:
        asked.append(progress)
        return 1 - progress

    x, y = images(0.4, 0.6)
    attack = pgd(Linf(eps=0.1), steps=4, step_size=0.01, schedule=schedule, keep_best=False)
    moved = (attack(linear(), x, y) - x).abs()
    assert asked == [0.0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(moved, torch.full_like(x, 0.01 * (1 + 0.75 + 0.5 + 0.25)))


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)])
def test_adam_refuses_betas_outside_of_their_range(betas):
    with pytest.raises(ValueError, match=re.escape(f"betas={betas}")):
        Adam(betas=betas)


def test_adam_moves_as_torch_does():
    gradients = torch.randn(6, 2, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros(gradients.shape[1:]))
    reference = torch.optim.Adam([weight], lr=0.1, betas=(0.8, 0.95), eps=1e-12, maximize=True)
    delta, optimiser = torch.zeros_like(weight), Adam(betas=(0.8, 0.95))
    state = optimiser.start(delta)
    for step, gradient in enumerate(gradients):
        weight.grad = gradient
        reference.step()
        movement, state = optimiser(gradient, state, step)
        delta = delta + 0.1 * movement
        torch.testing.assert_close(delta, weight.detach())


# ---- a linear model: the optimum is known ----

INTERIOR: dict[str, Any] = {
    "FGSM": (lambda eps: FGSM(eps=eps), 1e-5),
    "IFGSM": (lambda eps: IFGSM(eps=eps), 1e-5),
    "PGD": (lambda eps: pgd(Linf(eps=eps)), 1e-5),
    "PGD margin": (lambda eps: pgd(Linf(eps=eps), loss=margin), 1e-5),
    "PGD random start": (lambda eps: pgd(Linf(eps=eps), random_start=True, step_size=eps / 4), 1e-5),
    "PGD restarts": (lambda eps: pgd(Linf(eps=eps), random_start=True, step_size=eps / 4, restarts=3), 1e-5),
    "PGD last iterate": (lambda eps: pgd(Linf(eps=eps), keep_best=False), 1e-5),
    "PGD decaying": (lambda eps: pgd(Linf(eps=eps), step_size=eps / 4, schedule=attacks.decaying), 1e-5),
    "PGD l2": (lambda eps: pgd(L2(eps=eps)), 1e-5),
    "PGD l2 margin": (lambda eps: pgd(L2(eps=eps), loss=margin), 1e-5),
    "PGD l2 random start": (
        lambda eps: pgd(
            L2(eps=eps),
            random_start=True,
            steps=60,
            step_size=eps,
            schedule=attacks.decaying,
            keep_best=False,
        ),
        1e-3,
    ),
}


@pytest.mark.parametrize("name", INTERIOR)
def test_linear_model_away_from_the_box_grows_by_the_dual_norm(name):
    make, tolerance = INTERIOR[name]
    attack = make(0.1)
    x, y = images(0.4, 0.6)
    model = linear()
    gain = scores(model, attack(model, x, y), y) - scores(model, x, y)
    dual = 1 if isinstance(attack.threat, Linf) else 2
    optimum = 0.1 * WEIGHTS.norm(p=dual)
    torch.testing.assert_close(gain, optimum.expand(8), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in INTERIOR if "l2" not in name])
def test_linear_model_with_the_box_active_linf_reaches_the_optimum(name):
    make, tolerance = INTERIOR[name]
    x, y = images(0.0, 1.0)
    x[0], x[1] = 0.0, 1.0
    towards = torch.where(y == 1, -1.0, 1.0)[:, None] * WEIGHTS.sign()
    best = (x + 0.3 * towards.view_as(x)).clamp(0, 1)
    assert ((best - x).abs() < 0.29).float().mean() > 0.1, "the box should be active in this test"
    torch.testing.assert_close(make(0.3)(linear(), x, y), best, rtol=0, atol=tolerance)


def test_linear_model_with_the_box_active_l2_reaches_the_optimum():
    x, y = images(0.0, 1.0)
    x[0], x[1] = 0.0, 1.0
    towards = torch.where(y == 1, -1.0, 1.0)[:, None] * WEIGHTS
    flat, eps = x.flatten(1), 0.5
    low, high = torch.zeros(8, 1), torch.full((8, 1), 100.0)
    for _ in range(60):  # the optimum is clip(t w) with the t that uses up eps
        middle = (low + high) / 2
        best = (flat + middle * towards).clamp(0, 1) - flat
        inside = best.norm(dim=1, keepdim=True) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    optimum = (towards * best).sum(1)
    assert (optimum < eps * WEIGHTS.norm() - 0.01).any(), "the box should be active in this test"
    attack = pgd(L2(eps=eps), steps=200, step_size=0.05, schedule=attacks.decaying, loss=margin)
    gain = scores(linear(), attack(linear(), x, y), y) - scores(linear(), x, y)
    assert (gain <= optimum + 1e-5).all(), "more than the optimum"
    torch.testing.assert_close(gain, optimum, rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.0, 0.02, 0.1])
def test_rfgsm_is_a_random_sign_step_and_a_gradient_step(alpha):
    x, y = images(0.4, 0.6)
    x_adv = RFGSM(eps=0.1, alpha=alpha, seed=4)(linear(), x, y)
    alpha = 0.05 if alpha is None else alpha
    signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).sign()
    towards = torch.where(y == 1, -1.0, 1.0).view(-1, 1, 1, 1) * WEIGHTS.sign().view(1, 1, 2, 3)
    torch.testing.assert_close(x_adv, x + alpha * signs + (0.1 - alpha) * towards)


def test_rfgsm_clips_its_random_step_to_the_box():
    x, y = torch.zeros(1, 1, 2, 3), torch.tensor([0])
    seen = []
    model = Function(lambda pixels: (seen.append(pixels.detach().clone()), pixels @ WEIGHTS)[1])
    RFGSM(eps=0.2)(model, x, y)
    assert all(pixels.min() >= 0 for pixels in seen), "the gradient was taken outside the box"


def test_margin_moves_only_the_two_best_classes_and_cross_entropy_all():
    x = torch.tensor([0.8, 0.6, 0.35]).view(1, 1, 1, 3)
    y = torch.tensor([0])
    by_margin = pgd(Linf(eps=0.1), loss=margin)(Pixels(), x, y)
    torch.testing.assert_close(by_margin.flatten(), torch.tensor([0.7, 0.7, 0.35]))
    by_entropy = pgd(Linf(eps=0.1), loss=cross_entropy)(Pixels(), x, y)
    torch.testing.assert_close(by_entropy.flatten(), torch.tensor([0.7, 0.7, 0.45]))


# ---- models on which single steps fail ----


def bump() -> Function:
    """Class 1 only within 0.08 of a point that lies 0.1 from grey, in a direction of mixed signs."""
    centre = 0.5 + 0.1 * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
    return Function(lambda x: 1 - ((x - centre) / 0.08).square().amax(1))


@pytest.mark.parametrize(
    "attack",
    [
        IFGSM(eps=0.3),
        IFGSM(eps=0.3, steps=20),
        pgd(Linf(eps=0.3), keep_best=False),
        pgd(Linf(eps=0.3), steps=60, step_size=0.02, random_start=True),
        pgd(L2(eps=0.5), steps=60),
    ],
    ids=["I-FGSM", "20 steps", "last iterate", "random start", "l2"],
)
def test_a_single_step_jumps_over_the_bump_and_iteration_finds_it(attack):
    x, y = torch.full((4, 1, 2, 3), 0.5), torch.zeros(4, dtype=torch.int64)
    assert not fooled(bump(), x, y).any()
    assert not fooled(bump(), FGSM(eps=0.3)(bump(), x, y), y).any()
    assert fooled(bump(), attack(bump(), x, y), y).all()


def masked() -> Function:
    """Flat within 0.05 of grey in the first pixel; class 1 where that pixel is more than 0.25 away."""
    return Function(lambda x: 10 * ((x[:, 0] - 0.5).abs() - 0.05).relu() - 2)


def test_masked_gradients_stop_fgsm_but_not_rfgsm():
    x, y = torch.full((32, 1, 2, 3), 0.5), torch.zeros(32, dtype=torch.int64)
    for attack in (FGSM(eps=0.3), IFGSM(eps=0.3), pgd(Linf(eps=0.3))):
        assert torch.equal(attack(masked(), x, y), x), "a zero gradient must not move a pixel"
    assert fooled(masked(), RFGSM(eps=0.3)(masked(), x, y), y).all()
    assert not fooled(masked(), RFGSM(eps=0.3, alpha=0.0)(masked(), x, y), y).any()


def test_restarts_get_out_of_the_flat_part():
    x, y = torch.full((64, 1, 2, 3), 0.5), torch.zeros(64, dtype=torch.int64)
    attack = PGD(threat=Linf(eps=0.3), steps=10, step_size=0.05)
    once = fooled(masked(), attack(masked(), x, y), y)
    assert 0.6 < once.float().mean() < 0.98, "one start in six should lie in the flat part"
    assert fooled(masked(), replace(attack, restarts=10)(masked(), x, y), y).all()


def test_a_restart_sees_only_what_is_not_yet_fooled():
    x, y = torch.full((64, 1, 2, 3), 0.5), torch.zeros(64, dtype=torch.int64)
    attack = PGD(threat=Linf(eps=0.3), steps=4, step_size=0.1, drop_fooled=True)
    left = 64 - int(fooled(masked(), attack(masked(), x, y), y).sum())
    starts: list[int] = []

    @dataclass(frozen=True, kw_only=True)
    class Counting(Linf):
        def start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
            starts.append(len(x))
            return super().start(x, generator)

    replace(attack, threat=Counting(eps=0.3), restarts=2)(masked(), x, y)
    assert starts == [64, left]


def test_restarts_keep_the_highest_loss_where_nothing_fools():
    net, x, y = network_batch()
    one = PGD(threat=Linf(eps=0.02), steps=1, step_size=0.005, drop_fooled=False)
    once, twice, often = (
        cross_entropy(net(replace(one, restarts=restarts)(net, x, y)), y).detach() for restarts in (1, 2, 5)
    )
    assert (twice >= once - 1e-6).all()
    assert (often >= twice - 1e-6).all()
    assert (often > once + 1e-4).any(), "restarts should help somewhere"


# ---- best iterate, dropping, precision ----


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("threat", [Linf(eps=0.4), L2(eps=0.8)], ids=repr)
def test_more_steps_with_the_best_iterate_never_hurt(loss, threat):
    net, x, y = network_batch()

    def loss_after(steps: int, keep_best: bool) -> Tensor:
        attack = pgd(threat, steps=steps, step_size=threat.eps, loss=loss, keep_best=keep_best)
        with torch.no_grad():
            return loss(net(attack(net, x, y)), y)

    best = torch.stack([loss_after(steps, True) for steps in range(1, 8)])
    last = torch.stack([loss_after(steps, False) for steps in range(1, 8)])
    assert (best.diff(dim=0) >= -1e-6).all()
    assert (last.diff(dim=0) < -1e-2).any(), "steps this large should overshoot without keep_best"
    running = torch.cat([loss(net(x), y).detach()[None], last]).cummax(0).values[1:]
    torch.testing.assert_close(best, running, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threat", [Linf(eps=0.15), L2(eps=0.3)], ids=repr)
def test_dropping_what_is_fooled_gives_the_same_verdicts(threat):
    net, x, y = network_batch(256)
    attack = PGD(threat=threat, steps=8, step_size=threat.eps / 3, loss=margin)
    kept = fooled(net, replace(attack, drop_fooled=False)(net, x, y), y)
    dropped = fooled(net, attack(net, x, y), y)
    assert 0.1 < kept.float().mean() < 0.9
    assert torch.equal(kept, dropped)


def test_dropping_never_loses_an_example_that_cross_entropy_fooled():
    net, x, y = network_batch(256)
    attack = PGD(threat=Linf(eps=0.15), steps=8, step_size=0.05)
    kept = fooled(net, replace(attack, drop_fooled=False)(net, x, y), y)
    dropped = fooled(net, attack(net, x, y), y)
    assert (dropped | ~kept).all()


def test_dropping_saves_work_and_returns_the_first_fooling_iterate():
    seen: list[int] = []
    model = Function(lambda x: (seen.append(len(x)), 10 * (x[:, 0] - 0.5))[1])
    x = torch.full((4, 1, 2, 3), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.45, 0.35, 0.25, 0.05])
    y = torch.zeros(4, dtype=torch.int64)
    attack = PGD(threat=Linf(eps=0.3), steps=3, step_size=0.1, random_start=False)
    attack(model, x, y)
    seen.clear()  # of the passes that only a new model gets
    x_adv = attack(model, x, y)
    torch.testing.assert_close(x_adv[:, 0, 0, 0], torch.tensor([0.55, 0.55, 0.55, 0.35]))
    assert sum(seen) <= 4 + 4 + 4 + 3 + 2 + 1, "a fooled example was evaluated again"


def test_what_is_misclassified_already_comes_back_unchanged():
    x, y = images(0.4, 0.6)
    model = linear(bias=10.0)
    x_adv = PGD(threat=Linf(eps=0.1), steps=3, step_size=0.05, random_start=False)(model, x, y)
    assert torch.equal(x_adv[y == 0], x[y == 0])


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("name", ["FGSM", "RFGSM", "IFGSM", "PGD", "PGD l2"])
def test_bfloat16_takes_the_same_steps_on_a_linear_model(name):
    x, y = images(0.4, 0.6)
    attack, model = every_attack()[name], linear()
    torch.testing.assert_close(
        replace(attack, dtype=torch.bfloat16)(model, x, y), attack(model, x, y), rtol=0, atol=2e-3
    )


@pytest.mark.usefixtures("bfloat16")
def test_a_bfloat16_verdict_is_confirmed_in_float32():
    """Under autocast this model gives everything away; in float32 only beyond a score of 1."""

    def score(x: Tensor) -> Tensor:
        bonus = 100.0 if torch.is_autocast_enabled("cpu") else 0.0
        return 10 * (x[:, 0] - 0.5) - 1 + bonus

    x, y = torch.full((4, 1, 2, 3), 0.5), torch.zeros(4, dtype=torch.int64)
    attack = PGD(
        threat=Linf(eps=0.3), steps=10, step_size=0.03, loss=margin, dtype=torch.bfloat16, random_start=False
    )
    x_adv = attack(Function(score), x, y)
    assert fooled(Function(score), x_adv, y).all(), "examples left on a bfloat16 verdict"


# ---- worst case ----


@dataclass(frozen=True)
class Fixed:
    """Sets the first pixel; keeps what it was asked to attack."""

    value: float
    calls: list[int]

    @property
    def threat(self) -> Linf:
        return Linf(eps=1.0)

    def __call__(self, model, x, y, generator=None):
        self.calls.append(len(x))
        x = x.clone()
        x[:, 0, 0, 0] = self.value
        return x


def test_worst_of_is_the_and_of_its_members_for_each_example():
    net, x, y = network_batch(256)
    members = (
        FGSM(eps=0.15),
        RFGSM(eps=0.15),
        pgd(Linf(eps=0.15), loss=margin, steps=3, step_size=0.1),
        IFGSM(eps=0.15, steps=2),
    )
    alone = torch.stack([fooled(net, attack(net, x, y), y) for attack in members])
    assert len({tuple(row.tolist()) for row in alone}) == 4, "members should differ in this test"
    assert torch.equal(fooled(net, WorstOf(attacks=members)(net, x, y), y), alone.any(0))


def test_worst_of_shows_later_attacks_only_the_survivors():
    x = torch.full((4, 1, 2, 3), 0.5)
    x[:2, 0, 0, 1] = 1.0
    model = Function(lambda pixels: pixels[:, 0] * pixels[:, 1] - 0.6)  # the pair falls to 0.7, none to 0.4
    y = torch.zeros(4, dtype=torch.int64)
    first, second, third = Fixed(0.7, []), Fixed(0.4, []), Fixed(0.45, [])
    x_adv = WorstOf(attacks=(first, second, third))(model, x, y)
    assert (first.calls, second.calls, third.calls) == ([4], [2], [2])
    torch.testing.assert_close(x_adv[:, 0, 0, 0], torch.tensor([0.7, 0.7, 0.45, 0.45]))


def test_worst_of_stops_when_nothing_is_left():
    x, y = torch.full((4, 1, 2, 3), 0.5), torch.zeros(4, dtype=torch.int64)
    first, second = Fixed(1.0, []), Fixed(0.0, [])
    WorstOf(attacks=(first, second))(Function(lambda pixels: pixels[:, 0] - 0.9), x, y)
    assert (first.calls, second.calls) == ([4], [])


# ---- what holds for every attack ----


@ALL
def test_attack_stays_in_its_threat_set_and_returns_plain_images(name):
    net, x, y = network_batch()
    for eps in (0.0, 0.2, 1.0):
        attack = every_attack(eps)[name] if eps else FGSM(eps=0.0)
        x_adv = attack(net, x, y)
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, torch.float32, False)
        threats.check_inside(attack.threat, x, x_adv, tolerance=1e-6)


@ALL
def test_attack_moves_something(name):
    net, x, y = network_batch()
    x_adv = every_attack()[name](net, x, y)
    assert (x_adv - x).abs().max() > 0.05


@ALL
def test_attack_repeats_itself_byte_by_byte(name):
    net, x, y = network_batch()
    before = torch.get_rng_state()
    assert torch.equal(every_attack()[name](net, x, y), every_attack()[name](net, x, y))
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator was used"


@pytest.mark.parametrize("name", ["RFGSM", "PGD", "PGD l2"])
def test_another_seed_or_generator_gives_another_attack(name):
    net, x, y = network_batch()
    attack = every_attack()[name]
    first = attack(net, x, y)
    assert not torch.equal(replace(attack, seed=1)(net, x, y), first)
    given = attack(net, x, y, torch.Generator().manual_seed(1))
    assert torch.equal(given, replace(attack, seed=1)(net, x, y))


@ALL
def test_a_generator_moves_on_between_calls(name):
    net, x, y = network_batch()
    generator = torch.Generator().manual_seed(0)
    first, second = (every_attack()[name](net, x, y, generator) for _ in range(2))
    deterministic = name in {"FGSM", "IFGSM"}
    assert torch.equal(first, second) == deterministic, (
        f"{name}: an attack that draws nothing stands in the set above, one that draws uses the generator"
    )


@ALL
def test_attack_runs_in_evaluation_mode_and_gives_every_part_its_mode_back(name):
    net, x, y = network_batch()
    net.train()
    net[4].eval()
    modes = [part.training for part in net.modules()]
    assert torch.equal(every_attack()[name](net, x, y), every_attack()[name](net.eval(), x, y)), (
        "dropout was active"
    )
    net.train()
    net[4].eval()
    every_attack()[name](net, x, y)
    assert [part.training for part in net.modules()] == modes


class Failing(nn.Module):
    """Works for four calls, then raises."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = small_network(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 4:
            raise OverflowError("fifth call")
        return self.net(x)


@pytest.mark.parametrize("name", ["IFGSM", "PGD", "PGD l2", "WorstOf"])
def test_mode_comes_back_after_an_exception(name):
    _, x, y = network_batch()
    model = Failing()
    model.net[3].eval()
    modes = [part.training for part in model.modules()]
    with pytest.raises(OverflowError, match="fifth call"):
        every_attack()[name](model, x, y)
    assert [part.training for part in model.modules()] == modes


@ALL
def test_attack_leaves_inputs_weights_and_gradients_alone(name):
    net, x, y = network_batch()
    x_before, y_before = x.clone(), y.clone()
    weights = [p.detach().clone() for p in net.parameters()]
    every_attack()[name](net, x, y)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert not x.requires_grad
    for parameter, before in zip(net.parameters(), weights, strict=True):
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, before)


@ALL
def test_attack_works_on_frozen_weights(name):
    net, x, y = network_batch()
    expected = every_attack()[name](net, x, y)
    net.requires_grad_(False)
    assert torch.equal(every_attack()[name](net, x, y), expected)


@ALL
def test_attack_is_the_same_where_the_caller_turned_gradients_off(name):
    net, x, y = network_batch()
    expected = every_attack()[name](net, x, y)
    with torch.no_grad():
        assert torch.equal(every_attack()[name](net, x, y), expected)


@ALL
def test_attack_is_the_same_where_the_caller_runs_under_autocast(name):
    net, x, y = network_batch()
    expected = every_attack()[name](net, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(every_attack()[name](net, x, y), expected)


@ALL
def test_attack_works_on_one_image(name):
    net, x, y = network_batch()
    assert every_attack()[name](net, x[:1], y[:1]).shape == (1, 1, 2, 3)


# ---- every complaint ----

X, Y = torch.full((3, 1, 2, 3), 0.5), torch.tensor([0, 1, 0])


@ALL
@pytest.mark.parametrize(
    ("x", "y", "model", "message"),
    [
        (X[0], Y, linear(), r"x .*float32 \(1, 2, 3\)"),
        (X.double(), Y, linear(), r"x .*float64 \(3, 1, 2, 3\)"),
        ((255 * X).byte(), Y, linear(), "x .*uint8"),
        (X[:0], Y[:0], linear(), r"x .*float32 \(0, 1, 2, 3\)"),
        (X, Y[:2], linear(), r"y .*\[3\].*int64 \(2,\)"),
        (X, Y.int(), linear(), r"y .*int32 \(3,\)"),
        (X, Y[:, None], linear(), r"y .*\[3\].*int64 \(3, 1\)"),
        (X + 1, Y, linear(), r"pixels.*\[1\.5, 1\.5\]"),
        (X - 1, Y, linear(), r"pixels.*\[-0\.5, -0\.5\]"),
        (X * math.nan, Y, linear(), r"pixels.*\[nan, nan\]"),
        (X, Y, nn.Identity(), r"logits.*shape \(3, 1, 2, 3\)"),
        (X, Y + 1, linear(), r"labels 1\.\.2.* 2 classes"),
        (X, Y - 1, linear(), r"labels -1\.\.0.* 2 classes"),
        (X, Y, nn.Sequential(linear(), nn.Softmax(1)), "probabilities"),
    ],
)
def test_wrong_input_is_refused_by_every_attack(name, x, y, model, message):
    attack = every_attack()[name]
    with pytest.raises(ValueError, match=message):
        attack(model, x, y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IFGSM(eps=0.1, steps=0), "steps=0"),
        (lambda: PGD(threat=Linf(eps=0.1), steps=0), "steps=0"),
        (lambda: PGD(threat=Linf(eps=0.1), restarts=0), "restarts=0"),
        (lambda: PGD(threat=Linf(eps=0.1), step_size=0.0), r"step_size=0\.0"),
        (lambda: PGD(threat=Linf(eps=0.1), step_size=-0.01), r"step_size=-0\.01"),
        (lambda: PGD(threat=Linf(eps=0.1), step_size=math.nan), "step_size=nan"),
        (lambda: RFGSM(eps=0.1, alpha=0.2), r"alpha=0\.2.*eps=0\.1"),
        (lambda: RFGSM(eps=0.1, alpha=-0.1), r"alpha=-0\.1.*eps=0\.1"),
        (lambda: WorstOf(attacks=()), r"attacks=\(\)"),
        (lambda: WorstOf(attacks=(FGSM(eps=0.1), FGSM(eps=0.2))), r"threat.*eps=0\.1.*eps=0\.2"),
        (lambda: FGSM(eps=8.0)(linear(), X, Y), r"eps=8\.0"),
        (lambda: FGSM(eps=-0.1)(linear(), X, Y), r"eps=-0\.1"),
        (lambda: RFGSM(eps=8.0)(linear(), X, Y), r"eps=8\.0"),
        (lambda: IFGSM(eps=math.nan)(linear(), X, Y), "eps=nan"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_hyperparameters_are_keywords_and_frozen():
    with pytest.raises(TypeError):
        FGSM(0.3)  # type: ignore[call-arg]
    attack = FGSM(eps=0.3)
    with pytest.raises(AttributeError):
        attack.eps = 0.5


def test_the_hinge_is_the_margin_up_to_its_confidence():
    logits, y = torch.tensor([[1.0, 4.0], [90.0, 0.0], [0.0, 90.0]]), torch.tensor([0, 0, 0])
    assert Hinge(50)(logits, y).tolist() == [3, -90, 50]
