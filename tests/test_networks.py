"""Networks: published, cached, or trained, resumed and never half done; alone and side by side."""

import logging
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, make_dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import artifacts, evaluation, models, networks, speed, storage, training
from robustutils.artifacts import VERSIONS, NotPublished, kept, later, shelf
from robustutils.attacks import FGSM
from robustutils.data import Dataset
from robustutils.networks import Network, train_side_by_side
from robustutils.objectives import Clean
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.models import eat_d
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.papers.ensemble.recipes import with_sources
from robustutils.recipes import Recipe, recipe
from robustutils.storage import CacheError
from robustutils.training import TrainingError

TINY = Recipe(architecture="eat_d", objective=Clean(), epochs=2, batch_size=64)
ONCE = TINY.replace(epochs=1)
SINGLE_STEP = ONCE.replace(objective=EnsembleAdversarial(eps=0.3))

pytestmark = pytest.mark.usefixtures("weights")


@pytest.fixture(scope="module")
def few(digits):
    return digits.first(128)


def train(recipe: Recipe, dataset: Dataset, *, seed: int = 0) -> nn.Module:
    return Network(recipe, dataset, seed=seed)()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def epochs_run(caplog) -> int:
    """How many epochs were trained since the last call."""
    count = sum(record.getMessage().startswith("epoch ") for record in caplog.records)
    caplog.clear()
    return count


# ---- static sources ----


@pytest.fixture
def fits(monkeypatch) -> list[dict]:
    """The settings of each training, none of which is carried out."""
    seen: list[dict] = []

    @wraps(training.fit)
    def fit(model, dataset, objective, **settings):
        seen.append({"objective": objective, "threads": torch.get_num_threads(), **settings})
        return model

    monkeypatch.setattr(training, "fit", fit)
    return seen


@pytest.mark.parametrize("as_artifact", [False, True])
def test_static_sources_are_trained_against_as_copies_with_dropout_that_do_not_learn(few, fits, as_artifact):
    source = models.build("eat_d").eval()
    given = artifacts.composed(nn.Sequential, source) if as_artifact else source
    made = with_sources(recipe("eat_d_adv"), [given])
    objective: Any = made.objective
    assert objective.sources == (given,)
    assert made.replace(objective=recipe("eat_d_adv").objective) == recipe("eat_d_adv")
    train(made, few)
    (static,) = fits[0]["objective"].sources
    assert static is not source
    assert all(part.training for part in static.modules())
    assert not any(parameter.requires_grad for parameter in static.parameters())
    assert same_weights(static, source)
    assert not source.training
    assert all(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize(("name", "sources"), [("eat_d_adv", 0), ("eat_d", 1)])
def test_ensemble_training_needs_sources_and_single_steps(name, sources):
    with pytest.raises(ValueError, match=f"{sources} sources for"):
        with_sources(recipe(name), [models.build("eat_d")] * sources)


def test_a_model_depends_on_its_static_sources(few):
    made = [train(with_sources(SINGLE_STEP, [models.build("eat_d", seed=seed)]), few) for seed in (1, 2, 1)]
    assert not same_weights(made[0], made[1])
    assert same_weights(made[0], made[2])


def test_a_static_source_that_is_not_there_yet_is_trained_first(few, caplog):
    caplog.set_level(logging.INFO)
    source = Network(ONCE, few, seed=1)
    ensemble = Network(with_sources(SINGLE_STEP, [source]), few)
    assert ensemble.name != Network(with_sources(SINGLE_STEP, [Network(ONCE, few, seed=2)]), few).name
    assert epochs_run(caplog) == 0, "a name needs no training"
    ensemble()
    assert epochs_run(caplog) == 2
    trained = with_sources(SINGLE_STEP, [train(ONCE, few, seed=1)])
    assert same_weights(ensemble(), train(trained, few))


# ---- training ----


def test_train_is_a_seeded_fit_in_evaluation_mode_rounded_to_half_precision(few):
    plain = training.fit(models.build("eat_d", seed=3), few, Clean(), epochs=2, batch_size=64, seed=3)
    found = train(TINY, few, seed=3)
    assert same_weights(found, training.rounded(plain))
    assert not any(part.training for part in found.modules())


def test_train_passes_every_setting_on(few, fits):
    one = TINY.replace(
        objective=EnsembleAdversarial(eps=0.1),
        learning_rate=0.5,
        betas=(0.5, 0.9),
        weight_decay=1e-3,
        schedule=training.warm_up_and_decay,
        max_gradient_norm=2.0,
        dtype=torch.bfloat16,
    )
    train(one, few, seed=7)
    (seen,) = fits
    assert seen.pop("checkpoint").suffix == ".checkpoint"
    assert seen == {
        "objective": one.objective,
        "threads": 1,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.5,
        "betas": (0.5, 0.9),
        "weight_decay": 1e-3,
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


def test_a_network_is_what_its_file_holds(few):
    network = Network(ONCE, few)
    tensors, _ = storage.read(network.path) if network() else ({}, {})
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for name, tensor in network().state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[name].float()), name


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("fails", [False, True])
def test_training_takes_one_thread_and_gives_the_others_back(few, fits, fails, monkeypatch):
    if fails:
        monkeypatch.setattr(training, "fit", nothing)
    with pytest.raises(AssertionError) if fails else nullcontext():
        train(ONCE, few)
    assert torch.get_num_threads() == 2
    assert [seen["threads"] for seen in fits] == ([] if fails else [1])


def test_a_change_of_recipe_data_or_seed_trains_anew(few, digits, cache, fits):
    train(ONCE, few)
    for count, changed in enumerate(
        (
            ONCE.replace(learning_rate=2e-3),
            ONCE.replace(objective=EnsembleAdversarial(eps=0.3)),
            ONCE.replace(objective=EnsembleAdversarial(eps=0.2)),
            ONCE.replace(schedule=training.warm_up_and_decay),
            ONCE.replace(max_gradient_norm=3.0),
            ONCE.replace(batch_size=32),
            ONCE.replace(architecture="eat_d_input_dropout"),
            TINY,
        ),
        2,
    ):
        train(changed, few)
        train(changed, few)
        assert len(fits) == count, changed
    train(ONCE, digits.first(127))
    train(ONCE, few, seed=1)
    assert len(fits) == 11
    assert len(list(cache.iterdir())) == 11


def test_a_damaged_file_is_trained_anew(few, cache, caplog):
    caplog.set_level(logging.INFO)
    first = train(ONCE, few)
    (path,) = cache.iterdir()
    raw = path.read_bytes()
    middle = len(raw) // 2
    for damaged in (raw[:middle] + bytes([raw[middle] ^ 4]) + raw[middle + 1 :], raw[:100], b""):
        for look in (lambda: train(ONCE, few), lambda: Network(ONCE, few).key and train(ONCE, few)):
            path.write_bytes(damaged)
            epochs_run(caplog)
            again = look()
            assert f"damaged cache file {path}" in caplog.text
            assert epochs_run(caplog) == 1
            assert same_weights(first, again)


@dataclass(frozen=True)
class Own:
    """A user's objective."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        return F.cross_entropy(model(x), y)


def own_schedule(progress: float) -> float:
    return 1.0


def own_architecture(classes: int = 10) -> nn.Module:
    return eat_d(classes)


def test_what_is_the_users_own_is_trained_at_every_call_and_not_kept(few, cache, caplog, monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "own", own_architecture)
    expected = train(ONCE, few)
    for path in cache.iterdir():
        path.unlink()
    caplog.set_level(logging.INFO)
    for changes in ({"objective": Own()}, {"schedule": own_schedule}, {"architecture": "own"}):
        for _ in range(2):
            epochs_run(caplog)
            assert same_weights(train(ONCE.replace(**changes), few), expected)
            assert "trained and not kept" in caplog.text
            assert epochs_run(caplog) == 1
    assert list(cache.iterdir()) == []


@pytest.fixture
def interruption(monkeypatch) -> Callable[[], None]:
    """Called, it interrupts the next clean training half way."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    through = Clean.__call__

    def interrupt() -> None:
        def interrupted(self: Clean, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
            if progress >= 0.5:
                monkeypatch.setattr(Clean, "__call__", through)
                raise KeyboardInterrupt
            return through(self, model, x, y, progress)

        monkeypatch.setattr(Clean, "__call__", interrupted)

    return interrupt


def test_ctrl_c_leaves_a_checkpoint_and_the_next_call_ends_with_the_same_weights(
    few, cache, interruption, caplog
):
    caplog.set_level(logging.INFO)
    whole = train(TINY, few)
    for path in cache.iterdir():
        path.unlink()
    interruption()
    with pytest.raises(KeyboardInterrupt):
        train(TINY, few)
    assert [path.suffix for path in cache.iterdir()] == [".checkpoint"]
    caplog.clear()
    resumed = train(TINY, few)
    assert "resuming after 2 steps" in caplog.text
    assert same_weights(resumed, whole)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(few, cache, interruption, caplog):
    whole = train(TINY, few)
    for path in cache.iterdir():
        path.unlink()
    interruption()
    with pytest.raises(KeyboardInterrupt):
        train(TINY, few)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    again = train(TINY, few)
    assert f"damaged checkpoint {path}" in caplog.text
    assert same_weights(again, whole)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_an_unwritable_cache_stops_before_training(few, tmp_path, monkeypatch, fits):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match="ROBUSTUTILS_CACHE"):
        train(TINY, few)
    assert fits == []


def test_an_unknown_architecture_stops_before_training(few):
    with pytest.raises(ValueError, match="architecture 'eat_e'"):
        train(TINY.replace(architecture="eat_e"), few)


# ---- certificates ----


@pytest.mark.usefixtures("two_threads")
def test_a_network_has_the_certificate_of_its_training(few, monkeypatch):
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(speed, "fast_dtype", lambda device, fast=fast: fast)
        for asked in (torch.bfloat16, torch.float32):
            network = Network(ONCE.replace(dtype=asked), few, seed=int(fast == torch.float32))
            network()
            found = shelf.used[network.name]
            ran = torch.bfloat16 if (fast, asked) == (torch.bfloat16, torch.bfloat16) else torch.float32
            assert found["precision"] == str(ran).removeprefix("torch.")
            assert (found["threads"], found["device"]) == ("1", "cpu")
            assert found == storage.read(network.path)[1]["certificate"]


def test_the_time_before_an_interruption_counts(few, interruption, cache):
    interruption()
    with pytest.raises(KeyboardInterrupt):
        train(TINY, few)
    (path,) = cache.iterdir()
    state, about = storage.read(path)
    storage.write(path, path.name, state, **about | {"seconds": 5000.0})
    network = Network(TINY, few)
    network()
    assert 5000 <= shelf.used[network.name]["seconds"] < 5060


def test_a_network_is_among_what_was_used_even_where_only_its_outcomes_were(few):
    kept(evaluation.correct, Network(ONCE, few), few.images, few.labels)
    shelf.clear()
    network = Network(ONCE, few)
    kept(evaluation.correct, network, few.images, few.labels)
    assert network._model is None, "the outcomes are there"
    assert network.name in shelf.used


# ---- names and keys ----


def test_a_name_is_that_of_recipe_data_and_seed_on_every_machine(few, digits, monkeypatch):
    half = TINY.replace(dtype=torch.bfloat16)
    monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.bfloat16)
    native, plain = Network(half, few), Network(TINY, few)
    names = {
        network.name
        for network in (
            plain,
            native,
            Network(TINY, few, seed=1),
            Network(TINY, digits.first(127)),
            Network(TINY.replace(learning_rate=1e-4), few),
            Network(TINY.replace(architecture="eat_d_input_dropout"), few),
        )
    }
    assert len(names) == 6
    assert Network(TINY, few, device="cuda").name == plain.name
    assert Network(TINY, few, device="cuda").cache_key != plain.cache_key
    assert native.cache_key != plain.cache_key
    monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.float32)
    emulated = Network(half, few)
    assert emulated.name == native.name
    assert emulated.cache_key == plain.cache_key, "both are trained in float32"


def test_a_new_field_with_a_default_moves_no_name(few):
    wider = make_dataclass(
        "Recipe", [("momentum", float, field(default=0.9))], bases=(Recipe,), frozen=True, kw_only=True
    )
    wider.__module__ = "robustutils.recipes"
    settings = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    assert Network(wider(**settings), few).name == Network(TINY, few).name
    assert Network(wider(**settings, momentum=0.8), few).name != Network(TINY, few).name


@pytest.mark.parametrize("raised", ["fit", "Recipe", "eat_d", "EnsembleAdversarial", "warm_up_and_decay"])
def test_a_raised_version_trains_anew(raised, few, monkeypatch):
    one = SINGLE_STEP.replace(schedule=training.warm_up_and_decay)
    network = Network(one, few)
    before = network.name, network.cache_key
    monkeypatch.setitem(VERSIONS, raised, 2)
    after = Network(one, few)
    assert after.name != before[0]
    assert after.cache_key != before[1]


def test_sources_are_part_of_the_name_by_their_weights(few):
    one, same, other = (
        Network(with_sources(SINGLE_STEP, [models.build("eat_d", seed=seed)]), few) for seed in (1, 1, 2)
    )
    assert one.name == same.name != other.name


def test_outcomes_on_a_network_depend_on_its_weights_and_their_name_does_not(few, weights):
    def verdicts() -> artifacts.Call:
        return later(evaluation.correct, Network(ONCE, few), few.images, few.labels)

    trained = verdicts()
    name, key = trained.name, trained.key
    file = weights / "tiny.safetensors"
    publish(file, Network(ONCE, few), Network(ONCE, few)())
    assert (verdicts().name, verdicts().key) == (name, key), "the same weights, published"
    publish(file, Network(ONCE, few), models.build("eat_d", seed=9))
    assert verdicts().name == name
    assert verdicts().key != key


def test_a_network_can_be_sent_to_a_worker_without_its_weights_and_siblings(few):
    network = Network(ONCE, few)
    network()
    network.siblings = [Network(ONCE, few.take(torch.arange(i, 128))) for i in range(5)]
    sent = pickle.loads(pickle.dumps(network))
    assert (sent.name, sent.cache_key) == (network.name, network.cache_key)
    assert sent.siblings == ()
    weights = sum(parameter.nbytes for parameter in network().parameters())
    assert len(pickle.dumps(network)) < few.images.nbytes + weights / 2


# ---- published networks ----


def publish(path: Path, network: Network, model: nn.Module, **certificate: object) -> None:
    storage.write(path, network.name, networks.halves(model), certificate=certificate)


@wraps(training.fit)
def nothing(*args: object, **settings: object) -> None:
    raise AssertionError("nothing should be built or trained")


def test_a_published_network_comes_before_the_cache_and_before_training(few, weights, cache, monkeypatch):
    network, other = Network(ONCE, few), training.rounded(models.build("eat_d", seed=9))
    trained = train(ONCE, few)
    assert network.published() is None
    publish(weights / "another.safetensors", Network(TINY, few), trained)
    assert network.published() is None
    publish(weights / "tiny.safetensors", network, other, commit="published")
    assert network.published() == weights / "tiny.safetensors"
    assert same_weights(network(), other)
    assert not any(part.training for part in network().modules())
    assert shelf.used[network.name] == {"commit": "published"}
    for path in cache.iterdir():
        path.unlink()
    monkeypatch.setattr(training, "fit", nothing)
    assert same_weights(train(ONCE, few), other)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("kind", ["empty", "truncated", "a bit flipped", "another's", "a pickle"])
def test_a_damaged_published_network_is_named_and_trained_instead(kind, few, weights, pickle_trap, caplog):
    path, network = weights / "tiny.safetensors", Network(ONCE, few)
    publish(path, network, models.build("eat_d", seed=9))
    raw = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "truncated": raw[:-2],
            "a bit flipped": raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:],
            "another's": raw.replace(b"model-", b"models"),
            "a pickle": pickle_trap[0],
        }[kind]
    )
    expected = training.fit(models.build("eat_d"), few, Clean(), epochs=1, batch_size=64)
    assert same_weights(network(), training.rounded(expected))
    assert f"damaged network {path}" in caplog.text
    assert not pickle_trap[1].exists(), "the file was unpickled"


def test_outcomes_of_a_substitute_are_not_taken_for_those_of_the_published_network(few, weights):
    path, published = weights / "tiny.safetensors", training.rounded(models.build("eat_d", seed=9))
    publish(path, Network(ONCE, few), published)
    raw = path.read_bytes()
    path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
    substitute = kept(evaluation.correct, Network(ONCE, few), few.images, few.labels)
    path.write_bytes(raw)
    found = kept(evaluation.correct, Network(ONCE, few), few.images, few.labels)
    assert torch.equal(found, evaluation.correct(published, few.images, few.labels))
    assert not torch.equal(found, substitute), "the two should differ in this test"


def test_where_nothing_may_be_trained_a_missing_network_is_named(few, fits):
    network = Network(ONCE, few)
    shelf.frozen = True
    for ask in (
        network,
        network.make_sure,
        lambda: kept(evaluation.correct, network, few.images, few.labels),
    ):
        with pytest.raises(NotPublished, match=f"{network.name}.*not published"):
            ask()
    assert fits == []
    shelf.frozen = False
    network()
    shelf.frozen = True
    assert same_weights(Network(ONCE, few)(), network()), "what is in the cache is there"


def family(images, jobs, seeds=(0, 1, 2), **settings) -> Family:
    """Networks of several recipes, by (name, seed)."""
    found = Family(images, seeds, **settings)
    names = {name: [seed for other, seed in jobs if other == name] for name, _ in jobs}
    found.train(names, lambda name, seed: jobs[name, seed])
    return found


def test_outcomes_at_hand_need_no_network(few, monkeypatch, cache):
    attack = FGSM(eps=0.1)
    monkeypatch.setattr(training, "fit", nothing)
    monkeypatch.setattr(models, "build", nothing)
    at_hand = later(evaluation._verdicts, Network(ONCE, few), attack, few)
    ours, theirs = torch.arange(128) % 2 == 0, torch.arange(128) % 3 == 0
    shelf.outcomes[at_hand.name] = {"clean": ours, "attacked": theirs}, {"commit": "published"}
    found = evaluation.evaluate(Network(ONCE, few), attack, few)
    assert torch.equal(found.clean, ours)
    assert torch.equal(found.attacked, theirs)
    assert not cache.exists() or list(cache.iterdir()) == []


# ---- several networks ----


def test_networks_trained_side_by_side_are_those_trained_one_by_one(few, cache, caplog):
    caplog.set_level(logging.INFO)
    jobs = {("clean", 3): ONCE, ("ens", 3): with_sources(SINGLE_STEP, [models.build("eat_d")])}
    made, done = family(few, jobs, seeds=[3]), []
    networks = {job: made[job] for job in jobs}
    train_side_by_side(list(networks.values()), workers=2, done=done.append)
    assert epochs_run(caplog) == 0, "the workers should have trained them all"
    assert sorted(network.name for network in done) == sorted(network.name for network in networks.values())
    assert all(network.is_there() for network in networks.values())
    together = {job: network() for job, network in networks.items()}
    assert epochs_run(caplog) == 0
    for path in cache.iterdir():
        path.unlink()
    for (name, seed), model in together.items():
        assert same_weights(model, train(jobs[name, seed], few, seed=seed)), (name, seed)


def test_what_stopped_a_worker_is_raised(few):
    networks = [Network(TINY.replace(batch_size=500), few, seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"batch_size=500.* 128 .*digits"):
        train_side_by_side(networks, workers=1)
    assert not torch.multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_is_told_with_the_network(few, workers):
    networks = [Network(TINY.replace(epochs=200_000), few, seed=seed) for seed in (0, 1)]

    def kill() -> None:
        mine = psutil.Process()
        while len(spawned := [p for p in mine.children() if "spawn_main" in " ".join(p.cmdline())]) < workers:
            time.sleep(0.1)
        time.sleep(0.5)  # until both trainings are handed over
        spawned[0].kill()

    threading.Thread(target=kill).start()
    lost = " or ".join(re.escape(network.name) for network in networks[:workers])
    with pytest.raises(TrainingError, match=rf"^a process that trained {lost} was killed.*last checkpoint"):
        train_side_by_side(networks, workers=workers)
    assert not torch.multiprocessing.active_children()


@pytest.fixture
def workers(monkeypatch) -> list[list[Network]]:
    """Whom the workers are asked to train; they do it here."""
    asked: list[list[Network]] = []

    def train_them(networks: list[Network], **settings: object) -> None:
        asked.append(list(networks))
        for network in networks:
            network.siblings = ()
            network.make_sure()

    monkeypatch.setattr(networks, "train_side_by_side", train_them)
    return asked


def test_none_is_trained_before_one_is_needed_and_then_all_that_are_missing(few, fits, workers):
    train(ONCE, few)
    jobs = {("there", 0): ONCE, ("a", 1): ONCE, ("b", 0): TINY}
    networks = family(few, jobs)
    networks["there", 0]()
    assert (len(fits), workers) == (1, [])
    networks["b", 0]()
    assert workers == [[networks["a", 1], networks["b", 0]]]
    assert len(fits) == 3
    networks["a", 1]()
    assert len(fits) == 3


def test_one_at_a_time_where_it_is_asked_for_and_where_only_one_is_missing(few, fits, workers):
    apart = family(few, {("a", 0): ONCE, ("b", 0): TINY}, side_by_side=False)
    apart["a", 0]()
    assert len(fits) == 1
    together = family(few, {("a", 0): ONCE, ("b", 0): TINY})
    together["b", 0]()
    assert len(fits) == 2
    assert workers == []


def test_no_network_needs_no_worker(monkeypatch):
    monkeypatch.setattr(networks, "ProcessPoolExecutor", nothing)
    train_side_by_side([])
