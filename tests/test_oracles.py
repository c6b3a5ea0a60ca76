"""Peer libraries as oracles: foolbox and ART must find what we find, on a small CNN trained on the digits."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustutils import speed, threats
from robustutils.attacks import FGSM, IFGSM, PGD, Attack
from robustutils.data import Dataset
from robustutils.square import Square
from robustutils.threats import L2, Linf

with warnings.catch_warnings():
    # foolbox 3.3.4 takes gaussian_filter from a namespace that SciPy 2.0 will remove.
    warnings.filterwarnings("ignore", r"Please import `gaussian_filter` from", DeprecationWarning)
    foolbox = pytest.importorskip("foolbox", reason="the oracle foolbox is not installed")
evasion = pytest.importorskip("art.attacks.evasion", reason="the oracle ART is not installed")
classification = pytest.importorskip(
    "art.estimators.classification", reason="the oracle ART is not installed"
)

Oracle = Callable[[nn.Module, Tensor, Tensor], Tensor]
EPS, EPS2, STEPS = 0.1, 1.5, 10


def by_foolbox(attack: object, eps: float) -> Oracle:
    def run(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return attack(model, x, y, epsilons=eps)[1]

    return run


def by_art(attack: type, targeted: bool = False, **settings: object) -> Oracle:
    def run(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        estimator = classification.PyTorchClassifier(
            net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
        )
        if targeted:
            with torch.no_grad():
                y = net(x).argmin(1)
            settings["targeted"] = True
        made = attack(estimator, batch_size=len(x), **settings)
        if hasattr(made, "verbose"):
            made.set_params(verbose=False)
        return torch.from_numpy(made.generate(x.numpy(), y.numpy()))

    return run


@pytest.fixture(autouse=True)
def as_exact_as_the_peers(monkeypatch):
    """They compute in float32."""
    monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.float32)


def pgd(threat: threats.ThreatSet, *, step: float, random_start: bool) -> PGD:
    """PGD as the peers run it: all steps, the last iterate."""
    return PGD(
        threat=threat,
        steps=STEPS,
        step_size=step,
        random_start=random_start,
        keep_best=False,
        drop_fooled=False,
    )


def foolbox_pgd(name: str, eps: float, *, step: float, random_start: bool) -> Oracle:
    kind = getattr(foolbox.attacks, name)
    return by_foolbox(kind(abs_stepsize=step, steps=STEPS, random_start=random_start), eps)


def art_pgd(norm: float, eps: float, *, step: float, random_start: bool) -> Oracle:
    return by_art(
        evasion.ProjectedGradientDescent,
        norm=norm,
        eps=eps,
        eps_step=step,
        max_iter=STEPS,
        num_random_init=int(random_start),
    )


@pytest.fixture(scope="module")
def batch(digits: Dataset, digits_net: nn.Module) -> tuple[Tensor, Tensor]:
    chosen = digits.first(1000)
    with torch.no_grad():
        assert (digits_net(chosen.images).argmax(1) == chosen.labels).float().mean() > 0.9
    return chosen.images, chosen.labels


def withstands(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x_adv).argmax(1) == y


FIXED: dict[str, tuple[Attack, Oracle]] = {
    "FGSM, foolbox": (
        FGSM(eps=EPS),
        by_foolbox(foolbox.attacks.LinfFastGradientAttack(random_start=False), EPS),
    ),
    "FGSM, ART": (FGSM(eps=EPS), by_art(evasion.FastGradientMethod, eps=EPS)),
    "I-FGSM, foolbox": (
        IFGSM(eps=EPS, steps=STEPS),
        foolbox_pgd("LinfBasicIterativeAttack", EPS, step=EPS / STEPS, random_start=False),
    ),
    "I-FGSM, ART": (
        IFGSM(eps=EPS, steps=STEPS),
        by_art(evasion.BasicIterativeMethod, eps=EPS, eps_step=EPS / STEPS, max_iter=STEPS),
    ),
    "PGD linf, foolbox": (
        pgd(Linf(eps=EPS), step=0.03, random_start=False),
        foolbox_pgd("LinfProjectedGradientDescentAttack", EPS, step=0.03, random_start=False),
    ),
    "PGD linf, ART": (
        pgd(Linf(eps=EPS), step=0.03, random_start=False),
        art_pgd(math.inf, EPS, step=0.03, random_start=False),
    ),
    "PGD l2, foolbox": (
        pgd(L2(eps=EPS2), step=0.4, random_start=False),
        foolbox_pgd("L2ProjectedGradientDescentAttack", EPS2, step=0.4, random_start=False),
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_without_random_start_the_adversarial_examples_are_the_same(name, digits_net, batch):
    ours, oracle = FIXED[name]
    x, y = (part[:300] for part in batch)
    mine, theirs = ours(digits_net, x, y), oracle(digits_net, x, y)
    differ = (mine - theirs).abs().amax((1, 2, 3)) > 1e-5
    # A gradient that is zero but for rounding has no sign of its own: it may turn an image in a hundred aside.
    assert differ.sum() <= 3
    agree = withstands(digits_net, mine, y) == withstands(digits_net, theirs, y)
    assert agree[~differ].all()


RANDOM: dict[str, tuple[PGD, Oracle]] = {
    "linf, foolbox": (
        pgd(Linf(eps=EPS), step=0.03, random_start=True),
        foolbox_pgd("LinfProjectedGradientDescentAttack", EPS, step=0.03, random_start=True),
    ),
    "linf, ART": (
        pgd(Linf(eps=EPS), step=0.03, random_start=True),
        art_pgd(math.inf, EPS, step=0.03, random_start=True),
    ),
    "l2, foolbox": (
        pgd(L2(eps=EPS2), step=0.4, random_start=True),
        foolbox_pgd("L2ProjectedGradientDescentAttack", EPS2, step=0.4, random_start=True),
    ),
    "l2, ART": (
        pgd(L2(eps=EPS2), step=0.4, random_start=True),
        art_pgd(2, EPS2, step=0.4, random_start=True),
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_with_random_start_robust_accuracy_is_the_same_within_its_error(name, digits_net, batch):
    ours, oracle = RANDOM[name]
    x, y = batch
    mine = withstands(digits_net, ours(digits_net, x, y), y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        theirs = withstands(digits_net, oracle(digits_net, x, y), y)
    assert 0.2 < mine.float().mean() < 0.8, "neither all nor nothing should fall in this test"
    # The images are paired: only those on which the verdicts differ can move the difference.
    only_mine, only_theirs = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    assert abs(only_mine - only_theirs) <= 3 * math.sqrt(only_mine + only_theirs) + 1
    assert only_mine + only_theirs < 0.05 * len(x), "the verdicts differ on many images"


@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=EPS2)], ids=repr)
def test_best_iterates_are_at_least_as_strong_as_last_ones(threat, digits_net, batch):
    x, y = (part[:300] for part in batch)
    as_peers = pgd(threat, step=0.3 * threat.eps, random_start=False)
    as_shipped = PGD(threat=threat, steps=STEPS, step_size=0.3 * threat.eps, random_start=False)
    peers, shipped = (withstands(digits_net, a(digits_net, x, y), y) for a in (as_peers, as_shipped))
    assert not (shipped & ~peers).any(), "an example withstood that falls to the last iterate"


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("threat", [Linf(eps=EPS), L2(eps=EPS2)], ids=repr)
def test_bfloat16_gives_the_same_robust_accuracy_within_two_images(threat, digits_net, digits):
    x, y = digits.images[:600], digits.labels[:600]
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        attack = PGD(threat=threat, steps=STEPS, step_size=threat.eps / 4, dtype=dtype)
        rates[dtype] = withstands(digits_net, attack(digits_net, x, y), y).sum().item()
    assert abs(rates[torch.float32] - rates[torch.bfloat16]) <= 2


def test_square_finds_no_fewer_errors_than_art(digits_net, batch):
    x, y = (part[:300] for part in batch)
    queries = 200
    oracle = by_art(evasion.SquareAttack, norm=math.inf, eps=EPS, max_iter=queries, p_init=0.8)
    np.random.seed(0)
    theirs = withstands(digits_net, oracle(digits_net, x, y), y)
    mine = withstands(digits_net, Square(eps=EPS, queries=queries)(digits_net, x, y), y)
    assert 0.2 < mine.float().mean() < 0.9, "neither all nor nothing should fall in this test"
    only_mine, only_theirs = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    assert only_mine - only_theirs <= 3 * math.sqrt(only_mine + only_theirs) + 1
