"""The networks of the book by name: how each is trained, and how it is published in ``book/weights``."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustutils import artifacts, data, models, recipes, storage
from robustutils.evaluation import correct
from robustutils.networks import Network, halves, train_side_by_side
from robustutils.papers.disentangling import fonts
from robustutils.papers.disentangling import recipes as disentangling
from robustutils.papers.disentangling.latent import Coded
from robustutils.papers.disentangling.vae_gan import ClassManifold, EncodedDataset, vae_gan_beta
from robustutils.papers.ensemble import recipes as ensemble
from robustutils.papers.invariance import recipes as invariance
from robustutils.registry import choose

LIMIT = 112 << 20
"""All published networks together have at most so many bytes."""
MIXED = torch.bfloat16
"""Passes of the trainings at ``standard``, where the processor has it."""
WASSERSTEIN = "Wasserstein, c = 1.3"
SEEDS = ("", "_seed_1", "_seed_2")
"""What the name of a network ends with, by its seed."""


@dataclass(frozen=True)
class Entry:
    """One network: how it is made, and against which perturbation it was trained.

    ``images``: how many test images, from the first, it is published with the accuracy of; default: all. One that is no
    ``classifier`` has no accuracy.
    """

    make: Callable[[], Network]
    radius: str = "none"
    images: int | None = None
    classifier: bool = True


@functools.cache
def _train(dataset: str) -> data.Dataset:
    return data.load(dataset, "train")


def _defended(defence: str, dataset: str = "mnist", seed: int = 0, **changes: Any) -> Network:
    """A defence of the blind-spot chapter at ``standard``: Madry and natural networks hold 5,000 images back."""
    images = _train(dataset)
    if defence in ("madry", "madry_l2", "natural", "l0_sparse"):
        images = images.take(torch.arange(5000, len(images)))
    return Network(recipes.recipe_of(defence, dataset).replace(**changes), images, seed=seed)


def _at_radius(eps: float) -> Network:
    """A narrow network, adversarially trained at one of several radii: how does invariance grow with it?"""
    return Network(invariance.at_radius(eps), _defended("madry").dataset)


@functools.cache
def _vae_gan(label: int) -> Network:
    """A narrow VAE-GAN of one class of digits, in half of the epochs."""
    images = _train("mnist")
    recipe = disentangling.vae_gan(vae_gan_beta("mnist", label), narrow=True, epochs=15)
    return Network(recipe, images.take((images.labels == label).nonzero().squeeze(1)))


def _dis(dataset: str, strategy: str, n: int) -> Network:
    """A network of the chapter on disentangling, on the first images of FONTS or of the digits."""
    images: data.Dataset
    coded: Coded
    if dataset == "fonts":
        images = coded = fonts.dataset(fonts.load_prototypes(), n)
    else:
        images = _train(dataset).first(n)
        coded = EncodedDataset(images, ClassManifold({label: _vae_gan(label) for label in range(10)}))
    family, epochs = "hard" if dataset == "fonts" else "digits", 40 if n <= 1000 else 10
    known = disentangling.strategies(coded, family, epochs, independent=dataset != "fonts")
    return Network(known[strategy], images)


def _eat(name: str, seed: int = 0) -> Network:
    """A model of the first chapter at ``standard``."""
    return Network(recipes.recipe(f"eat_{name}").replace(dtype=MIXED), _train("mnist"), seed=seed)


def _eat_ensemble() -> Network:
    alone = _eat("d_adv")
    return Network(ensemble.with_sources(alone.recipe, [_eat("d", 2)]), alone.dataset)


def _small_cnn() -> Network:
    return Network(recipes.recipe("small_cnn"), _train("digits").first(1280))


def _entries() -> dict[str, Entry]:
    entries: dict[str, Entry] = {}

    def add(name: str, radius: str, make: Callable[..., Network], *args: Any, **changes: Any) -> None:
        entries[name] = Entry(functools.partial(make, *args, **changes), radius)

    add("small_cnn", "none", _small_cnn)
    for defence, *radii in (
        ("madry", "linf 0.3", "linf 0.1"),
        ("natural", "none", "none"),
        ("kolter_wong", "linf 0.1", "linf 0.1"),
        ("wrm", WASSERSTEIN, WASSERSTEIN),
    ):
        for dataset, radius in zip(("mnist", "fashion_mnist"), radii, strict=True):
            add(f"{defence}_{dataset}", radius, _defended, defence, dataset)
    add("wrm_mnist_8_epochs", WASSERSTEIN, _defended, "wrm", epochs=8)
    add("madry_fashion_mnist_24_epochs", "linf 0.1", _defended, "madry", "fashion_mnist", epochs=24)
    add("madry_l2_mnist", "l2 2", _defended, "madry_l2")
    for name in ("inv_cnn", "resnet"):
        add(f"{name}_mnist", "none", _defended, name)
    for seed, suffix in enumerate(SEEDS):
        add(f"affine_cnn_mnist{suffix}", "none", _defended, "affine_cnn", seed=seed)
    add("acgan_mnist", "none", _defended, "acgan")
    for tenths in range(5):
        radius = f"linf 0.{tenths}" if tenths else "none"
        add(f"narrow_mnist_0_{tenths}", radius, _at_radius, tenths / 10)
    add("crown_ibp_mnist", "linf 0.4", _defended, "crown_ibp")
    add("l0_sparse_mnist", "none", _defended, "l0_sparse")
    for name in ("abs", "binary_abs"):
        entries[f"{name}_mnist"] = Entry(functools.partial(_defended, name), images=1000)
    for strategy, radius in (
        ("normal", "none"),
        ("regular", "linf 0.3"),
        ("on_manifold", "linf 0.3 on the manifold"),
        ("transformation_adversarial", "linf 0.3 of affine maps"),
        ("transformation_augmentation", "none"),
    ):
        for dataset, sizes in (("fonts", (250, 1000, 4000, 10_000)), ("mnist", (1000, 4000))):
            for n in sizes:
                add(f"dis_{dataset}_{strategy}_{n}", radius, _dis, dataset, strategy, n)
    for digit in range(10):
        entries[f"vae_gan_mnist_{digit}"] = Entry(functools.partial(_vae_gan, digit), classifier=False)
    for name, seeds in {"d": 3, "c": 2, "b": 1, "b_star": 1, "a": 1}.items():
        for seed, suffix in enumerate(SEEDS[:seeds]):
            add(f"eat_{name}{suffix}", "none", _eat, name, seed)
        add(f"eat_{name}_adv", "linf 0.3", _eat, f"{name}_adv")
    add("eat_d_adv_ens", "linf 0.3", _eat_ensemble)
    add("eat_d_adv_input_dropout", "linf 0.3", _eat, "d_input_dropout_adv")
    return entries


CATALOGUE: Mapping[str, Entry] = _entries()
"""The networks that can be published, cheapest and most used first."""


def entry(name: str) -> Entry:
    """The entry of a network.

    Raises:
        ValueError: no network has this name; the message lists those there are.
    """
    choose("network", name, CATALOGUE)
    return CATALOGUE[name]


def publish(name: str) -> Path:
    """Write a trained network to ``book/weights`` with its certificate, its accuracy and its radius; returns the file.

    Raises:
        ValueError: an unknown name, or all published networks together would be too large.
    """
    found = entry(name)
    network = found.make()
    model = network()
    accuracy: dict[str, float | None] = {"accuracy": None, "images": 0}
    if found.classifier:
        test = data.load(network.dataset.name, "test")
        test = test.first(found.images or len(test))
        hits = correct(model, test.images, test.labels)
        accuracy = {"accuracy": round(100 * hits.float().mean().item(), 2), "images": len(hits)}
    path = models.weights_folder() / f"{name}.safetensors"
    tensors = halves(model)
    size = sum(tensor.nbytes for tensor in tensors.values())
    others = sum(other.stat().st_size for other in path.parent.glob("*.safetensors") if other != path)
    if size + others > LIMIT:
        raise ValueError(
            f"{name} has {size / 2**20:.1f} MiB: with it book/weights would have {(size + others) / 2**20:.1f} MiB "
            f"and may have {LIMIT / 2**20:.0f}"
        )
    storage.write(
        path,
        network.name,
        tensors,
        network=name,
        architecture=network.recipe.architecture,
        classes=len(network.dataset.classes),
        dataset=network.dataset.name,
        seed=network.seed,
        radius=found.radius,
        **accuracy,
        certificate=artifacts.shelf.used[network.name],
    )
    return path


def train(names: Sequence[str], *, workers: int | None = None, report: Callable[[str], None] = print) -> None:
    """Train networks in the background, one thread each, at the lowest priority, and publish each when it is there.

    An interrupted training goes on from its last checkpoint at the next call; what is published is left as it is.
    """
    jobs = {name: entry(name).make() for name in names}
    missing = {network.name: name for name, network in jobs.items() if not network.is_there()}

    def done(network: Network) -> None:
        name = missing.pop(network.name)
        report(f"{name}: {publish(name)}")

    for name, network in jobs.items():
        if network.published() is None and network.is_there():
            report(f"{name}: {publish(name)}")
    train_side_by_side(
        [jobs[name] for name in missing.values()], workers=workers, lowest_priority=True, done=done
    )


def table() -> list[dict[str, Any]]:
    """What each published network says about itself."""
    return [
        json.loads(header["about"]) | {"bytes": path.stat().st_size}
        for path, header in models.published_headers().items()
    ]
