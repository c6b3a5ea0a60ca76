"""Models that would fool an evaluation: each is attacked as it should be, refused in one sentence, or flagged."""

import contextlib
import math

import pytest
import torch
from torch import Tensor, nn

from robustutils import attacks, data, evaluation, flags, square
from robustutils.attacks import FGSM, PGD, ExpectationOverTransformation, Expected, WorstOf, margin
from robustutils.papers.blind_spot import carlini
from robustutils.papers.invariance import l0
from robustutils.threats import L2, Linf

EPS = 0.25
SIGHTED: dict[str, attacks.Attack] = {
    "FGSM": FGSM(eps=EPS),
    "PGD": PGD(threat=Linf(eps=EPS), steps=5, step_size=0.1),
    "PGD, margin": PGD(threat=Linf(eps=EPS), steps=5, step_size=0.1, loss=margin),
    "PGD, l2": PGD(threat=L2(eps=0.6), steps=5, step_size=0.2),
    "worst of two": WorstOf(attacks=(FGSM(eps=EPS), PGD(threat=Linf(eps=EPS), steps=5, step_size=0.1))),
}
BLIND: dict[str, attacks.Attack] = {"square": square.Square(eps=EPS, queries=50)}
each_attack = pytest.mark.parametrize("attack", [*SIGHTED.values(), *BLIND.values()], ids=[*SIGHTED, *BLIND])
each_sighted = pytest.mark.parametrize("attack", SIGHTED.values(), ids=SIGHTED)


def network(seed: int = 0, classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, classes)).eval()


class Around(nn.Module):
    """A network with something done to its pixels before and to its logits behind it."""

    def __init__(self, net: nn.Module, *, before=lambda x: x, behind=lambda z: z) -> None:
        super().__init__()
        self.net, self.before, self.behind = net, before, behind

    def forward(self, x: Tensor):
        return self.behind(self.net(self.before(x)))


def labelled(net: nn.Module, n: int = 40) -> data.Dataset:
    """Grey images of 6 x 6, and the labels that a network gives them."""
    pixels = torch.randint(256, (n, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = net(pixels / 255).argmax(1)
    return data.Dataset.from_pixels("made up", "test", pixels, labels, ("a", "b", "c"))


def found(model: nn.Module, attack: attacks.Attack = SIGHTED["PGD"]) -> evaluation.AttackResult:
    return evaluation.evaluate(model, attack, labelled(network()))


# ---- the scale of the logits ----


@each_sighted
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_the_scale_of_the_logits_is_no_defence(attack, scale):
    small, large = found(network(), attack), found(Around(network(), behind=lambda z: scale * z), attack)
    assert small.robust_accuracy().percent < 60
    assert large.robust_accuracy().percent <= small.robust_accuracy().percent + 5, (
        f"logits times {scale:g} stand where the same network falls"
    )
    assert large.flags == ()


def test_the_gradient_of_the_cross_entropy_is_the_true_one_where_it_does_not_saturate():
    logits = torch.tensor([[49.0, 0, -3], [1, 2, 3], [-80, 5, 0]], requires_grad=True)
    y = torch.tensor([0, 1, 0])
    losses = attacks.cross_entropy(logits, y)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(gradient, logits.detach().softmax(1) - nn.functional.one_hot(y, 3))
    assert torch.equal(losses, nn.functional.cross_entropy(logits, y, reduction="none"))


def test_training_gets_the_true_gradient():
    logits = torch.tensor([[300.0, 0.0]], requires_grad=True)
    gradients = []
    for context in (contextlib.nullcontext(), attacks.plain_gradients()):
        with context:
            loss = attacks.cross_entropy(logits, torch.tensor([0])).sum()
        gradients.append(torch.autograd.grad(loss, logits)[0].tolist())
    assert gradients == [[[-1.0, 1.0]], [[0.0, 0.0]]]


def test_inputs_that_are_not_looked_at_do_not_change_the_gradient():
    logits = torch.tensor([[300.0, 0.0]], requires_grad=True)
    with attacks.unchecked():
        loss = attacks.cross_entropy(logits, torch.tensor([0])).sum()
    assert torch.autograd.grad(loss, logits)[0].tolist() == [[-1.0, 1.0]]


# ---- what is no answer ----


@each_attack
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused_by_every_attack(attack, number):
    dataset = labelled(network())
    broken = Around(network(), behind=lambda z: torch.where(z > 0, number, z))
    with pytest.raises(ValueError, match=r"\d+ of 40 .*not finite"):
        attack(broken, dataset.images, dataset.labels)


def test_a_model_that_gives_nan_has_no_accuracy():
    dataset = labelled(network())
    with pytest.raises(ValueError, match=r"40 of 40 .*not finite"):
        evaluation.correct(Around(network(), behind=lambda z: z * math.nan), dataset.images, dataset.labels)


def test_nan_behind_the_attack_is_no_verdict_either():
    """It answers on the images themselves, and with NaN on every other."""
    dataset = labelled(network())
    known = dataset.images.sum((1, 2, 3))

    class Guard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            far = (x.sum((1, 2, 3))[:, None] - known).abs().amin(1) > 1e-3
            return torch.where(far[:, None], math.nan, self.net(x))

    with pytest.raises(ValueError, match="not finite"):
        evaluation.evaluate(Guard(), SIGHTED["PGD"], dataset)


@each_attack
@pytest.mark.parametrize(
    ("behind", "message"),
    [
        (lambda z: (z, z), "tuple"),
        (lambda z: {"logits": z}, "dict"),
        (lambda z: z[:, :1], r"shape \(40, 1\)"),
        (lambda z: z.flatten(), "shape"),
        (lambda z: z.softmax(1), "probabilities"),
    ],
    ids=["tuple", "dictionary", "one class", "flat", "probabilities"],
)
def test_what_is_no_logits_is_refused_in_a_sentence(attack, behind, message):
    dataset = labelled(network())
    with pytest.raises(ValueError, match=message):
        attack(Around(network(), behind=behind), dataset.images, dataset.labels)


def test_a_model_of_fewer_classes_is_not_of_these_data():
    dataset = labelled(network())
    with pytest.raises(ValueError, match=r"2 classes.*labels.* 2"):
        evaluation.correct(network(classes=2), dataset.images, dataset.labels)


@each_sighted
@pytest.mark.parametrize("way", ["detach", "no_grad", "numpy"])
def test_a_model_that_no_gradient_passes_is_refused_by_what_follows_gradients(attack, way):
    net, dataset = network(), labelled(network())

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if way == "detach":
                return net(x).detach()
            if way == "numpy":
                return net(torch.from_numpy(x.detach().numpy()))
            with torch.no_grad():
                return net(x)

    with pytest.raises(ValueError, match="no gradient"):
        attack(Cut(), dataset.images, dataset.labels)
    assert found(Cut(), BLIND["square"]).flags[0].startswith("the gradient is exactly zero at 100%")


# ---- flags ----


def test_a_sound_model_raises_no_flag():
    verdicts = found(network())
    assert verdicts.flags == ()
    assert "flagged" not in str(verdicts.robust_accuracy())


def test_a_gradient_of_zero_is_flagged_with_every_rate():
    """Pixels in eight steps: rounding has a gradient of zero everywhere."""
    verdicts = found(Around(network(), before=lambda x: (8 * x).round() / 8))
    (flag,) = verdicts.flags
    assert "exactly zero at 100% of 40 images" in flag
    for rate in (verdicts.error_rate(), verdicts.success_rate(), verdicts.robust_accuracy()):
        assert flag in str(rate)


def noisy(size: float = 0.6) -> nn.Module:
    return Around(network(), before=lambda x: x + size * torch.randn_like(x))


def test_a_randomised_model_is_flagged_and_the_flag_says_what_was_averaged():
    torch.manual_seed(0)
    alone = found(noisy(0.05))
    assert "the model is randomised, attacked on single draws" in alone.flags[0]
    averaged = found(noisy(0.05), ExpectationOverTransformation(attack=SIGHTED["PGD"], passes=7))
    assert "the model is randomised, attacked over 7 passes" in averaged.flags[0]


def test_averaging_finds_what_single_draws_miss():
    torch.manual_seed(0)
    dataset = labelled(network())
    steps = PGD(threat=Linf(eps=0.1), steps=10, step_size=0.02, random_start=False)
    model = noisy()
    mean = Expected(model, 400)
    left = {}
    for name, attack in {
        "single": steps,
        "mean": ExpectationOverTransformation(attack=steps, passes=50),
    }.items():
        images = attack(model, dataset.images, dataset.labels)
        with torch.no_grad():
            left[name] = mean(images).gather(1, dataset.labels[:, None]).mean().item()
    assert left["mean"] < left["single"], "the mean answer is left as sure of the label"


def test_the_mean_of_a_model_that_is_not_random_is_its_softmax():
    net, x = network(), torch.rand(4, 1, 6, 6)
    torch.testing.assert_close(Expected(net, 3)(x), net(x).log_softmax(1))


def test_a_mean_takes_two():
    with pytest.raises(ValueError, match="passes=1"):
        ExpectationOverTransformation(attack=SIGHTED["PGD"], passes=1)


def test_a_model_that_optimises_at_test_time_is_flagged():
    net = network()

    class Purified(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().clone().requires_grad_(True)
                (gradient,) = torch.autograd.grad(net(leaf).logsumexp(1).sum(), leaf)
            return net(x - 0.01 * gradient)

    assert any("optimises at test time" in flag for flag in found(Purified()).flags)


def test_an_untrained_model_is_said_to_be_at_chance():
    dataset = labelled(network())
    verdicts = evaluation.evaluate(network(seed=5), SIGHTED["FGSM"], dataset)
    assert verdicts.clean.float().mean() < 0.5
    assert "is not above chance, 33.3% for 3 classes" in verdicts.flags[-1]


def test_a_worst_case_has_the_flags_of_both_once():
    one = evaluation.AttackResult(torch.tensor([True]), torch.tensor([True]), ("a", "b"))
    other = evaluation.AttackResult(torch.tensor([True]), torch.tensor([False]), ("b", "c"))
    assert (one & other).flags == ("a", "b", "c")


@pytest.mark.parametrize(("fooled", "raised"), [(0, False), (2, False), (9, True)])
def test_an_attack_that_needs_no_gradient_and_does_better_is_flagged(fooled, raised):
    left = torch.arange(200) < 100
    said = flags.beaten(left, torch.arange(200) < fooled, "the square attack")
    assert bool(said) == raised
    if raised:
        assert f"the square attack fools {fooled} of 100 images" in said[0]


# ---- what keeps working ----


@each_attack
def test_within_inference_mode_an_attack_finds_what_it_finds_outside(attack):
    dataset, net = labelled(network()), network()
    outside = attack(net, dataset.images, dataset.labels)
    with torch.inference_mode():
        inside = attack(net, dataset.images.clone(), dataset.labels.clone())
    assert torch.equal(inside, outside)


def test_weights_made_in_inference_mode_are_refused_in_a_sentence():
    with torch.inference_mode():
        net = network()
    dataset = labelled(network())
    with pytest.raises(ValueError, match="inference_mode"):
        SIGHTED["PGD"](net, dataset.images, dataset.labels)


class Bare(nn.Module):
    """No parameters and no buffers: three fixed templates."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * torch.stack([x[..., part::3].mean((1, 2, 3)) for part in range(3)], 1)


def test_a_model_without_parameters_is_evaluated():
    dataset = labelled(Bare())
    verdicts = evaluation.evaluate(Bare(), SIGHTED["PGD"], dataset)
    assert verdicts.clean.all()
    assert not verdicts.attacked.all()
    assert evaluation.loss_gradients(Bare(), dataset.images, dataset.labels).abs().sum() > 0


def forms(net: nn.Sequential) -> dict[str, nn.Module]:
    """The same network in other clothes."""
    frozen = network()
    frozen.requires_grad_(False)
    return {
        "frozen": frozen,
        "in parallel": nn.DataParallel(net),
        "double": Around(network().double(), before=lambda x: x.double()),
        "bfloat16": Around(network().bfloat16(), before=lambda x: x.bfloat16()),
    }


@pytest.mark.parametrize("form", forms(network()))
def test_a_network_in_other_clothes_falls_as_it_does_itself(form):
    plain, other = found(network()), found(forms(network())[form])
    assert (plain.attacked == other.attacked).float().mean() >= 0.9
    assert other.flags == ()


@each_attack
def test_layouts_batches_of_one_and_flat_images_are_attacked(attack):
    net, dataset = network(), labelled(network())
    x, y = dataset.images, dataset.labels
    for images, labels in (
        (x.contiguous(memory_format=torch.channels_last), y),
        (x.transpose(2, 3), y),
        (x[:1], y[:1]),
        (torch.full_like(x[:3], 0.5), y[:3]),
    ):
        made = attack(net, images, labels)
        assert made.shape == images.shape
        assert made.isfinite().all()
        assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize(
    "search",
    [carlini.CarliniL2(iterations=20, binary_steps=2), l0.SigmaZero(steps=20)],
    ids=["C&W", "sigma-zero"],
)
def test_searches_for_the_smallest_change_pass_the_same_door(search):
    dataset = labelled(network())
    with pytest.raises(ValueError, match="not finite"):
        search(Around(network(), behind=lambda z: z * math.nan), dataset.images, dataset.labels)
