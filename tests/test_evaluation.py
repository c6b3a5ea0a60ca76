"""Verdicts and rates: every rate has its own denominator, and no attack is taken at its word."""

import logging
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from robustutils import bounds, evaluation
from robustutils.attacks import FGSM, PGD, RFGSM
from robustutils.data import Dataset
from robustutils.evaluation import (
    Rate,
    Verdicts,
    adversarial,
    certified,
    correct,
    crafted,
    evaluate,
    judged,
    losses,
)
from robustutils.intervals import wilson
from robustutils.threats import Linf, ThreatError

T, F = True, False


def verdicts(clean: list[bool], attacked: list[bool], loss: list[float] | None = None) -> Verdicts:
    return Verdicts(torch.tensor(clean), torch.tensor(attacked), torch.tensor(loss or [0.0] * len(clean)))


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
    with pytest.raises(ValueError, match="none of 3 inputs is classified correctly"):
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
    one = verdicts([T, T, T, F], [T, F, T, F], [0.1, 2.0, 0.3, 3.0])
    other = verdicts([T, T, T, F], [F, T, T, T], [1.5, 0.2, 0.4, 0.1])
    both = one & other
    assert both.clean.tolist() == [T, T, T, F]
    assert both.attacked.tolist() == [F, F, T, F]
    assert both.losses.tolist() == pytest.approx([1.5, 2.0, 0.4, 3.0])
    # Each attack alone leaves two of four robust; together they leave one: an average could not know.
    assert one.robust_accuracy() == other.robust_accuracy() == Rate(2, 4)
    assert both.robust_accuracy() == Rate(1, 4)


# ---- verdicts ----


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_correct_and_losses_are_those_of_one_forward_pass(tiny_data, tiny_net, batch_size):
    net = tiny_net()
    with torch.no_grad():
        logits = net.eval()(tiny_data.images)
    net.train()
    hits = correct(net, tiny_data.images, tiny_data.labels, batch_size=batch_size)
    found = losses(net, tiny_data.images, tiny_data.labels, batch_size=batch_size)
    assert hits.dtype == torch.bool
    assert torch.equal(hits, logits.argmax(1) == tiny_data.labels)
    expected = nn.functional.cross_entropy(logits, tiny_data.labels, reduction="none")
    torch.testing.assert_close(found, expected)
    assert net.training, "the model gets its mode back"


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_loss_gradients_of_a_linear_model_are_known_in_closed_form(tiny_data, batch_size):
    classes, pixels = len(tiny_data.classes), tiny_data.images[0].numel()
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(pixels, classes)).train()
    with torch.no_grad():
        found = evaluation.loss_gradients(net, tiny_data.images, tiny_data.labels, batch_size=batch_size)
        surplus = net.eval()(tiny_data.images).softmax(1) - nn.functional.one_hot(tiny_data.labels, classes)
        expected = (surplus @ net[2].weight).view_as(tiny_data.images)
    torch.testing.assert_close(found, expected)


def test_evaluation_judges_clean_and_attacked_images_and_both_losses(digits, digits_net):
    data = digits.first(60)
    found = evaluate(digits_net, FGSM(eps=0.2), data)
    images = FGSM(eps=0.2)(digits_net, data.images, data.labels)
    assert torch.equal(found.clean, correct(digits_net, data.images, data.labels))
    assert torch.equal(found.attacked, correct(digits_net, images, data.labels))
    torch.testing.assert_close(found.losses, losses(digits_net, images, data.labels))
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
    torch.testing.assert_close(whole.losses, parts.losses, rtol=1e-3, atol=1e-4)


def test_random_attacks_repeat_themselves_and_differ_with_the_seed(digits, digits_net):
    data = digits.first(20)
    attack = RFGSM(eps=0.15)
    first, again, other = (adversarial(digits_net, attack, data, seed=seed) for seed in (0, 0, 1))
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
    (Shift(by=0.3), r"moved 0\.29\d+ in Linf, allowed 0\.1"),
    (Shift(by=float("nan")), "not finite"),
    (Shift(by=0.9, eps=1.0), r"left the box: pixels in \[0\.\d+, 1\.\d+\]"),
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

    def counted(model, attack, dataset, **settings):
        made.append(type(attack).__name__)
        return real(model, attack, dataset, **settings)

    counted.__module__, counted.__qualname__ = "tests", "counted"
    monkeypatch.setattr(evaluation, "adversarial", counted)
    monkeypatch.setattr(evaluation.artifacts, "code_hash", lambda *roots: "the same code")
    return made


def test_a_second_evaluation_is_answered_from_the_cache(tiny_data, tiny_net, calls):
    first = evaluate(tiny_net(), FGSM(eps=0.1), tiny_data)
    second = evaluate(tiny_net(), FGSM(eps=0.1), tiny_data)
    assert calls == ["FGSM"]
    assert torch.equal(first.attacked, second.attacked)
    assert torch.equal(first.losses, second.losses)
    assert second.clean.dtype == torch.bool


CHANGES = {
    "radius": {"attack": FGSM(eps=0.2)},
    "attack": {"attack": RFGSM(eps=0.1)},
    "images": {"examples": 30},
    "seed": {"seed": 1},
    "weights": {"net_seed": 1},
    "activation": {"activation": nn.Tanh()},  # the same weights, another function
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
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 3)

    def forward(self, x):
        return SIGN * self.dense(x.flatten(1))
"""


def test_a_model_that_was_typed_into_a_notebook_is_evaluated_and_never_mistaken_for_another(
    tiny_data, monkeypatch
):
    def own(sign: int) -> nn.Module:
        scope = {"nn": nn, "__name__": "__main__"}  # as in Jupyter: a class without a file
        exec(NOTEBOOK.replace("SIGN", str(sign)), scope)
        torch.manual_seed(0)
        return scope["Own"]()

    monkeypatch.delattr("__main__.__file__", raising=False)
    plus, minus = (evaluate(own(sign), FGSM(eps=0.1), tiny_data) for sign in (1, -1))
    assert not torch.equal(plus.losses, minus.losses)


def test_crafted_examples_are_those_of_adversarial_and_kept(digits_net, digits, cache):
    few, attack = digits.first(40), FGSM(eps=0.1)
    first = crafted(digits_net, attack, few)
    assert torch.equal(first, adversarial(digits_net, attack, few))
    (path,) = cache.glob("examples-fgsm-*")
    before = path.stat().st_mtime_ns
    assert torch.equal(crafted(digits_net, attack, few), first)
    assert path.stat().st_mtime_ns == before, "it was made again"
    assert not torch.equal(crafted(digits_net, FGSM(eps=0.2), few), first)


def test_judged_verdicts_are_those_of_correct_and_kept(digits_net, digits, cache):
    images, labels = digits.images[:40], digits.labels[:40]
    expected = correct(digits_net, images, labels)
    assert torch.equal(judged(digits_net, images, labels), expected)
    (path,) = cache.glob("judged-*")
    before = path.stat().st_mtime_ns
    assert torch.equal(judged(digits_net, images, labels), expected)
    assert path.stat().st_mtime_ns == before, "it was judged again"
    wrong = (labels + 1) % 10
    assert torch.equal(judged(digits_net, images, wrong), correct(digits_net, images, wrong))
    assert torch.equal(judged(digits_net, 1 - images, labels), correct(digits_net, 1 - images, labels))


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
