"""The recipes against the papers' tables, and training that is cached, resumed and never half done."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import defences, models, training
from robustutils.artifacts import CacheError
from robustutils.attacks import PGD
from robustutils.bounds import dual_margins, interval_margins
from robustutils.defences import (
    RECIPES,
    Recipe,
    recipe,
    train,
    train_all,
    with_sources,
)
from robustutils.objectives import (
    Adversarial,
    Augmented,
    Certified,
    Clean,
    EnsembleAdversarial,
    RampedAdversarial,
    Stages,
    Wasserstein,
)
from robustutils.threats import Linf

EAT = ("eat_a", "eat_b", "eat_b_star", "eat_c", "eat_d")
TINY = Recipe(architecture="eat_d", objective=Clean(), epochs=2, batch_size=64)


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(128)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def epochs_run(caplog) -> int:
    """How many epochs were trained since the last call."""
    count = sum(record.getMessage().startswith("epoch ") for record in caplog.records)
    caplog.clear()
    return count


# ---- the recipes ----


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
    assert attack.step_size == pytest.approx(eps / 30)  # 0.01 at 0.3, as in the authors' code


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
    assert defences.wrm().dtype == torch.float32
    assert defences.wrm().objective == Wasserstein(c=1.3, steps=15, smoothing=0.1)


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
        chosen = defences.recipe_of(defence, dataset, in_full=in_full)
        net = models.build(chosen.architecture, classes=5).eval()
        assert net(torch.rand(2, *shape)).shape == (2, 5), f"{defence} on {dataset}"


def test_the_recipe_of_a_defence_is_the_data_sets_own_and_in_full_where_asked():
    of = defences.recipe_of
    assert of("madry", "fashion_mnist") is recipe("madry_fashion_mnist")
    assert of("madry", "fashion_mnist", in_full=True) is recipe("madry_fashion_mnist_in_full")
    assert of("kolter_wong", "fashion_mnist", in_full=True) is recipe("kolter_wong_in_full")
    assert of("kolter_wong", "cifar10", in_full=True) is recipe("kolter_wong_cifar10")
    assert of("wrm", "mnist", in_full=True) is recipe("wrm_in_full")
    assert of("natural", "mnist", in_full=True) is recipe("natural_in_full")
    assert of("madry", "gtsrb_half") is recipe("madry_gtsrb")
    with pytest.raises(ValueError, match="unknown defence 'madri'"):
        of("madri", "mnist")


def test_recipes_in_full_are_those_of_the_authors_code():
    for name, eps in (("madry_mnist_in_full", 0.3), ("madry_fashion_mnist_in_full", 0.1)):
        one = recipe(name)
        assert (one.epochs, one.batch_size, one.learning_rate) == (
            91,
            50,
            1e-4,
        )  # 100,100 steps on 55,000 images
        assert one.objective.clean == 0
        attack = one.objective.attack
        assert (attack.threat, attack.steps, attack.step_size, attack.random_start) == (
            Linf(eps=eps),
            40,
            0.01,
            True,
        )
    assert recipe("natural_in_full") == one.replace(objective=Clean())
    certified = recipe("kolter_wong_in_full")
    assert (certified.architecture, certified.epochs, certified.batch_size) == ("kolter_wong_small", 60, 50)
    assert (certified.learning_rate, certified.schedule) == (1e-3, training.halved_after_a_third)
    (ramp_end, ramp), (_, full) = certified.objective.stages
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
    attack = inner.attack
    assert (attack.threat, attack.steps, attack.step_size, attack.random_start) == (
        Linf(eps=8 / 255),
        10,
        2 / 255,
        True,
    )
    assert natural == robust.replace(objective=Augmented(objective=Clean(), pad=2, flip=flip))


def test_kolter_wong_on_colour_images_is_certified_at_8_of_255():
    one = recipe("kolter_wong_cifar10")
    assert one == defences.kolter_wong(8 / 255).replace(architecture="kolter_wong_cifar")
    assert one.objective.stages[-1][1].eps == 8 / 255


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
    assert {one.architecture for one in RECIPES.values()} <= set(models.ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("eat_a_avd", r"did you mean 'eat_a_adv'\?"), ("zebra", "there are"), ("", "there are")],
)
def test_unknown_defence_is_refused_with_what_there_is(name, hint):
    with pytest.raises(ValueError, match=f"unknown defence '{name}'.*{hint}") as error:
        recipe(name)
    assert all(known in str(error.value) for known in RECIPES)


def test_replace_changes_a_copy():
    assert recipe("eat_a").replace(epochs=1) == Recipe(
        architecture="eat_a", objective=Clean(), epochs=1, batch_size=64
    )
    assert recipe("eat_a").epochs == 6
    with pytest.raises(TypeError):
        recipe("eat_a").replace(epoch=1)


# ---- static sources ----


def test_static_sources_are_copies_with_dropout_that_do_not_learn():
    source = models.build("eat_d").eval()
    made = with_sources(recipe("eat_d_adv"), [source])
    (static,) = made.objective.sources
    assert static is not source
    assert static.training
    assert not source.training
    assert not any(parameter.requires_grad for parameter in static.parameters())
    assert all(parameter.requires_grad for parameter in source.parameters())
    assert same_weights(static, source)
    assert made.replace(objective=recipe("eat_d_adv").objective) == recipe("eat_d_adv")


@pytest.mark.parametrize(("name", "sources"), [("eat_d_adv", 0), ("eat_d", 1)])
def test_ensemble_training_needs_sources_and_single_steps(name, sources):
    with pytest.raises(ValueError, match=f"{sources} sources for"):
        with_sources(recipe(name), [models.build("eat_d")] * sources)


def test_a_model_depends_on_its_static_sources(few):
    base = TINY.replace(objective=EnsembleAdversarial(eps=0.3), epochs=1)
    made = [train(with_sources(base, [models.build("eat_d", seed=seed)]), few) for seed in (1, 2, 1)]
    assert not same_weights(made[0], made[1])
    assert same_weights(made[0], made[2])


# ---- training ----


def test_train_is_a_seeded_fit_in_evaluation_mode(few):
    expected = training.fit(models.build("eat_d", seed=3), few, Clean(), epochs=2, batch_size=64, seed=3)
    found = train(TINY, few, seed=3)
    assert same_weights(found, expected)
    assert not any(part.training for part in found.modules())


def test_train_passes_every_setting_on(few, monkeypatch):
    seen = {}

    def fit(model, dataset, objective, **settings):
        seen.update(settings, objective=objective)
        return model

    monkeypatch.setattr(training, "fit", fit)
    one = TINY.replace(
        objective=EnsembleAdversarial(eps=0.1),
        learning_rate=0.5,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=2.0,
        dtype=torch.bfloat16,
    )
    train(one, few, seed=7)
    assert seen.pop("checkpoint").suffix == ".checkpoint"
    assert seen == {
        "objective": one.objective,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.5,
        "schedule": training.warm_up_and_decay,
        "max_gradient_norm": 2.0,
        "dtype": torch.bfloat16,
        "seed": 7,
    }


def test_the_second_call_comes_from_the_cache(few, cache, caplog):
    caplog.set_level(logging.INFO)
    first = train(TINY, few)
    assert epochs_run(caplog) == 2
    second = train(TINY, few)
    assert epochs_run(caplog) == 0
    assert same_weights(first, second)
    assert not any(part.training for part in second.modules())
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_a_change_of_recipe_data_or_seed_trains_anew(few, digits, cache, caplog):
    caplog.set_level(logging.INFO)
    one = TINY.replace(epochs=1)
    train(one, few)
    assert epochs_run(caplog) == 1
    for changed in (
        one.replace(learning_rate=2e-3),
        one.replace(objective=EnsembleAdversarial(eps=0.3)),
        one.replace(objective=EnsembleAdversarial(eps=0.2)),
        one.replace(schedule=training.warm_up_and_decay),
        one.replace(dtype=torch.bfloat16),
    ):
        train(changed, few)
        assert epochs_run(caplog) == 1, changed
    train(one, digits.first(127))
    train(one, few, seed=1)
    assert epochs_run(caplog) == 2
    assert len(list(cache.iterdir())) == 8


def test_sources_are_part_of_the_key_by_their_weights(few, caplog):
    caplog.set_level(logging.INFO)

    def with_source(seed: int) -> Recipe:
        source = models.build("eat_d", seed=seed)
        return TINY.replace(epochs=1, objective=EnsembleAdversarial(eps=0.3, sources=(source,)))

    train(with_source(1), few)
    train(with_source(1), few)
    assert epochs_run(caplog) == 1
    train(with_source(2), few)
    assert epochs_run(caplog) == 1


def test_a_damaged_file_is_trained_anew(few, cache, caplog):
    caplog.set_level(logging.INFO)
    first = train(TINY, few)
    (path,) = cache.iterdir()
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    epochs_run(caplog)
    again = train(TINY, few)
    assert "damaged cache file" in caplog.text
    assert epochs_run(caplog) == 2
    assert same_weights(first, again)


@dataclass(frozen=True)
class InterruptedOnce:
    """Clean training that is interrupted half way, the first time."""

    flag: str

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        if progress >= 0.5 and not Path(self.flag).exists():
            Path(self.flag).touch()
            raise KeyboardInterrupt
        return F.cross_entropy(model(x), y)


def test_ctrl_c_leaves_a_checkpoint_and_the_next_call_ends_with_the_same_weights(
    few, cache, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    whole = train(TINY, few)
    for path in cache.iterdir():
        path.unlink()
    interrupted = TINY.replace(objective=InterruptedOnce(str(tmp_path / "flag")))
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, few)
    assert [path.suffix for path in cache.iterdir()] == [".checkpoint"]
    caplog.clear()
    resumed = train(interrupted, few)
    assert "resuming at epoch 2" in caplog.text
    assert same_weights(resumed, whole)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_an_unwritable_cache_stops_before_training(few, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match="set ROBUSTUTILS_CACHE"):
        train(TINY, few)
    assert epochs_run(caplog) == 0


def test_an_unknown_architecture_stops_before_training(few):
    with pytest.raises(ValueError, match=r"unknown architecture 'eat_e' \(did you mean"):
        train(TINY.replace(architecture="eat_e"), few)


def test_train_all_gives_the_same_models_as_one_by_one(few, cache, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    jobs = {
        ("clean", 3): TINY.replace(epochs=1),
        ("adv", 4): TINY.replace(epochs=1, objective=EnsembleAdversarial(eps=0.3)),
        ("ens", 3): with_sources(
            TINY.replace(epochs=1, objective=EnsembleAdversarial(eps=0.3)), [models.build("eat_d")]
        ),
    }
    together = train_all(jobs, few, workers=2)
    assert epochs_run(caplog) == 0, "the workers should have trained them all"
    assert list(together) == list(jobs)
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    monkeypatch.setattr(defences, "ProcessPoolExecutor", None)  # nobody is needed for models that are there
    train_all(jobs, few, workers=2)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == files
    for path in cache.iterdir():
        path.unlink()
    for (name, seed), model in together.items():
        assert same_weights(model, train(jobs[name, seed], few, seed=seed)), (name, seed)


def test_train_all_reports_what_stopped_a_worker(few):
    with pytest.raises(ValueError, match=r"batch_size=500: .*between 1 and the 128 examples of digits"):
        train_all({("clean", seed): TINY.replace(batch_size=500) for seed in (0, 1)}, few, workers=2)
    assert not torch.multiprocessing.active_children()
