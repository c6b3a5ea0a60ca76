"""The attack for those who do not choose one: what it finds, who its referee is, and what the front door says with it."""

import pytest
import torch
from torch import Tensor, nn

from robustutils import attacks, data, evaluation, models
from robustutils.default_attack import DefaultAttack
from robustutils.threats import L2, Linf


@pytest.fixture(scope="module")
def letters() -> data.Dataset:
    return data.load("digits", "test").first(60)


class Rounded(nn.Module):
    """A network behind pixels in eight steps, whose gradient is zero everywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((8 * x).round() / 8)


def test_it_finds_no_less_than_a_single_run_of_it(letters):
    net = models.published("small_cnn")
    few = DefaultAttack(threat=Linf(eps=0.08), rounds=1, queries=1)
    robust = {
        name: evaluation.evaluate(net, attack, letters).robust_accuracy().count
        for name, attack in {"one": few.ascent, "all": DefaultAttack(threat=Linf(eps=0.08))}.items()
    }
    assert robust["all"] <= robust["one"]
    assert 0 < robust["one"] < len(letters), "the radius leaves nothing to compare"


def test_the_call_finds_what_its_two_attacks_find(letters):
    net, attack = models.published("small_cnn"), DefaultAttack(threat=Linf(eps=0.08), rounds=2, queries=20)
    images = attack(net, letters.images, letters.labels)
    assert float((images - letters.images).abs().max()) <= 0.08 + 1e-6
    stages = attacks.WorstOf(attacks=(attack.ascent, attack.referee))
    assert torch.equal(images, stages(net, letters.images, letters.labels))


def test_a_referee_who_does_better_than_the_gradient_is_heard(letters):
    verdicts = evaluation.evaluate(
        Rounded(models.published("small_cnn")), DefaultAttack(threat=Linf(eps=0.3), rounds=1), letters
    )
    assert any("the square attack fools" in flag for flag in verdicts.flags), verdicts.flags
    plain = evaluation.evaluate(
        Rounded(models.published("small_cnn")), DefaultAttack(threat=Linf(eps=0.3)).ascent, letters
    )
    assert verdicts.robust_accuracy().count < plain.robust_accuracy().count, "what it found counts"


def test_robust_accuracy_is_that_of_the_default_attack(letters):
    net = models.published("small_cnn")
    rate = evaluation.robust_accuracy(net, letters, eps=0.08)
    asked = evaluation.evaluate(net, DefaultAttack(threat=Linf(eps=0.08)), letters)
    assert rate == asked.robust_accuracy()
    assert (rate.n, rate.flags) == (60, ())


def test_in_l2_there_is_no_referee_and_at_radius_zero_nothing_moves(letters):
    net = models.published("small_cnn")
    assert DefaultAttack(threat=L2(eps=1.0)).referee is None
    clean = int(evaluation.correct(net, letters.images, letters.labels).sum())
    assert 0 < evaluation.robust_accuracy(net, letters, eps=0.5, norm=L2).count < clean
    assert evaluation.robust_accuracy(net, letters, eps=0.0).count == clean


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("rounds", 0), ("queries", 0)])
def test_settings_out_of_range_are_refused_when_it_is_made(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        DefaultAttack(threat=Linf(eps=0.1), **{name: value})
