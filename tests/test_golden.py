"""Golden runs: what every recipe and attack does in a few steps, so that numbers cannot move under an unchanged name.

Cached and published results are known by names and versions (:mod:`robustutils.artifacts`), not by code. Where an outcome
leaves its tolerance, the version of what was changed must be raised, and ``python tests/test_golden.py`` renews the run.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustutils import (
    artifacts,
    attacks,
    bounds,
    data,
    evaluation,
    models,
    networks,
    objectives,
    recipes,
    registry,
    speed,
    square,
    threats,
    training,
)
from robustutils.artifacts import later
from robustutils.data import Dataset
from robustutils.papers.blind_spot import blind_spots, carlini
from robustutils.papers.blind_spot import objectives as blind_spot_objectives
from robustutils.papers.blind_spot.dual import dual_margins
from robustutils.papers.disentangling import attempts, fonts, latent, projection, strategies, vae_gan
from robustutils.papers.disentangling import recipes as dis_recipes
from robustutils.papers.ensemble import flips, subspaces
from robustutils.papers.ensemble import objectives as ensemble_objectives
from robustutils.papers.ensemble.recipes import with_sources
from robustutils.papers.invariance import abs, acgan, alignment, examples, l0
from robustutils.papers.invariance import objectives as invariance_objectives
from robustutils.recipes import RECIPES, Recipe, recipe
from robustutils.threats import L2, Linf

STORE = Path(__file__).with_name("golden.json")
GOLDEN: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
TOLERANCE = {"recipe": 0.03, "attack": 0.01, "measurement": 0.01}
"""Root mean square of a difference, as a share of the outcome's. Without the convolution library, or on two threads, it is
at most 0.0005; a step size changed by 30%, a loss with the other sign, another start change 0.28 and 0.09 or more.
"""

Outcome = list[list[float]]
"""Numbers in parts, each compared on its own scale."""


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """One thread, no bfloat16, and attacks on codes that take float64, whatever the processor."""
    threads, fast = torch.get_num_threads(), speed.fast_dtype
    checked_codes = latent.check_inputs
    torch.set_num_threads(1)
    speed.fast_dtype = lambda device: torch.float32
    latent.check_inputs = lambda *_: None
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        speed.fast_dtype = fast
        latent.check_inputs = checked_codes


@pytest.fixture(autouse=True)
def alike() -> Iterator[None]:
    with repeatable():
        yield


# ---- recipes ----


NORMALISED = ("preact_resnet18", "dis_cnn", "vae_gan_narrow")
"""Architectures that are looked at in training mode: running statistics would drown their weights."""


LARGE = (
    "preact_resnet18",
    "madry_mnist",
    "acgan_",
    "eat_a",
    "eat_b",
    "eat_c",
    "kolter_wong_",
    "abs_",
    "binary_abs_",
)
"""How the names of architectures begin that see two images in a step, and of which four are looked at."""


@functools.cache
def recipes_by_name() -> dict[str, Recipe]:
    """Every recipe by name, ensemble training with one static source, and recipes of a data set or a radius."""
    source = models.build("eat_d", seed=7).double()
    ensemble = with_sources(recipe("eat_d_adv"), [source])
    named = {name: recipe(name) for name in registry.names("recipes", RECIPES)}
    return {**named, "eat_d_adv with a source": ensemble, **recipes_of_dis()}


def recipes_of_dis() -> dict[str, Recipe]:
    """The recipes of the chapter on disentangling, with short attacks; none of them has a name in the package."""
    data = letters().first(24)
    return {
        "dis_normal": dis_recipes.normal(),
        "dis_regular": dis_recipes.regular(3),
        "dis_on_manifold": dis_recipes.on_manifold(data, 3),
        "dis_on_manifold, independent": dis_recipes.on_manifold(data, 3, independent=True),
        "dis_transformation_adversarial": dis_recipes.transformation_adversarial("digits", 3),
        "dis_transformation_augmentation": dis_recipes.transformation_augmentation("digits"),
        "dis_mixture": dis_recipes.mixture(data, 3),
        "dis_trades": dis_recipes.trades(3),
        "vae_gan": dis_recipes.vae_gan(2.25, narrow=True),
    }


@functools.cache
def letters() -> fonts.FontsDataset:
    """A few letters of the embedded fonts."""
    return fonts.dataset(fonts.embedded_prototypes(), 40)


@dataclasses.dataclass(frozen=True)
class Double:
    """Data with codes, in float64."""

    data: latent.Coded

    @property
    def manifold(self) -> latent.Manifold:
        return self.data.manifold

    @property
    def codes(self) -> Tensor:
        return self.data.codes.double()

    @property
    def labels(self) -> Tensor:
        return self.data.labels

    def bases(self, rows: Tensor) -> Tensor:
        return self.data.bases(rows).double()


@dataclasses.dataclass(frozen=True)
class Signed:
    """An objective times a sign, with the codes that it trains on in float64."""

    objective: Any
    sign: float

    @property
    def wants_rows(self) -> bool:
        return getattr(self.objective, "wants_rows", False)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float, **rows: Tensor) -> Tensor:
        return self.sign * _in_double(self.objective)(model, x, y, progress, **rows)


def _in_double(objective: Any) -> Any:
    if isinstance(objective, strategies.Mixture):
        return dataclasses.replace(objective, on_manifold=_in_double(objective.on_manifold))
    if isinstance(objective, strategies.OnManifoldAdversarial):
        return dataclasses.replace(objective, data=Double(objective.data))
    return objective


def shortened(part: Any) -> Any:
    """An objective with at most 3 steps an attack: how many there are is part of a name, what they do is not."""
    if isinstance(part, tuple):
        return tuple(map(shortened, part))
    if not dataclasses.is_dataclass(part) or isinstance(part, type) or hasattr(part, "labels"):
        return part
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    changes = {name: shortened(value) for name, value in fields.items()}
    changes |= {"steps": min(fields["steps"], 3)} if "steps" in fields else {}
    return dataclasses.replace(part, **changes)


def steps_of(recipe: Recipe) -> int:
    """Enough to pass through every stage, and no more."""
    if recipe.architecture == "preact_resnet18":
        return 2
    ends = [end for end, _ in getattr(recipe.objective, "stages", ())]
    return {0: 6, 2: 24 if 0.95 in ends else 6, 3: 12}[len(ends)]


def examples_for(recipe: Recipe) -> tuple[Dataset, Tensor]:
    """A training set of two to six batches, and images to look at."""
    if recipe.architecture in ("preact_resnet18", "kolter_wong_cifar"):
        generator = torch.Generator().manual_seed(3)
        side = 16 if recipe.architecture == "preact_resnet18" else 32
        pixels = torch.randint(0, 256, (8, 3, side, side), generator=generator).to(torch.uint8)
        colour = Dataset.from_pixels("noise", "train", pixels, torch.arange(8), tuple("0123456789"))
        return colour.first(4), colour.images[4:]
    if isinstance(recipe.objective, (strategies.OnManifoldAdversarial, strategies.Mixture)):
        return letters().first(24), letters().images[24:]
    digits = data.load("digits")
    if recipe.architecture.startswith(LARGE):
        return digits.first(12), digits.images[100:104]
    return digits.first(24), digits.images[100:116]


def trained(recipe: Recipe, *, step: float = 1, sign: float = 1, seed: float = 0) -> Outcome:
    """Logits of a fresh network, and what a few steps with a small learning rate change in them, all in float64.

    In float32 the sign of a gradient near zero, and with it a golden run, would depend on the machine.
    """
    images, others = examples_for(recipe)
    batch = 2 if recipe.architecture.startswith(LARGE) else 8
    rate = 10 if recipe.architecture == "preact_resnet18" else 1000  # else signs amplify noise
    model = models.build(recipe.architecture, seed=int(seed)).double()
    images = dataclasses.replace(images, images=images.images.double())
    others = others.double()

    if isinstance(model, abs.AnalysisBySynthesis):
        model.samples, model.steps = 40, 3
    latents = torch.randn(4, acgan.LATENT, generator=torch.Generator().manual_seed(0)).double()

    def logits() -> Tensor:
        model.train(recipe.architecture in NORMALISED)
        with torch.no_grad():
            found = [model(others).flatten()]
            if isinstance(model, vae_gan.VaeGan):
                found = [found[0][::28], model.discriminate(others)]
            if isinstance(model, acgan.ACGAN):
                found.append(model.generate(torch.arange(4), latents)[..., ::4].flatten())
            return torch.cat(found)

    before = logits()
    training.fit(
        model,
        images,
        Signed(shortened(recipe.objective), sign),
        epochs=max(1, steps_of(recipe) * batch // len(images)),
        batch_size=batch,
        learning_rate=step * recipe.learning_rate / rate,
        schedule=recipe.schedule,
        max_gradient_norm=recipe.max_gradient_norm,
        dtype=recipe.dtype,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )
    return [numbers(before), numbers(logits() - before)]


def numbers(values: Tensor) -> list[float]:
    """Numbers to five digits."""
    return [float(f"{value:.5g}") for value in values.flatten().tolist()]


# ---- attacks and other measurements ----


def attack_runs() -> dict[str, Any]:
    """One setting of each attack, at its defaults where it has any that a run of a second can afford."""
    return {
        "FGSM": attacks.FGSM(eps=0.1),
        "FGSM, saturated": attacks.FGSM(eps=0.1),
        "PGD, saturated": attacks.PGD(threat=Linf(eps=0.1), steps=5),
        "RFGSM": attacks.RFGSM(eps=0.1),
        "IFGSM": attacks.IFGSM(eps=0.1),
        "PGD": attacks.PGD(threat=Linf(eps=0.1), steps=5),
        "PGD in l2": attacks.PGD(threat=L2(eps=2.0), steps=4, step_size=0.2, random_start=False),
        "PGD, hinge": attacks.PGD(threat=Linf(eps=0.1), steps=10, loss=attacks.Hinge(), keep_best=False),
        "PGD, decaying, two starts": attacks.PGD(
            threat=Linf(eps=0.1), steps=10, schedule=attacks.decaying, restarts=2, loss=attacks.margin
        ),
        "FixedRadius": blind_spots.FixedRadius(threat=Linf(eps=0.1), restarts=1, steps=20),
        "Square": square.Square(eps=0.1, queries=60),
        "CarliniLinf": carlini.CarliniLinf(iterations=10, initial_c=0.01),
        "SigmaZero": l0.SigmaZero(steps=20),
        "GreedyPixels": l0.GreedyPixels(max_pixels=3, candidates=20),
        "CarliniL2": carlini.CarliniL2(iterations=30, binary_steps=2),
        "Ascent": latent.Ascent(eps=0.1, steps=15, learning_rate=0.01),
        "Ascent, best": latent.Ascent(eps=0.1, steps=10, learning_rate=0.01, keep="best"),
        "Ascent in l2": latent.Ascent(eps=1.5, steps=15, learning_rate=0.02, norm="l2"),
        "Ascent in l2, best": latent.Ascent(eps=1.5, steps=10, learning_rate=0.02, norm="l2", keep="best"),
        "CarliniAscent": latent.CarliniAscent(steps=20, learning_rate=0.05),
    }


SLOW = ("CarliniLinf", "CarliniL2", "GreedyPixels", "Square", "SigmaZero", "FixedRadius")
"""Attacks on 12 digits instead of 40."""


def attacked(name: str, *, step: float = 1, sign: float = 1) -> Outcome:
    """What an attack makes of 40 digits: the loss and the l2 length of each."""
    net, attack = models.published("small_cnn"), attack_runs()[name]
    digits = data.load("digits", "test").first(12 if name in SLOW else 40)
    for field, factor in {"step_size": step, "eps": step, "learning_rate": step}.items():
        if step != 1 and hasattr(attack, field) and factor != 1:
            attack = dataclasses.replace(attack, **{field: factor * getattr(attack, field)})
    if step != 1 and name == "FixedRadius":
        attack = dataclasses.replace(attack, threat=Linf(eps=0.1 * step))
    if name.endswith("saturated"):
        net = nn.Sequential(net, Times(30.0))
    if sign != 1:
        net = nn.Sequential(net, Times(-1.0))
    x, y = digits.images, digits.labels
    if isinstance(attack, (latent.Ascent, latent.CarliniAscent)):
        generator = torch.Generator().manual_seed(0)
        x_adv = attack(net, latent.Pixels(), x, x, y, generator).codes
    else:
        x_adv = attack(net, x, y)
    losses = evaluation.losses(models.published("small_cnn"), x_adv, y)
    lengths = (x_adv - x).flatten(1).norm(dim=1)
    return [numbers(losses), numbers(lengths)]


class Times(nn.Module):
    """Logits times a number. Of a negative one, an attack that climbs the loss goes down it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def measurements() -> dict[str, Callable[[], Tensor]]:
    """What else is kept under a name."""
    digits = data.load("digits", "test").first(30)
    net = models.published("small_cnn")
    certified = models.build("kolter_wong_small", seed=0)
    gan = models.build("acgan_mnist_narrow", seed=0)
    train = data.load("digits").first(60)
    grid = alignment.Grid(rotations=(-10, 10), shears=(0.1,), scales=(0.75, 1), shift=2)
    x, y = digits.images, digits.labels
    few = letters().first(10)
    maps = SimpleNamespace(
        manifold=fonts.Affine("digits"), codes=torch.tensor(fonts.IDENTITY).expand(30, -1), labels=digits.labels,
        bases=lambda rows: digits.images[rows],
    )  # fmt: skip
    ascent = latent.Ascent(steps=10)
    shifted = few.images.roll(1, -1)
    low, high = (x - 0.05).clamp(0, 1), (x + 0.05).clamp(0, 1)
    return {
        "interval_margins": lambda: bounds.interval_margins(certified, low, high, y),
        "dual_margins": lambda: dual_margins(certified, low, high, y),
        "crown_ibp_margins": lambda: bounds.crown_ibp_margins(certified, low, high, y),
        "aligned": lambda: examples.aligned(digits.first(5), train, grid)["images"].flatten(1)[:, ::28],
        "nearest_targets": lambda: examples.laid_over(
            train, examples.nearest_targets(x[:2], y[:2], train)
        ).flatten(1)[:, ::28],
        "typicality": lambda: examples.typicality(net, digits),
        "score": lambda: acgan.score(gan, x[:5], y[:5], restarts=2, steps=3),
        "loss_gradients": lambda: evaluation.loss_gradients(net, x, y).flatten(1)[:, ::28],
        "count_adversarial_directions": lambda: subspaces.count_adversarial_directions(net, digits, 0.1),
        "examples": lambda: attempts.examples(net, ascent, maps, points=20, tries=2)["codes"],
        "smallest": lambda: attempts.smallest(net, ascent, maps, points=20, rounds=4)["size"].clamp_max(1),
        "onto_affine": lambda: projection.onto_affine(shifted, few.glyphs(), few.thetas, steps=9)["distance"],
        "onto_neighbours": lambda: projection.onto_neighbours(x.roll(1, -1), x, train.images, 10)["distance"],
        "greedy_flips": lambda: flips.greedy_flips(net, x[:6], y[:6], 0.2).flatten(1).sum(1),
    }


# ---- comparing ----


@functools.cache
def outcomes() -> dict[str, Callable[..., Outcome]]:
    """Every golden run by name; ``step`` and ``sign`` multiply step size and loss, ``seed`` draws another start."""
    runs: dict[str, Callable[..., Outcome]] = {}
    for name, one in recipes_by_name().items():
        runs[f"recipe {name}"] = lambda one=one, **change: trained(one, **change)
    for name in attack_runs():
        runs[f"attack {name}"] = lambda name=name, **change: attacked(name, **change)
    for name, measure in measurements().items():
        runs[f"measurement {name}"] = lambda measure=measure: [numbers(measure().float())]
    return runs


def names_in(run: str) -> list[str]:
    """The names whose versions the key of a result of this run holds."""
    kind, _, name = run.partition(" ")
    if kind == "recipe":
        one = recipes_by_name()[name]
        schedule = getattr(one.schedule, "__name__", type(one.schedule).__name__)
        found = [one.architecture, "fit", *_names(artifacts.describe(one)), schedule]
    elif kind == "attack":
        found = _names(artifacts.describe(attack_runs()[name]))
    else:
        found = [name]
    return sorted(set(found))


def _names(described: Any) -> list[str]:
    if isinstance(described, dict):
        own = [described["is"].split(" ")[0]] if isinstance(described.get("is"), str) else []
        return own + [name for part in described.values() for name in _names(part)]
    if isinstance(described, list):
        return [name for part in described for name in _names(part)]
    return []


def versions(run: str) -> dict[str, int]:
    return {name: artifacts.VERSIONS.get(name, 1) for name in names_in(run)}


def difference(one: Outcome, other: Outcome) -> float:
    """The largest difference of a part, in root mean squares; infinite where a part has another length."""
    if [len(part) for part in one] != [len(part) for part in other]:
        return float("inf")
    pairs = [(torch.tensor(a), torch.tensor(b)) for a, b in zip(one, other, strict=True)]
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


def complaint(run: str, found: Outcome) -> str:
    """What is wrong with an outcome, and what to do about it; empty where nothing is."""
    stored = GOLDEN.get(run)
    if stored is None:
        return f"{run} has no golden run yet: python tests/test_golden.py makes it"
    raised = versions(run) != stored["versions"]
    moved = difference(stored["outcome"], found)
    if raised:
        return f"a version behind {run} was raised: python tests/test_golden.py renews its golden run"
    allowed = TOLERANCE[run.split(" ")[0]]
    if moved > allowed:
        return (
            f"{run} has moved by {moved:.1%} ({allowed:.0%} may). If that is meant, raise the version of what you "
            f"changed in artifacts.VERSIONS ({', '.join(names_in(run))}) and run python tests/test_golden.py"
        )
    return ""


@pytest.mark.parametrize("run", outcomes())
def test_a_golden_run_has_not_moved(run):
    assert complaint(run, outcomes()[run]()) == ""


@pytest.mark.parametrize(
    ("run", "change"),
    [
        ("recipe small_cnn", {"step": 1.3}),
        ("recipe eat_d_adv", {"sign": -1}),
        ("recipe eat_d", {"seed": 1}),
        ("recipe dis_on_manifold", {"sign": -1}),
        ("attack PGD", {"step": 1.3}),
        ("attack FGSM, saturated", {"sign": -1}),
        ("attack GreedyPixels", {"sign": -1}),
        ("attack CarliniL2", {"step": 1.3}),
        ("attack Ascent in l2", {"step": 1.3}),
    ],
    ids=str,
)
def test_another_step_loss_or_start_is_noticed(run, change):
    assert "raise the version" in complaint(run, outcomes()[run](**change))


def test_a_saturated_gradient_of_the_other_sign_is_noticed(monkeypatch):
    """The lead is climbed, and everything else is as it was: what the gradient is in training does not tell."""
    true = attacks.cross_entropy

    def reversed_where_sure(logits: Tensor, y: Tensor) -> Tensor:
        losses = true(logits, y)
        return torch.where(
            attacks.margin(logits, y) < -attacks.SATURATED, 2 * losses.detach() - losses, losses
        )

    monkeypatch.setattr(attacks, "cross_entropy", reversed_where_sure)
    monkeypatch.setattr(
        attacks.ascend, "__kwdefaults__", attacks.ascend.__kwdefaults__ | {"loss": reversed_where_sure}
    )
    assert "raise the version" in complaint("attack FGSM, saturated", attacked("FGSM, saturated"))


def test_a_raised_version_asks_for_a_renewal(monkeypatch):
    monkeypatch.setitem(artifacts.VERSIONS, "FGSM", 2)
    assert "was raised" in complaint("attack FGSM", GOLDEN["attack FGSM"]["outcome"])


def test_every_golden_run_is_still_made():
    assert GOLDEN.keys() - {"defaults", "names"} == outcomes().keys()


# ---- defaults and names ----


DESCRIBED = (
    *(threats, attacks, carlini, l0, square, blind_spots, objectives, acgan, recipes),
    *(ensemble_objectives, blind_spot_objectives, invariance_objectives, latent, strategies, vae_gan),
)
KEPT = (
    *(attempts.examples, attempts.attempts, attempts.steps, attempts.smallest, attempts.transferred),
    *(projection.onto_affine, projection.onto_neighbours, projection.distances),
)


def defaults() -> dict[str, dict[str, Any]]:
    """What keys leave out of everything that they describe: its defaults, or what was the default once."""
    found = {}
    for module in DESCRIBED:
        for name, kind in vars(module).items():
            if dataclasses.is_dataclass(kind) and getattr(kind, "__module__", "") == module.__name__:
                fields = [f for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING]
                found[name] = {
                    f.name: artifacts.describe(f.metadata.get("unnamed", f.default)) for f in fields
                }
    for function in KEPT:
        given = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
        found[function.__name__] = {p.name: artifacts.describe(p.default) for p in given}
    return found


def changed_defaults(found: dict[str, dict[str, Any]]) -> list[str]:
    """Stored defaults that are others now; a new field with a default is none."""
    return [
        f"{kind}.{field}"
        for kind, fields in GOLDEN["defaults"].items()
        for field, value in fields.items()
        if found.get(kind, {}).get(field) != value and artifacts.VERSIONS.get(kind, 1) == 1
    ]


def test_a_changed_default_needs_a_raised_version():
    found = defaults()
    assert changed_defaults(found) == []
    assert changed_defaults({**found, "PGD": {**found["PGD"], "steps": 20}}) == ["PGD.steps"]
    assert changed_defaults({**found, "PGD": {**found["PGD"], "new": 1}}) == []


def names() -> dict[str, str]:
    """Names under which results are published."""
    digits = data.load("digits").first(1280)
    net = networks.Network(recipe("small_cnn"), digits)
    pgd = attacks.PGD(threat=Linf(eps=0.1), steps=20, dtype=torch.bfloat16)
    return {
        "network": net.name,
        "examples": later(evaluation.adversarial, net, pgd, digits.first(10)).name,
        "verdicts": artifacts.later(evaluation.correct, net, digits.images[:5], digits.labels[:5]).name,
        "composed": artifacts.later(
            evaluation.correct,
            artifacts.composed(nn.Sequential, models.Binarise(20.0), net),
            digits.images[:5],
            digits.labels[:5],
        ).name,
    }


def test_the_names_of_published_artifacts_stand():
    assert names() == GOLDEN["names"], "another way of naming orphans everything that is cached or published"


def renew() -> int:
    """Store new golden runs, and those of which a version was raised; returns 1 where one moved without."""
    kept: dict[str, Any] = {"defaults": defaults(), "names": GOLDEN.get("names") or names()}
    refused = 0
    with repeatable():
        for run, make in outcomes().items():
            found = make()
            said = complaint(run, found)
            if "raise the version" in said:
                print(said)
                refused = 1
            stored = GOLDEN.get(run)
            renewed = not stored or "was raised" in said
            kept[run] = {"versions": versions(run), "outcome": found} if renewed else stored
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in kept.items()]
    STORE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return refused


if __name__ == "__main__":
    sys.exit(renew())
