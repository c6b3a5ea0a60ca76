"""The recipes against the papers' tables."""

import math
from typing import Any

import pytest
import torch

from robustutils import models, recipes, registry, training
from robustutils.attacks import PGD
from robustutils.bounds import interval_margins
from robustutils.objectives import Adversarial, Certified, Clean, RampedAdversarial, Stages
from robustutils.papers.blind_spot import recipes as blind_spot_recipes
from robustutils.papers.blind_spot.dual import dual_margins
from robustutils.papers.blind_spot.objectives import Augmented, Wasserstein
from robustutils.papers.blind_spot.recipes import halved_after_a_third, kolter_wong, wrm
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.recipes import RECIPES, Recipe, recipe, recipe_in_seconds
from robustutils.threats import Linf

ALL = registry.names("recipes", RECIPES)
EAT = ("eat_a", "eat_b", "eat_b_star", "eat_c", "eat_d")


@pytest.mark.parametrize("name", EAT)
def test_eat_trains_standard_models_for_6_epochs_and_adversarial_ones_for_12(name):
    standard, adversarial = recipe(name), recipe(f"{name}_adv")
    assert standard == Recipe(
        architecture=name, objective=Clean(), epochs=6, batch_size=64, learning_rate=1e-3
    )
    assert adversarial == Recipe(
        architecture=name,
        objective=EnsembleAdversarial(eps=0.3, sources=()),
        epochs=12,
        batch_size=64,
        learning_rate=1e-3,
    )
    for one in (standard, adversarial):
        assert (one.dtype, one.max_gradient_norm) == (torch.float32, math.inf)
        assert [one.schedule(t) for t in (0.0, 0.5, 0.99)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("name", "eps"), [("madry_mnist", 0.3), ("madry_fashion_mnist", 0.1)])
def test_madry_trains_on_pgd_examples_alone_the_last_ones_of_40_steps(name, eps):
    one = recipe(name)
    assert (one.architecture, one.epochs, one.batch_size, one.learning_rate) == ("madry_mnist", 6, 128, 5e-3)
    assert one.schedule is training.warm_up_and_decay
    assert isinstance(one.objective, Stages)
    (_, ramped), *stages = one.objective.stages
    assert [end for end, _ in one.objective.stages] == pytest.approx([1 / 3, 0.9, 1.0])
    assert isinstance(ramped, RampedAdversarial)
    assert (ramped.eps, ramped.steps) == (eps, 3)
    for (_, objective), steps in zip(stages, (10, 40), strict=True):
        assert isinstance(objective, Adversarial)
        assert objective.clean == 0, "the loss holds adversarial images only"
        attack = objective.attack
        assert isinstance(attack, PGD)
        assert (attack.threat, attack.steps, attack.random_start) == (Linf(eps=eps), steps, True)
        assert attack.steps * attack.step_size > eps, "the walk does not reach the edge of the set"
    last: Any = attack
    assert last.step_size == pytest.approx(eps / 30)  # 0.01 at 0.3, as in the authors' code


def test_the_natural_network_is_madrys_on_clean_images():
    natural, robust = recipe("natural"), recipe("madry_mnist")
    assert natural.objective == Clean()
    assert (natural.architecture, natural.epochs, natural.batch_size) == ("madry_mnist", 6, 128)
    assert natural.schedule is robust.schedule


def test_kolter_wong_ends_on_the_dual_bound_at_the_full_radius():
    one = recipe("kolter_wong")
    assert (one.architecture, one.batch_size, one.learning_rate) == ("kolter_wong_small", 50, 1e-3)
    assert (one.epochs, one.schedule, one.dtype) == (12, training.late_decay, torch.float32)
    assert one.objective == Stages(
        (
            (0.95, Certified(margins=interval_margins, eps=0.05, start=0.0)),
            (1.0, Certified(margins=dual_margins, eps=0.1, start=0.1)),
        )
    )


def test_wrm_has_the_hyperparameters_of_the_authors_code():
    one = recipe("wrm_in_full")
    assert recipe("wrm") == one.replace(epochs=4), "shortened for two CPU cores, and nothing else"
    assert (one.architecture, one.epochs, one.batch_size, one.learning_rate) == ("wrm_mnist", 25, 256, 1e-3)
    assert [one.schedule(t) for t in (0.0, 0.5, 0.99)] == [1.0, 1.0, 1.0]
    assert one.objective == Wasserstein(c=1.3, steps=15, smoothing=0.1, dtype=torch.bfloat16)
    assert wrm().dtype == torch.float32
    assert wrm().objective == Wasserstein(c=1.3, steps=15, smoothing=0.1)


@pytest.mark.parametrize("in_full", [False, True])
@pytest.mark.parametrize(
    ("defence", "sets"),
    [
        ("natural", ("mnist", "fashion_mnist", "cifar10", "gtsrb", "gtsrb_half")),
        ("madry", ("mnist", "fashion_mnist", "cifar10", "gtsrb", "gtsrb_half")),
        ("kolter_wong", ("mnist", "fashion_mnist", "cifar10")),
        ("wrm", ("mnist", "fashion_mnist")),
    ],
)
def test_the_recipe_of_a_defence_takes_the_images_of_the_data_set(defence, sets, in_full):
    for dataset in sets:
        shape = (1, 28, 28) if dataset in ("mnist", "fashion_mnist") else (3, 32, 32)
        chosen = recipes.recipe_of(defence, dataset, in_full=in_full)
        net = models.build(chosen.architecture, classes=5).eval()
        assert net(torch.rand(2, *shape)).shape == (2, 5), f"{defence} on {dataset}"


def test_the_recipe_of_a_defence_is_the_data_sets_own_and_in_full_where_asked():
    of = recipes.recipe_of
    assert of("madry", "fashion_mnist") is recipe("madry_fashion_mnist")
    assert of("madry", "fashion_mnist", in_full=True) is recipe("madry_fashion_mnist_in_full")
    assert of("kolter_wong", "fashion_mnist", in_full=True) is recipe("kolter_wong_in_full")
    assert of("kolter_wong", "cifar10", in_full=True) is recipe("kolter_wong_cifar10")
    assert of("wrm", "mnist", in_full=True) is recipe("wrm_in_full")
    assert of("natural", "mnist", in_full=True) is recipe("natural_in_full")
    assert of("madry", "gtsrb_half") is recipe("madry_gtsrb")
    with pytest.raises(ValueError, match="defence 'madri'"):
        of("madri", "mnist")


def test_recipes_in_full_are_those_of_the_authors_code():
    for name, eps in (("madry_mnist_in_full", 0.3), ("madry_fashion_mnist_in_full", 0.1)):
        one = recipe(name)
        assert (one.epochs, one.batch_size, one.learning_rate) == (
            91,
            50,
            1e-4,
        )  # 100,100 steps on 55,000 images
        objective: Any = one.objective
        assert objective.clean == 0
        attack = objective.attack
        assert (attack.threat, attack.steps, attack.step_size, attack.random_start) == (
            Linf(eps=eps),
            40,
            0.01,
            True,
        )
    assert recipe("natural_in_full") == one.replace(objective=Clean())
    certified = recipe("kolter_wong_in_full")
    assert (certified.architecture, certified.epochs, certified.batch_size) == ("kolter_wong_small", 60, 50)
    assert (certified.learning_rate, certified.schedule) == (1e-3, halved_after_a_third)
    stages: Any = certified.objective
    (ramp_end, ramp), (_, full) = stages.stages
    assert ramp_end * certified.epochs == pytest.approx(20)
    assert ramp == Certified(margins=dual_margins, eps=0.1, start=0.01)
    assert full == Certified(margins=dual_margins, eps=0.1, start=0.1)


@pytest.mark.parametrize(("name", "flip"), [("cifar10", True), ("gtsrb", False)])
def test_colour_images_are_moved_and_attacked_at_8_of_255(name, flip):
    robust, natural = recipe(f"madry_{name}"), recipe(f"natural_{name}")
    assert (robust.architecture, robust.batch_size) == ("preact_resnet18", 128)
    assert isinstance(robust.objective, Augmented)
    assert (robust.objective.pad, robust.objective.flip) == (2, flip), (
        "mirrored traffic signs mean something else"
    )
    inner = robust.objective.objective
    assert isinstance(inner, Adversarial)
    assert inner.clean == 0
    attack: Any = inner.attack
    assert (attack.threat, attack.steps, attack.step_size, attack.random_start) == (
        Linf(eps=8 / 255),
        10,
        2 / 255,
        True,
    )
    assert natural == robust.replace(objective=Augmented(objective=Clean(), pad=2, flip=flip))


def test_kolter_wong_on_colour_images_is_certified_at_8_of_255():
    one = recipe("kolter_wong_cifar10")
    assert one == kolter_wong(8 / 255).replace(architecture="kolter_wong_cifar")
    objective: Any = one.objective
    assert objective.stages[-1][1].eps == 8 / 255


@pytest.mark.parametrize("name", ["madry_mnist", "kolter_wong", "wrm"])
def test_recipes_of_the_blind_spot_paper_take_a_step(name, digits):
    """One step at each stage, on few images: objective, architecture and precision fit together."""
    one, net = recipe(name), models.build(recipe(name).architecture).train()
    ends = [end for end, _ in one.objective.stages] if isinstance(one.objective, Stages) else [1.0]
    for end in ends:
        net.zero_grad()
        with torch.autocast("cpu", dtype=one.dtype, enabled=one.dtype != torch.float32):
            loss = one.objective(net, digits.images[:2], digits.labels[:2], end - 0.01)
        loss.backward()
        assert torch.isfinite(loss), end
        silent = [label for label, weight in net.named_parameters() if not weight.grad.abs().sum() > 0]
        assert silent == [], f"no gradient before {end}"


def test_every_recipe_names_an_architecture():
    known = registry.names("models", models.ARCHITECTURES)
    assert {recipe(name).architecture for name in ALL} <= set(known)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("eat_a_avd", r"did you mean 'eat_a_adv'\?"), ("zebra", "there are"), ("", "there are")],
)
def test_unknown_defence_is_refused_with_what_there_is(name, hint):
    with pytest.raises(ValueError, match=f"defence '{name}'.*{hint}") as error:
        recipe(name)
    assert all(known in str(error.value) for known in RECIPES)


def test_replace_changes_a_copy():
    assert recipe("eat_a").replace(epochs=1) == Recipe(
        architecture="eat_a", objective=Clean(), epochs=1, batch_size=64
    )
    assert recipe("eat_a").epochs == 6
    with pytest.raises(TypeError):
        recipe("eat_a").replace(epoch=1)


# ---- in seconds ----


def test_the_defences_of_quick_take_a_small_network_and_name_what_there_is():
    assert recipe_in_seconds("natural").objective == Clean()
    madry: Any = recipe_in_seconds("madry", 0.1).objective
    assert madry.eps == 0.1
    assert {recipe_in_seconds(name).architecture for name in ("natural", "madry")} == {"small_cnn"}
    assert blind_spot_recipes.recipe_in_seconds("wrm").epochs == 1
    assert blind_spot_recipes.recipe_in_seconds("natural") == recipe_in_seconds("natural")
    with pytest.raises(ValueError, match=r"'natura'.*'natural'"):
        recipe_in_seconds("natura")
