"""Results of attacks and rates: every rate has its own denominator, and no attack is taken at its word."""

import dataclasses
import functools
import logging
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustutils import bounds, evaluation, storage
from robustutils.artifacts import kept, later
from robustutils.attacks import FGSM, PGD, RFGSM, cross_entropy
from robustutils.data import Dataset
from robustutils.evaluation import (
    AttackResult,
    adversarial,
    certified,
    correct,
    evaluate,
    losses,
    losses_under,
)
from robustutils.statistics import Rate, wilson
from robustutils.threats import Linf, ThreatError

T, F = True, False


def verdicts(clean: list[bool], attacked: list[bool]) -> AttackResult:
    return AttackResult(torch.tensor(clean), torch.tensor(attacked))


# Ten inputs: six correct before and after, two fooled, one wrong throughout, one wrong that the attack repairs.
TEN = verdicts([T] * 8 + [F, F], [T] * 6 + [F, F] + [F, T])


# ---- rates ----


@pytest.mark.parametrize(("rate", "count", "n"), [
    ("error_rate", 3, 10),
    ("success_rate", 2, 8),
    ("robust_accuracy", 6, 10),
])  # fmt: skip
def test_every_rate_has_its_own_denominator(rate, count, n):
    assert getattr(TEN, rate)() == Rate(count, n)


def test_without_a_correct_input_there_is_no_success_rate():
    hopeless = verdicts([F] * 3, [F, F, T])
    with pytest.raises(ValueError, match="none of 3"):
        hopeless.success_rate()
    assert hopeless.error_rate() == Rate(2, 3)
    assert hopeless.robust_accuracy() == Rate(0, 3)


def test_a_rate_has_the_wilson_interval_and_says_so():
    rate = Rate(45, 1000)
    low, high = wilson(45, 1000)
    assert rate.percent == 4.5
    assert rate.interval == (100 * low, 100 * high)
    # Wilson 1927, worked by hand: (k + z^2 / 2 -+ z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2) with z = 1.959964
    assert rate.interval == pytest.approx((3.379, 5.970), abs=2e-3)
    assert str(rate) == "4.5% [3.4, 6.0]"
    assert Rate(0, 1000).interval == pytest.approx((0, 0.3827), abs=1e-3)
    assert Rate(7, 7).interval[1] == 100


def test_the_worst_case_of_two_attacks_is_taken_for_each_example():
    one = verdicts([T, T, T, F], [T, F, T, F])
    other = verdicts([T, T, T, F], [F, T, T, T])
    both = one & other
    assert both.clean.tolist() == [T, T, T, F]
    assert both.attacked.tolist() == [F, F, T, F]
    # Each attack alone leaves two of four robust; together they leave one: an average could not know.
    assert one.robust_accuracy() == other.robust_accuracy() == Rate(2, 4)
    assert both.robust_accuracy() == Rate(1, 4)


# ---- verdicts ----


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_correct_and_losses_are_those_of_one_forward_pass(tiny_data, tiny_net, batch_size, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", batch_size)
    net = tiny_net()
    with torch.no_grad():
        logits = net.eval()(tiny_data.images)
    net.train()
    hits = correct(net, tiny_data.images, tiny_data.labels)
    found = losses(net, tiny_data.images, tiny_data.labels)
    assert hits.dtype == torch.bool
    assert torch.equal(hits, logits.argmax(1) == tiny_data.labels)
    expected = nn.functional.cross_entropy(logits, tiny_data.labels, reduction="none")
    torch.testing.assert_close(found, expected)
    assert net.training, "the model gets its mode back"


@pytest.mark.parametrize("batch_size", [2, 14, 1000])
def test_loss_gradients_of_a_linear_model_are_known_in_closed_form(tiny_data, batch_size, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", batch_size)
    classes, pixels = len(tiny_data.classes), tiny_data.images[0].numel()
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(pixels, classes)).train()
    with torch.no_grad():
        found = evaluation.loss_gradients(net, tiny_data.images, tiny_data.labels)
        surplus = net.eval()(tiny_data.images).softmax(1) - nn.functional.one_hot(tiny_data.labels, classes)
        expected = (surplus @ net[2].weight).view_as(tiny_data.images)
    torch.testing.assert_close(found, expected)


def test_evaluation_judges_clean_and_attacked_images(digits, digits_net):
    data = digits.first(60)
    found = evaluate(digits_net, FGSM(eps=0.2), data)
    images = FGSM(eps=0.2)(digits_net, data.images, data.labels)
    assert torch.equal(found.clean, correct(digits_net, data.images, data.labels))
    assert torch.equal(found.attacked, correct(digits_net, images, data.labels))
    expected = losses(digits_net, images, data.labels)
    torch.testing.assert_close(losses_under(digits_net, FGSM(eps=0.2), data), expected)
    assert found.robust_accuracy().count < int(found.clean.sum()), "at eps 0.2 some digits must fall"


@pytest.mark.parametrize("attack", [
    FGSM(eps=0.15),
    RFGSM(eps=0.15),
    PGD(threat=Linf(eps=0.15), steps=3, step_size=0.05),
], ids=lambda attack: type(attack).__name__)  # fmt: skip
@pytest.mark.parametrize("batch_size", [9, 20])
def test_batches_do_not_change_verdicts(digits, digits_net, attack, batch_size):
    data = digits.first(60)
    whole = evaluate(digits_net, attack, data, batch_size=60)
    parts = evaluate(digits_net, attack, data, batch_size=batch_size)
    assert torch.equal(whole.clean, parts.clean)
    assert torch.equal(whole.attacked, parts.attacked)


@pytest.mark.parametrize(
    "made",
    [adversarial, losses_under, lambda *given, seed: later(evaluation.adversarial, *given, seed=seed)()],
)
def test_random_attacks_repeat_themselves_and_differ_with_the_seed(digits, digits_net, made):
    first, again, other = (
        made(digits_net, RFGSM(eps=0.15), digits.first(20), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# ---- attacks that misbehave ----


@dataclass(frozen=True)
class Shift:
    """Adds a constant and claims to have moved at most ``eps``; runs out of memory above ``room`` images."""

    by: float
    eps: float = 0.1
    room: int = 10**9

    @property
    def threat(self) -> Linf:
        return Linf(eps=self.eps)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        # drawn before the memory runs out, to see that a repeated batch draws the same
        noise = torch.rand(x.shape, generator=generator)
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x + self.by * noise


@pytest.fixture
def dark(tiny_data) -> Dataset:
    """The tiny images at half brightness, so that nothing leaves the box."""
    pixels = (tiny_data.images * 127).to(torch.uint8)
    return Dataset.from_pixels("dark", "train", pixels, tiny_data.labels, tiny_data.classes)


@pytest.mark.parametrize(("attack", "message"), [
    (Shift(by=0.3), r"0\.29\d+ in Linf.* 0\.1"),
    (Shift(by=float("nan")), "not finite"),
    (Shift(by=0.9, eps=1.0), r"box.*\[0\.\d+, 1\.\d+\]"),
])  # fmt: skip
def test_an_attack_that_cheats_is_caught_and_nothing_is_cached(attack, message, dark, tiny_net, cache):
    with pytest.raises(ThreatError, match=message):
        evaluate(tiny_net(), attack, dark)
    assert not list(cache.glob("*.safetensors"))


def test_running_out_of_memory_halves_the_batch_and_says_so(dark, tiny_net, caplog):
    with caplog.at_level(logging.WARNING):
        images = adversarial(tiny_net(), Shift(by=0.1, room=12), dark, batch_size=40)
    assert [record.message for record in caplog.records] == [
        "out of memory on cpu: going on with batches of 20",
        "out of memory on cpu: going on with batches of 10",
    ]
    # The batch that ran out is attacked again with the same random numbers.
    assert torch.equal(images, adversarial(tiny_net(), Shift(by=0.1), dark, batch_size=10))
    assert images.shape == dark.images.shape


def test_running_out_of_memory_with_single_images_is_an_error(dark, tiny_net):
    with pytest.raises(torch.OutOfMemoryError):
        adversarial(tiny_net(), Shift(by=0.1, room=0), dark, batch_size=2)


# ---- the cache of verdicts ----


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The attacks that were computed, not answered from the cache."""
    made: list[str] = []
    real = evaluation.adversarial

    @functools.wraps(real)
    def counted(model, attack, dataset, **settings):
        made.append(type(attack).__name__)
        return real(model, attack, dataset, **settings)

    monkeypatch.setattr(evaluation, "adversarial", counted)
    return made


def test_a_second_evaluation_is_answered_from_the_cache(tiny_data, tiny_net, calls):
    first = evaluate(tiny_net(), FGSM(eps=0.1), tiny_data)
    second = evaluate(tiny_net(), FGSM(eps=0.1), tiny_data)
    assert calls == ["FGSM"]
    assert torch.equal(first.attacked, second.attacked)
    assert torch.equal(first.clean, second.clean)
    assert second.clean.dtype == second.attacked.dtype == torch.bool
    reached = [losses_under(tiny_net(), FGSM(eps=0.1), tiny_data) for _ in range(2)]
    assert calls == ["FGSM", "FGSM"], "losses are artifacts of their own"
    assert torch.equal(*reached)


CHANGES = {
    "radius": {"attack": FGSM(eps=0.2)},
    "attack": {"attack": RFGSM(eps=0.1)},
    "images": {"examples": 30},
    "seed": {"seed": 1},
    "weights": {"net_seed": 1},
    "activation": {"activation": nn.Tanh()},  # the same weights, another function
    "another step": {"attack": PGD(threat=Linf(eps=0.1), steps=2, step_size=0.05, drop_fooled=False)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_could_change_a_verdict_is_computed_anew(tiny_data, tiny_net, calls, change):
    def verdict(attack=FGSM(eps=0.1), examples=50, seed=0, net_seed=0, activation=None):  # noqa: B008
        net = tiny_net(net_seed)
        net[1] = activation or net[1]
        return evaluate(net, attack, tiny_data.first(examples), seed=seed)

    verdict()
    verdict(**change)
    assert len(calls) == 2
    verdict(**change)
    assert len(calls) == 2


NOTEBOOK = """
class Own(nn.Module):
    def __init__(self, sign=1):
        super().__init__()
        self.dense, self.sign = nn.Linear(64, 3), sign

    def forward(self, x):
        return SIGN * self.sign * self.dense(x.flatten(1))
"""


def own(sign: int, name: str = "__main__", attribute: int = 1) -> nn.Module:
    """A model of the user's, of the same weights: typed into a notebook (``__main__``) or from a module."""
    scope = {"nn": nn, "__name__": name}  # as in Jupyter: a class without a file
    exec(NOTEBOOK.replace("SIGN", str(sign)), scope)
    torch.manual_seed(0)
    return scope["Own"](attribute)


@pytest.mark.parametrize("name", ["__main__", "my_models", "robustutils_of_mine", None])
def test_models_of_the_users_are_never_mistaken_for_one_another(name, tiny_data, cache):
    attack = FGSM(eps=0.1)
    for pair in ([own(1, name), own(-1, name)], [own(1, name), own(1, name, attribute=-1)]):
        plus, minus = (losses_under(net, attack, tiny_data) for net in pair)
        assert not torch.equal(plus, minus)
        for net, found in zip(pair, (plus, minus), strict=True):
            images = adversarial(net, attack, tiny_data)
            assert torch.equal(found, losses(net, images, tiny_data.labels))
            assert torch.equal(
                evaluate(net, attack, tiny_data).attacked, correct(net, images, tiny_data.labels)
            )
    assert not list(cache.glob("*.safetensors")), "what has no name was kept"


def half_of_it(logits: Tensor, y: Tensor) -> Tensor:
    """A loss of the user's."""
    return cross_entropy(logits, y) / 2


def with_hook(net: nn.Sequential, sign: int) -> nn.Sequential:
    net.register_forward_hook(lambda module, inputs, output: sign * output)
    return net


def with_forward_of_its_own(net: nn.Sequential, sign: int) -> nn.Sequential:
    forward = net.forward
    net.forward = lambda x: sign * forward(x)
    return net


@pytest.mark.parametrize("change", [with_hook, with_forward_of_its_own])
def test_networks_with_code_of_their_own_are_computed_at_every_call(change, tiny_data, tiny_net, cache):
    found = [losses_under(change(tiny_net(), sign), FGSM(eps=0.1), tiny_data) for sign in (1, -1)]
    assert not torch.equal(*found)
    assert not list(cache.glob("*.safetensors"))


def test_attacks_and_losses_of_the_users_are_computed_at_every_call(dark, tiny_net, calls, cache):
    pgd = PGD(threat=Linf(eps=0.1), steps=1, step_size=0.1, loss=half_of_it)
    for attack in (Shift(by=0.1), pgd):
        assert torch.equal(*(evaluate(tiny_net(), attack, dark).attacked for _ in range(2)))
        assert torch.equal(*(later(evaluation.adversarial, tiny_net(), attack, dark)() for _ in range(2)))
    assert calls == ["Shift"] * 4 + ["PGD"] * 4
    assert not list(cache.glob("*.safetensors"))


def test_crafted_examples_are_those_of_adversarial_and_kept(digits_net, digits, cache, calls):
    few, attack = digits.first(40), FGSM(eps=0.1)
    first = later(evaluation.adversarial, digits_net, attack, few)
    assert calls == [], "nothing is made before it is called for"
    assert torch.equal(first(), adversarial(digits_net, attack, few))
    assert len(list(cache.glob("adversarial-*.safetensors"))) == 1
    calls.clear()
    assert torch.equal(later(evaluation.adversarial, digits_net, attack, few)(), first())
    assert calls == [], "it was made again"
    assert not torch.equal(later(evaluation.adversarial, digits_net, FGSM(eps=0.2), few)(), first())


def test_verdicts_on_crafted_images_need_the_images_only_once(digits_net, digits, calls):
    few, attack = digits.first(40), FGSM(eps=0.2)
    expected = correct(digits_net, adversarial(digits_net, attack, few), few.labels)
    calls.clear()
    for _ in range(2):
        images = later(evaluation.adversarial, digits_net, attack, few)
        assert torch.equal(kept(correct, digits_net, images, few.labels), expected)
    assert calls == ["FGSM"]
    storage.folder().joinpath(f"{images.key}.safetensors").unlink()
    assert torch.equal(
        kept(correct, digits_net, later(evaluation.adversarial, digits_net, attack, few), few.labels),
        expected,
    )
    assert calls == ["FGSM"], "images were made again for verdicts that are there"


def test_judged_verdicts_are_those_of_correct_and_kept(digits_net, digits, cache):
    images, labels = digits.images[:40], digits.labels[:40]
    expected = correct(digits_net, images, labels)
    assert torch.equal(kept(correct, digits_net, images, labels), expected)
    (path,) = cache.glob("correct-*")
    before = path.stat().st_mtime_ns
    assert torch.equal(kept(correct, digits_net, images, labels), expected)
    assert path.stat().st_mtime_ns == before, "it was judged again"
    wrong = (labels + 1) % 10
    assert torch.equal(kept(correct, digits_net, images, wrong), correct(digits_net, images, wrong))
    assert torch.equal(kept(correct, digits_net, 1 - images, labels), correct(digits_net, 1 - images, labels))


def test_certified_images_are_those_whose_margins_are_all_positive(digits, digits_net, cache):
    some, eps = digits.first(120), 0.02
    low, high = (some.images - eps).clamp(0, 1), (some.images + eps).clamp(0, 1)
    margins = bounds.interval_margins(digits_net, low, high, some.labels)
    others = torch.ones_like(margins, dtype=torch.bool).scatter(1, some.labels[:, None], False)
    expected = torch.stack([row[kept].min() > 0 for row, kept in zip(margins, others, strict=True)])
    found = certified(digits_net, bounds.interval_margins, some, eps=eps)
    assert torch.equal(found, expected)
    assert 0 < found.sum() < len(found), "a radius at which some are certified and some are not"
    assert not (found & ~correct(digits_net, some.images, some.labels)).any()
    assert len(list(cache.glob("certified-*.safetensors"))) == 1, "kept"
    assert torch.equal(certified(digits_net, bounds.interval_margins, some, eps=eps), found)


def test_places_are_those_of_the_first_images_that_all_models_classify_correctly(digits, digits_net):
    few = digits.first(60)
    found = evaluation.places_of_correct([digits_net], few, 10)
    right = evaluation.correct(digits_net, few.images, few.labels)
    assert found.tolist() == right.nonzero().flatten()[:10].tolist()
    wrong = dataclasses.replace(few, labels=(few.labels + 1) % 10)
    with pytest.raises(ValueError, match="no image of 60"):
        evaluation.places_of_correct([digits_net], wrong.changed(few.images), 10)
