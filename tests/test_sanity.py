"""Relations that hold in any sound evaluation, the count of passes, and AutoAttack from the peer library."""

import re

import pytest
import torch
from torch import nn

from robustutils import sanity
from robustutils.evaluation import AttackResult, evaluate
from robustutils.papers.ensemble.objectives import share_of_own_steps
from robustutils.sanity import AutoAttack, SanityError
from robustutils.statistics import Rate
from robustutils.threats import Linf


def verdicts(fooled: int, n: int = 200) -> AttackResult:
    return AttackResult(torch.ones(n, dtype=torch.bool), torch.arange(n) >= fooled)


def test_a_condition_that_does_not_hold_stops_with_its_message_also_without_assertions():
    sanity.hold(True, "never said")
    with pytest.raises(SanityError, match=r"PGD.*certified"):
        sanity.hold(False, "PGD broke a certified image")


@pytest.mark.parametrize(("counts", "sound"), [
    ((10, 20, 60), True),
    ((10, 9, 60), True),  # an image that happens to be lucky
    ((10, 20, 17), False),
    ((10,), True),
    ((), True),
])  # fmt: skip
def test_a_larger_radius_must_not_make_an_attack_weaker(counts, sound):
    rates = [Rate(count, 100) for count in counts]
    if sound:
        sanity.check_rising(rates, "PGD on A")
    else:
        with pytest.raises(SanityError, match=r"PGD on A.*20.0%.*17.0%"):
            sanity.check_rising(rates, "PGD on A")


def test_an_attack_that_knows_less_must_not_lead_by_much():
    table = sanity.check_not_beaten(verdicts(40), {"transfer": verdicts(20), "twice": verdicts(42)})
    assert [row[0] for row in table.rows] == ["the attack of this chapter", "transfer", "twice"]
    assert table.rows[1][2].startswith("-10.0 [")
    with pytest.raises(SanityError, match=r"transfer.* 20"):
        sanity.check_not_beaten(verdicts(40), {"transfer": verdicts(80)})
    sanity.check_not_beaten(verdicts(40), {"transfer": verdicts(80)}, slack=100)


@pytest.mark.parametrize("sources", [1, 3])
def test_ensemble_training_takes_its_own_examples_in_every_nth_batch(sources):
    found = share_of_own_steps(sources, torch.rand(1, 1, 4, 4), torch.tensor([3]), batches=600)
    assert found.ci95[0] <= 1 / (1 + sources) <= found.ci95[1]
    assert found.n == 600


def test_autoattack_finds_what_a_linear_model_allows_and_stays_in_its_ball(digits, digits_net):
    pytest.importorskip("torchattacks", reason="the peer library torchattacks is not installed")
    few = digits.first(6)
    attack = AutoAttack(threat=Linf(eps=0.2), classes=10, steps=3, queries=5)
    found = evaluate(digits_net, attack, few, batch_size=6)
    assert found.success_rate().count > 0


def test_the_peer_is_asked_for_its_stages_with_the_attacks_settings(monkeypatch):
    made = []

    class Stages:
        """Stands in for torchattacks: every stage moves far out of the ball."""

        def __getattr__(self, name):
            def stage(*arguments, **settings):
                made.append((name, settings))
                return lambda x, y: x + 0.9

            return stage

    monkeypatch.setitem(__import__("sys").modules, "torchattacks", Stages())
    x = torch.full((2, 1, 2, 2), 0.5)
    found = AutoAttack(threat=Linf(eps=0.1), classes=10)(nn.Flatten(), x, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.full_like(x, 0.6))
    assert [name for name, _ in made] == ["APGD", "APGDT", "FAB", "Square", "MultiAttack"]
    assert made[1][1] == {"eps": 0.1, "steps": 100, "n_classes": 10}
    assert made[3][1] == {"eps": 0.1, "n_queries": 5000}


def test_whether_the_peer_is_there_is_asked_without_importing_it(monkeypatch):
    monkeypatch.setattr(sanity.importlib.util, "find_spec", lambda name: None)
    assert not AutoAttack.is_installed()
    assert re.search("torchattacks", AutoAttack.__doc__ or "")
