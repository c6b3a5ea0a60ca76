"""The networks of the book by name: what is published with each, what is refused, and that no two are one."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from robustutils import artifacts, data, evaluation, models, provenance, recipes, storage
from robustutils.artifacts import shelf
from robustutils.book import catalogue
from robustutils.book.catalogue import CATALOGUE, Entry
from robustutils.data import DataError
from robustutils.networks import Network
from robustutils.papers.disentangling import recipes as dis_recipes


@pytest.fixture
def few(digits) -> data.Dataset:
    return digits.first(128)


@pytest.fixture
def two(few, weights, monkeypatch) -> Path:
    """A catalogue of two small networks on few digits, and the empty folder where they are published."""
    recipe = recipes.recipe("small_cnn").replace(epochs=1)
    entries = {
        "small_cnn": Entry(lambda: Network(recipe, few)),
        "small_cnn_seed_1": Entry(lambda: Network(recipe, few, seed=1), "linf 0.1"),
    }
    monkeypatch.setattr(catalogue, "CATALOGUE", entries)
    return weights


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# ---- the catalogue ----


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("madri_mnist", r" \(did you mean 'madry_mnist'\?\); there are"),
        ("zebra", "; there are"),
        ("", "; there are"),
    ],
)
def test_an_unknown_network_is_refused_with_what_there_is(name, hint):
    with pytest.raises(ValueError, match=f"network '{name}'{hint}") as error:
        catalogue.entry(name)
    assert all(known in str(error.value) for known in CATALOGUE)


def test_every_entry_is_a_network_of_its_own():
    try:
        made = {name: entry.make() for name, entry in CATALOGUE.items()}
    except DataError as reason:
        pytest.skip(f"the data sets are not here: {reason}")
    assert len({network.name for network in made.values()}) == len(CATALOGUE)
    for name, network in made.items():
        entry = catalogue.entry(name)
        assert network.dataset.name in name or name.startswith(("small_cnn", "eat_"))
        assert network.dataset.split == "train", "networks are not trained on test images"
        assert entry.classifier == ("vae_gan" not in network.recipe.architecture)
        trained_on = str(artifacts.describe(network.recipe.objective))
        robust = any(word in trained_on for word in ("Adversarial", "Certified", "CrownIbp", "Wasserstein"))
        assert robust == (entry.radius != "none"), f"{name}: {entry.radius}"


def test_each_class_of_mnist_has_a_vae_gan_of_its_images():
    try:
        made = [catalogue.entry(f"vae_gan_mnist_{label}").make() for label in range(10)]
    except DataError as reason:
        pytest.skip(f"the data sets are not here: {reason}")
    assert [network.dataset.labels.unique().tolist() for network in made] == [[label] for label in range(10)]
    assert sum(len(network.dataset) for network in made) == 60000
    assert made[1].recipe == dis_recipes.vae_gan(5.0, narrow=True, epochs=15)


# ---- publishing ----


def test_a_published_network_says_what_it_is_and_is_the_one_that_was_trained(two, few):
    trained = Network(recipes.recipe("small_cnn").replace(epochs=1), few, seed=1)
    path = catalogue.publish("small_cnn_seed_1")
    assert path == two / "small_cnn_seed_1.safetensors"
    tensors, about = storage.read(path, trained.name)
    certificate = about.pop("certificate")
    test = data.load("digits", "test")
    hits = evaluation.correct(trained(), test.images, test.labels)
    assert about == {
        "network": "small_cnn_seed_1",
        "architecture": "small_cnn",
        "classes": 10,
        "dataset": "digits",
        "seed": 1,
        "radius": "linf 0.1",
        "accuracy": round(100 * hits.float().mean().item(), 2),
        "images": len(test),
    }
    assert certificate == storage.read(trained.path)[1]["certificate"]
    assert (certificate["commit"], certificate["threads"]) == (provenance.started_from(), "1")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert same_weights(models.published("small_cnn_seed_1"), trained())
    assert trained.published() == path


def test_a_network_that_is_no_classifier_has_no_accuracy(few, weights, monkeypatch):
    recipe = dis_recipes.vae_gan(5.0, narrow=True, epochs=1)
    made = Entry(lambda: Network(recipe, few.first(100)), classifier=False)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"gan": made})
    catalogue.publish("gan")
    (found,) = catalogue.table()
    assert (found["architecture"], found["accuracy"], found["images"]) == ("vae_gan_narrow", None, 0)
    assert models.published("gan")(few.images[:2]).shape == (2, 1, 28, 28)


def test_publishing_again_changes_nothing(two, cache, caplog):
    path = catalogue.publish("small_cnn")
    before = storage.header(path)
    for file in cache.iterdir():
        file.unlink()
    shelf.clear()
    caplog.set_level(logging.INFO)
    catalogue.publish("small_cnn")
    assert storage.header(path) == before
    assert "epoch 1" not in caplog.text, "it was trained again"


def test_an_unknown_name_publishes_nothing(two):
    with pytest.raises(ValueError, match="'madry_mnist'"):
        catalogue.publish("madry_mnist")
    assert list(two.iterdir()) == []


def test_published_networks_have_a_limit_together(two, monkeypatch):
    first = catalogue.publish("small_cnn")
    monkeypatch.setattr(catalogue, "LIMIT", int(1.5 * first.stat().st_size))
    catalogue.publish("small_cnn")  # in place of itself
    message = r"small_cnn_seed_1 .*0\.\d MiB.*0\.\d MiB"
    with pytest.raises(ValueError, match=message):
        catalogue.publish("small_cnn_seed_1")
    assert list(two.iterdir()) == [first]


def test_the_table_is_what_the_files_say(two, caplog):
    assert catalogue.table() == []
    paths = [catalogue.publish(name) for name in ("small_cnn", "small_cnn_seed_1")]
    found = catalogue.table()
    assert [row["network"] for row in found] == ["small_cnn", "small_cnn_seed_1"]
    assert [row["bytes"] for row in found] == [path.stat().st_size for path in paths]
    assert found[1].items() >= json.loads(storage.header(paths[1])["about"]).items()
    paths[0].write_bytes(b"damaged")
    assert [row["network"] for row in catalogue.table()] == ["small_cnn_seed_1"]
    assert f"damaged network {paths[0]}" in caplog.text


def test_training_in_the_background_publishes_each_that_is_missing(two, monkeypatch):
    asked, reports = [], []

    def side_by_side(missing, *, workers, lowest_priority, done):
        asked.append((len(missing), workers, lowest_priority))
        for network in missing:
            network.make_sure()
            done(network)

    monkeypatch.setattr(catalogue, "train_side_by_side", side_by_side)
    catalogue.CATALOGUE["small_cnn"].make().make_sure()  # trained and not yet published
    catalogue.train(["small_cnn", "small_cnn_seed_1"], workers=3, report=reports.append)
    assert asked == [(1, 3, True)]
    assert reports == [f"{name}: {two / name}.safetensors" for name in ("small_cnn", "small_cnn_seed_1")]
    catalogue.train(["small_cnn", "small_cnn_seed_1"], report=reports.append)
    assert asked[1:] == [(0, None, True)], "what is published is left as it is"
    assert len(reports) == 2
    with pytest.raises(ValueError, match="'zebra'"):
        catalogue.train(["zebra"])


# ---- loading ----


@pytest.mark.parametrize("kind", ["empty", "truncated", "a bit flipped", "other content", "a pickle"])
def test_a_damaged_network_is_named_with_what_restores_it(kind, two, pickle_trap):
    path = catalogue.publish("small_cnn")
    raw = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "truncated": raw[:-2],
            "a bit flipped": raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:],
            "other content": b"no network",
            "a pickle": pickle_trap[0],
        }[kind]
    )
    with pytest.raises(models.ModelError) as error:
        models.published("small_cnn")
    assert str(error.value).startswith(f"damaged network {path} (")
    assert str(error.value).endswith("git restores it")
    assert not pickle_trap[1].exists(), "the file was unpickled"


def test_files_that_have_been_exchanged_are_found_out(two):
    one, other = (catalogue.publish(name) for name in ("small_cnn", "small_cnn_seed_1"))
    raw = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(raw)
    with pytest.raises(models.ModelError, match=f"damaged.* {one}"):
        models.published("small_cnn")


def test_another_artifact_in_the_place_of_a_network_is_no_network(two):
    path = two / "losses.safetensors"
    storage.write(path, "losses-1", {"value": torch.ones(3)}, certificate={})
    with pytest.raises(models.ModelError, match=f"damaged.* {path}"):
        models.published("losses")


def test_an_unpublished_network_is_refused_with_what_there_is(two):
    catalogue.publish("small_cnn")
    with pytest.raises(models.ModelError, match=r"'small_cmm'.*'small_cnn'"):
        models.published("small_cmm")


def test_a_published_network_has_the_accuracy_it_claims():
    """The one that is small enough to be tried here; its test set comes with the package."""
    test = data.load("digits", "test")
    (about,) = (row for row in catalogue.table() if row["network"] == "small_cnn")
    model = models.published("small_cnn")
    assert not model.training
    hits = evaluation.correct(model, test.images, test.labels)
    assert round(100 * hits.float().mean().item(), 2) == about["accuracy"]
    assert len(test) == about["images"]
    assert CATALOGUE["small_cnn"].make().published() == models.weights_folder() / "small_cnn.safetensors"
