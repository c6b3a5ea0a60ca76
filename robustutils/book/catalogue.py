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
from robustutils.registry import unknown

LIMIT = 112 << 20
"""All published networks together have at most so many bytes."""
MIXED = torch.bfloat16
"""Passes of the trainings at ``standard``, where the processor has it."""


@dataclass(frozen=True)
class Entry:
    """One network: how it is made, on which data set, and against which perturbation it was trained.

    ``images``: how many test images, from the first, it is published with the accuracy of; default: all. One that is no
    ``classifier`` has no accuracy.
    """

    make: Callable[[], Network]
    dataset: str
    radius: str = "none"
    images: int | None = None
    classifier: bool = True


@functools.cache
def _train(dataset: str) -> data.Dataset:
    return data.load(dataset, "train")


def _defended(defence: str, dataset: str) -> Network:
    """A defence of the blind-spot chapter at ``standard``: Madry and natural networks hold 5,000 images back."""
    images = _train(dataset)
    if defence in ("madry", "madry_l2", "natural", "l0_sparse"):
        images = images.take(torch.arange(5000, len(images)))
    return Network(recipes.recipe_of(defence, dataset), images)


def _seeded(defence: str, dataset: str, seed: int) -> Network:
    """The same network from another seed."""
    network = _defended(defence, dataset)
    return Network(network.recipe, network.dataset, seed=seed)


def _longer(defence: str, dataset: str, epochs: int) -> Network:
    """A defence of the blind-spot chapter, trained for longer: is what differs from the paper the length?"""
    network = _defended(defence, dataset)
    return Network(network.recipe.replace(epochs=epochs), network.dataset)


def _at_radius(eps: float) -> Network:
    """A narrow network, adversarially trained at one of several radii: how does invariance grow with it?"""
    images = _defended("madry", "mnist").dataset
    return Network(invariance.at_radius(eps), images)


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
    known = disentangling.strategies(
        coded,
        "hard" if dataset == "fonts" else "digits",
        40 if n <= 1000 else 10,
        independent=dataset != "fonts",
    )
    return Network(known[strategy], images)


def _eat(name: str, seed: int = 0) -> Network:
    """A model of the first chapter at ``standard``."""
    return Network(recipes.recipe(f"eat_{name}").replace(dtype=MIXED), _train("mnist"), seed=seed)


def _eat_ensemble(name: str) -> Network:
    recipe = recipes.recipe(f"eat_{name}_adv").replace(dtype=MIXED)
    return Network(ensemble.with_sources(recipe, [_eat(name, 2)]), _train("mnist"))


def _small_cnn() -> Network:
    return Network(recipes.recipe("small_cnn"), _train("digits").first(1280))


def _entries() -> dict[str, Entry]:
    entries = {"small_cnn": Entry(_small_cnn, "digits")}
    radii = {
        "madry": {"mnist": "linf 0.3", "fashion_mnist": "linf 0.1"},
        "natural": {},
        "kolter_wong": {"mnist": "linf 0.1", "fashion_mnist": "linf 0.1"},
        "wrm": {"mnist": "Wasserstein, c = 1.3", "fashion_mnist": "Wasserstein, c = 1.3"},
    }
    for defence, by_set in radii.items():
        for dataset in ("mnist", "fashion_mnist"):
            make = functools.partial(_defended, defence, dataset)
            entries[f"{defence}_{dataset}"] = Entry(make, dataset, by_set.get(dataset, "none"))
    entries["wrm_mnist_8_epochs"] = Entry(
        functools.partial(_longer, "wrm", "mnist", 8), "mnist", radii["wrm"]["mnist"]
    )
    entries["madry_fashion_mnist_24_epochs"] = Entry(
        functools.partial(_longer, "madry", "fashion_mnist", 24), "fashion_mnist", "linf 0.1"
    )
    entries["madry_l2_mnist"] = Entry(functools.partial(_defended, "madry_l2", "mnist"), "mnist", "l2 2")
    for name in ("inv_cnn", "resnet"):
        entries[f"{name}_mnist"] = Entry(functools.partial(_defended, name, "mnist"), "mnist")
    for seed in range(3):
        label = "affine_cnn_mnist" if seed == 0 else f"affine_cnn_mnist_seed_{seed}"
        entries[label] = Entry(functools.partial(_seeded, "affine_cnn", "mnist", seed), "mnist")
    entries["acgan_mnist"] = Entry(functools.partial(_defended, "acgan", "mnist"), "mnist")
    for tenths in range(5):
        radius = f"linf 0.{tenths}" if tenths else "none"
        entries[f"narrow_mnist_0_{tenths}"] = Entry(
            functools.partial(_at_radius, tenths / 10), "mnist", radius
        )
    entries["crown_ibp_mnist"] = Entry(
        functools.partial(_defended, "crown_ibp", "mnist"), "mnist", "linf 0.4"
    )
    entries["l0_sparse_mnist"] = Entry(functools.partial(_defended, "l0_sparse", "mnist"), "mnist")
    for name in ("abs", "binary_abs"):
        entries[f"{name}_mnist"] = Entry(functools.partial(_defended, name, "mnist"), "mnist", images=1000)
    trained_against = {
        "normal": "none",
        "regular": "linf 0.3",
        "on_manifold": "linf 0.3 on the manifold",
        "transformation_adversarial": "linf 0.3 of affine maps",
        "transformation_augmentation": "none",
    }
    for strategy, radius in trained_against.items():
        for dataset, sizes in {"fonts": (250, 1000, 4000, 10_000), "mnist": (1000, 4000)}.items():
            for n in sizes:
                made = functools.partial(_dis, dataset, strategy, n)
                entries[f"dis_{dataset}_{strategy}_{n}"] = Entry(made, dataset, radius)
    for digit in range(10):
        vae_gan = functools.partial(_vae_gan, digit)
        entries[f"vae_gan_mnist_{digit}"] = Entry(vae_gan, "mnist", classifier=False)
    for name, seeds in {"d": 3, "c": 2, "b": 1, "b_star": 1, "a": 1}.items():
        for seed in range(seeds):
            label = f"eat_{name}" if seed == 0 else f"eat_{name}_seed_{seed}"
            entries[label] = Entry(functools.partial(_eat, name, seed), "mnist")
        entries[f"eat_{name}_adv"] = Entry(functools.partial(_eat, f"{name}_adv"), "mnist", "linf 0.3")
    entries["eat_d_adv_ens"] = Entry(functools.partial(_eat_ensemble, "d"), "mnist", "linf 0.3")
    entries["eat_d_adv_input_dropout"] = Entry(
        functools.partial(_eat, "d_input_dropout_adv"), "mnist", "linf 0.3"
    )
    return entries


CATALOGUE: Mapping[str, Entry] = _entries()
"""The networks that can be published, cheapest and most used first."""


def entry(name: str) -> Entry:
    """The entry of a network.

    Raises:
        ValueError: no network has this name; the message lists those there are.
    """
    if name not in CATALOGUE:
        raise ValueError(unknown("network", name, CATALOGUE))
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
        test = data.load(found.dataset, "test")
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
        dataset=found.dataset,
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
