"""The networks of a run by name and seed: which are there, which are absent, and what is measured on them."""

import pytest
import torch

from robustutils import storage
from robustutils.artifacts import Absent, shelf
from robustutils.networks import Network, halves
from robustutils.objectives import Clean
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.papers.ensemble.recipes import with_sources
from robustutils.recipes import Recipe

ONCE = Recipe(architecture="eat_d", objective=Clean(), epochs=1, batch_size=64)
SINGLE_STEP = ONCE.replace(objective=EnsembleAdversarial(eps=0.3))

pytestmark = pytest.mark.usefixtures("weights")


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(128)


def publish(weights, network: Network) -> None:
    model = network._fresh()
    storage.write(weights / f"{network.seed}.safetensors", network.name, halves(model), certificate={})


def test_what_a_run_does_not_have_is_absent(few):
    family = Family(few, [0, 1])
    family.train({"a": [0, 1, 2]}, lambda name, seed: ONCE)
    assert family["a", 2].seed == 2, "others may attack or help to train"
    for name, seed in (("b", 0), ("a", 3)):
        with pytest.raises(Absent, match=f"{name!r} of seed {seed}"):
            family[name, seed]
    with pytest.raises(Absent, match="'b'"):
        family.outcomes("b", lambda seed: torch.ones(1))


def test_where_nothing_is_trained_a_network_that_is_not_published_is_absent(few, weights):
    publish(weights, Network(ONCE, few))
    shelf.frozen = True
    family = Family(few, [0, 1])
    family.train({"a": [0, 1], "b": [0]}, lambda name, seed: ONCE if name == "a" else SINGLE_STEP)
    assert family["a", 0].name == Network(ONCE, few).name
    assert [family.there("a", seed) for seed in (0, 1)] == [True, False]
    with pytest.raises(Absent, match="'a' of seed 1"):
        family.outcomes("a", lambda seed: torch.tensor([family["a", seed].seed]))
    assert family.seeds_of("a") == [0, 1], "its second seed is measured too"
    assert [name for name in "ab" if name in family] == []
    of_one = Family(few, [0])
    of_one.train({"a": [0, 1], "b": [0]}, lambda name, seed: ONCE if name == "a" else SINGLE_STEP)
    assert [name for name in "ab" if name in of_one] == ["a"]


def test_without_its_static_source_an_ensemble_is_absent(few):
    shelf.frozen = True
    family = Family(few, [0])
    family.train({"a": [1]}, lambda name, seed: ONCE)
    family.train({"ens": [0]}, lambda name, seed: with_sources(SINGLE_STEP, [family["a", 1]]))
    assert (family.there("ens", 0), "ens" in family, family.seeds_of("ens")) == (False, False, [0])


def test_attackers_and_static_sources_have_other_seeds_than_the_model():
    family = Family.__new__(Family)
    for seeds, roles in (([5], [5, 6, 7]), ([0, 1, 2, 3], [0, 1, 2, 3])):
        family.seeds = seeds
        assert family.roles == roles
        for seed in seeds:
            assert len({seed, family.other(seed), family.other(seed, 2)}) == 3
    assert [family.other(seed) for seed in range(4)] == [1, 2, 3, 0]


def test_a_family_stacks_what_each_measured_seed_gives(few):
    family = Family(few, [0, 1])
    family.train({"a": [0, 1, 5]}, lambda name, seed: ONCE)
    outcomes = family.outcomes("a", lambda seed: torch.tensor([seed == 0, True]))
    assert (outcomes.seeds, outcomes.values.tolist()) == ((0, 1), [[True, True], [False, True]])
