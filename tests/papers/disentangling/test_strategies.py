"""Training strategies against losses written out by hand, and their recipes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import artifacts, models, networks, training
from robustutils.data import Dataset
from robustutils.objectives import Clean
from robustutils.papers.disentangling import fonts, recipes
from robustutils.papers.disentangling.latent import Ascent, Manifold, Pixels
from robustutils.papers.disentangling.strategies import (
    Mixture,
    OnManifoldAdversarial,
    RegularAdversarial,
    Trades,
    TransformationAdversarial,
    TransformationAugmentation,
)

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(10, 1, 4, 4, generator=GENERATOR)
Y = torch.arange(10) % 3
ROWS = torch.tensor([11, 3, 5, 0, 8, 2, 9, 7, 1, 4])


class Net(nn.Module):
    """Three scores of sixteen pixels behind a batch normalisation; it notes what it is shown, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)))
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        self.modes.append(self.training)
        return self.norm(x.flatten(1)) @ self.weight


@dataclass
class Moved:
    """A stand-in attack that moves codes by a fixed step, and notes what it is given."""

    step: float
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        manifold: Manifold,
        codes: Tensor,
        bases: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> SimpleNamespace:
        given = {"manifold": manifold, "codes": codes, "bases": bases, "labels": labels}
        self.calls.append({**given, "seed": generator.initial_seed()})
        return SimpleNamespace(codes=codes + self.step)


@dataclass(frozen=True)
class Added:
    """Images that are base and code together, halved."""

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        return (codes + bases) / 2

    def bounds(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(0.0), torch.tensor(1.0)


@dataclass(frozen=True, eq=False)
class Sums:
    """Twelve examples with codes on such a manifold."""

    codes: Tensor
    labels: Tensor
    all_bases: Tensor
    manifold: Added = Added()

    def bases(self, rows: Tensor) -> Tensor:
        return self.all_bases[rows]


def sums() -> Sums:
    labels = torch.zeros(12, dtype=torch.int64)
    labels[ROWS] = Y
    generator = torch.Generator().manual_seed(2)
    codes, bases = torch.rand(2, 12, 1, 4, 4, generator=generator)
    return Sums(codes, labels, bases)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def by_hand(images: Tensor, labels: Tensor = Y) -> Tensor:
    """The loss of one pass in training mode over all of some images."""
    return F.cross_entropy(Net().train()(images), labels)


def only_pass(model: Net) -> Tensor:
    """What the model was shown in its only pass, which was in training mode."""
    assert model.modes == [True]
    return model.seen[0]


# ---- in pixels ----


@pytest.mark.parametrize("n", [10, 7, 2])
def test_regular_training_replaces_the_second_half_in_one_pass(n):
    attack, model = Moved(-0.1), Net().train()
    loss = RegularAdversarial(attack=attack)(model, X[:n], Y[:n], 0.5)
    half = n // 2
    images = torch.cat([X[:half], X[half:n] - 0.1])
    same(only_pass(model), images)
    same(loss, by_hand(images, Y[:n]))
    (call,) = attack.calls
    assert call["manifold"] == Pixels()
    assert torch.equal(call["codes"], X[half:n])
    assert torch.equal(call["labels"], Y[half:n])


# ---- on a manifold ----


def test_training_on_the_true_manifold_moves_the_codes_of_the_second_half():
    data, attack, model = sums(), Moved(0.2), Net().train()
    loss = OnManifoldAdversarial(data=data, attack=attack)(model, X, Y, 0.5, rows=ROWS)
    rest = ROWS[5:]
    images = torch.cat([X[:5], (data.codes[rest] + 0.2 + data.all_bases[rest]) / 2])
    same(only_pass(model), images)
    same(loss, by_hand(images))
    (call,) = attack.calls
    assert call["manifold"] is data.manifold
    assert torch.equal(call["codes"], data.codes[rest])
    assert torch.equal(call["bases"], data.all_bases[rest])
    assert torch.equal(call["labels"], Y[5:])


def test_independent_examples_are_drawn_among_those_within_the_bounds_with_their_own_labels():
    data = sums()
    data.codes[[1, 4, 6, 10], 0, 2, 2] = torch.tensor([1.5, -0.5, 7.0, -3.0])
    objective = OnManifoldAdversarial(data=data, attack=Moved(0.0), independent=True)
    torch.manual_seed(0)
    drawn: list[int] = []
    for _ in range(40):
        model = Net().train()
        loss = objective(model, X, Y, 0.5, rows=ROWS)
        shown = only_pass(model)
        assert torch.equal(shown[:5], X[:5])
        apart = (shown[5:, None] - (data.codes + data.all_bases) / 2).flatten(2).abs().amax(2)
        places = apart.argmin(1)
        assert (apart.amin(1) < 1e-6).all(), "an image is of none of the examples"
        drawn += places.tolist()
        same(loss, by_hand(shown, torch.cat([Y[:5], data.labels[places]])))
    valid = [0, 2, 3, 5, 7, 8, 9, 11]
    assert sorted(set(drawn)) == valid
    # Four standard deviations of a binomial with n = 200 and p = 1/8.
    assert all(abs(drawn.count(place) - 25) < 19 for place in valid)


def test_a_data_set_without_codes_within_the_bounds_is_refused():
    data = replace(sums(), codes=torch.full((12, 1, 4, 4), 2.0))
    objective = OnManifoldAdversarial(data=data, attack=Moved(0.0), independent=True)
    with pytest.raises(ValueError, match="none of the 12 codes"):
        objective(Net(), X, Y, 0.5, rows=ROWS)


@pytest.mark.parametrize("mixed", [False, True])
def test_places_of_another_training_set_or_none_are_refused(mixed):
    on_manifold = OnManifoldAdversarial(data=sums(), attack=Moved(0.0))
    objective = Mixture(on_manifold=on_manifold, attack=Moved(0.0)) if mixed else on_manifold
    assert objective.wants_rows
    with pytest.raises(ValueError, match="rows=None"):
        objective(Net(), X, Y, 0.5)
    with pytest.raises(ValueError, match=r"labels.*training"):
        objective(Net(), X, (Y + 1) % 3, 0.5, rows=ROWS)


def test_a_mixture_has_a_third_clean_a_third_regular_and_the_rest_on_the_manifold():
    data, regular, on_manifold, model = sums(), Moved(-0.1), Moved(0.2), Net().train()
    objective = Mixture(on_manifold=OnManifoldAdversarial(data=data, attack=on_manifold), attack=regular)
    loss = objective(model, X, Y, 0.5, rows=ROWS)
    rest = ROWS[6:]
    images = torch.cat([X[:3], X[3:6] - 0.1, (data.codes[rest] + 0.2 + data.all_bases[rest]) / 2])
    same(only_pass(model), images)
    same(loss, by_hand(images))
    assert regular.calls[0]["manifold"] == Pixels()
    assert torch.equal(regular.calls[0]["labels"], Y[3:6])
    assert torch.equal(on_manifold.calls[0]["labels"], Y[6:])


# ---- transformations ----


@pytest.mark.parametrize("ranges", ["hard", "digits"])
def test_transformation_training_starts_at_the_identity_of_the_second_half(ranges):
    attack, model = Moved(0.05), Net().train()
    loss = TransformationAdversarial(attack=attack, ranges=ranges)(model, X, Y, 0.5)
    identity = torch.tensor(fonts.IDENTITY).expand(5, 6)
    images = torch.cat([X[:5], fonts.render(X[5:], identity + 0.05)])
    same(only_pass(model), images)
    same(loss, by_hand(images))
    (call,) = attack.calls
    assert call["manifold"] == fonts.Affine(ranges)
    assert torch.equal(call["codes"], identity)
    assert torch.equal(call["bases"], X[5:])
    assert torch.equal(call["labels"], Y[5:])


@pytest.fixture
def thetas(monkeypatch) -> list[Tensor]:
    """The parameters of all images that are transformed."""
    seen: list[Tensor] = []
    render = fonts.render

    def noted(images: Tensor, theta: Tensor) -> Tensor:
        seen.append(theta)
        return render(images, theta)

    monkeypatch.setattr(fonts, "render", noted)
    return seen


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("ranges", ["hard", "digits"])
def test_augmentation_draws_around_the_identity_and_keeps_to_the_ranges(ranges, identity, thetas):
    x, y = X.repeat(80, 1, 1, 1), Y.repeat(80)
    model = Net().train()
    torch.manual_seed(0)
    loss = TransformationAugmentation(ranges=ranges, identity=identity)(model, x, y, 0.5)
    (theta,) = thetas
    images = torch.cat([x[:400], fonts.render(x[400:], theta)])
    same(only_pass(model), images)
    same(loss, by_hand(images, y))
    low, high = fonts.theta_bounds(ranges)
    assert ((theta >= low) & (theta <= high)).all()
    centre = torch.tensor(fonts.IDENTITY) * identity
    expected = torch.stack([(centre - 0.3).clamp(low, high), (centre + 0.3).clamp(low, high)])
    torch.testing.assert_close(torch.stack([theta.amin(0), theta.amax(0)]), expected, atol=0.02, rtol=0)
    if not identity:
        assert (theta[:, 4] == low[4]).all(), "around zero every scale is clipped to its smallest"
    bound = min(0.3, high[2].item())
    inside = theta[:, 2][theta[:, 2].abs() < bound]
    assert inside.abs().mean().item() == pytest.approx(bound / 2, rel=0.15), "not uniform"


def test_augmentation_with_a_small_radius_hardly_changes_an_image(thetas):
    model = Net().train()
    TransformationAugmentation(ranges="hard", eps=1e-6)(model, X, Y, 0.5)
    torch.testing.assert_close(only_pass(model), X, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda ranges: TransformationAdversarial(attack=Moved(0.0), ranges=ranges),
        lambda ranges: TransformationAugmentation(ranges=ranges),
    ],
)
def test_unknown_ranges_are_refused(make):
    with pytest.raises(ValueError, match=r"'heard'.*'hard'"):
        make("heard")


@pytest.mark.parametrize("eps", [0.0, -0.3, math.nan])
def test_augmentation_refuses_a_radius_that_is_not_positive(eps):
    with pytest.raises(ValueError, match=f"eps={eps}"):
        TransformationAugmentation(ranges="hard", eps=eps)


# ---- TRADES ----


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of each row of logits."""
    p, q = p.softmax(1), q.softmax(1)
    return (p * (p / q).log()).sum(1)


def test_trades_adds_the_divergence_at_the_images_where_it_climbed_to():
    model = Net().train()
    torch.manual_seed(0)
    loss = Trades(beta=2.5, eps=0.1, steps=6)(model, X, Y, 0.5)
    assert model.modes == [False] * 7 + [True]
    shown = model.seen[-1]
    x, x_adv = shown[:10], shown[10:]
    assert torch.equal(x, X)
    assert 0.09 < (x_adv - X).abs().max() <= 0.1 + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    logits = Net().train()(shown)
    same(loss, F.cross_entropy(logits[:10], Y) + 2.5 * divergence(logits[:10], logits[10:]).mean())
    fixed = Net().eval()
    climbed = divergence(fixed(X), fixed(x_adv))
    noise = 0.1 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert (climbed > 2 * divergence(fixed(X), fixed((X + noise).clamp(0, 1)))).all()


def test_the_first_step_of_trades_has_four_thirds_of_the_radius_over_the_steps():
    model = Net().train()
    Trades(steps=40)(model, X, Y, 0.5)
    walked = (model.seen[2] - model.seen[1]).abs()
    moved = walked[(model.seen[1] > 0.02) & (model.seen[1] < 0.98)]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.01))


@pytest.mark.parametrize(
    "change", [{"beta": -1.0}, {"beta": math.nan}, {"eps": 0.0}, {"eps": 76.5}, {"steps": 0}], ids=str
)
def test_trades_refuses(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Trades(**change)


# ---- all of them, with the real attack ----


def letters(n: int = 40) -> fonts.FontsDataset:
    """Letters of two fonts that are noise."""
    generator = torch.Generator().manual_seed(3)
    prototypes = torch.randint(0, 256, (2, 10, 28, 28), generator=generator).to(torch.uint8)
    return fonts.dataset(prototypes, n)


STRATEGIES: dict[str, Callable[[fonts.FontsDataset], recipes.Recipe]] = {
    "regular": lambda data: recipes.regular(2),
    "on manifold": lambda data: recipes.on_manifold(data, 2),
    "on manifold, independent": lambda data: recipes.on_manifold(data, 2, independent=True),
    "transformation, adversarial": lambda data: recipes.transformation_adversarial("hard", 2),
    "transformation, augmentation": lambda data: recipes.transformation_augmentation("hard"),
    "transformation, as released": lambda data: recipes.transformation_augmentation("hard", identity=False),
    "mixture": lambda data: recipes.mixture(data, 2),
    "trades": lambda data: recipes.trades(2),
}


def loss_of(objective: Any, model: nn.Module, data: fonts.FontsDataset) -> Tensor:
    torch.manual_seed(5)
    rows = torch.arange(20)
    extra = {"rows": rows} if getattr(objective, "wants_rows", False) else {}
    return objective(model, data.images[:20], data.labels[:20], 0.5, **extra)


@pytest.mark.parametrize("training_mode", [True, False])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_gives_gradients_and_leaves_modes_statistics_and_images_alone(name, training_mode):
    data = letters()
    objective = STRATEGIES[name](data).objective
    model = models.build("dis_cnn").train(training_mode)
    before, passes = data.images.clone(), []
    model[-1].register_forward_hook(lambda layer, given, found: passes.append((layer.training, len(found))))
    loss = loss_of(objective, model, data)
    assert loss.shape == ()
    loss.backward()
    assert passes[-1] == (training_mode, 40 if name == "trades" else 20), "one pass learns"
    assert not any(training for training, _ in passes[:-1]), "attacks are in evaluation mode"
    assert {part.training for part in model.modules()} == {training_mode}
    assert int(model[1].num_batches_tracked) == training_mode, "an attack has moved the statistics"
    silent = [label for label, weight in model.named_parameters() if not weight.grad.abs().sum() > 0]
    assert silent == []
    assert torch.equal(data.images, before)


@pytest.mark.parametrize("name", STRATEGIES)
def test_draws_repeat_with_torchs_seed(name):
    data = letters()
    objective = STRATEGIES[name](data).objective
    model = models.build("dis_cnn").eval()
    first, again = (loss_of(objective, model, data).item() for _ in range(2))
    assert first == again
    torch.manual_seed(6)
    rows = {"rows": torch.arange(20)} if getattr(objective, "wants_rows", False) else {}
    assert objective(model, data.images[:20], data.labels[:20], 0.5, **rows).item() != first


def test_each_batch_has_a_start_of_its_own():
    attack = Moved(0.0)
    torch.manual_seed(0)
    for _ in range(3):
        RegularAdversarial(attack=attack)(Net(), X, Y, 0.5)
    assert len({call["seed"] for call in attack.calls}) == 3


def test_adversarial_images_have_a_higher_loss_than_the_images_they_replace():
    """Of a trained network in evaluation mode, half of whose loss is that of the clean half."""
    data = letters()
    model = models.build("dis_cnn")
    training.fit(model, data, Clean(), epochs=10, batch_size=20, learning_rate=0.01)
    clean = loss_of(Clean(), model, data).item()
    for name in ("regular", "on manifold", "transformation, adversarial", "mixture"):
        objective: Any = STRATEGIES[name](data).objective
        assert loss_of(objective, model, data).item() > clean + 0.1, name


# ---- recipes ----


def test_recipes_of_dis_have_the_settings_of_the_paper():
    data = letters()
    for one in (recipes.normal(), *(make(data) for make in STRATEGIES.values())):
        settings = (one.architecture, one.epochs, one.batch_size, one.learning_rate, one.betas)
        assert settings == ("dis_cnn", 20, 100, 0.01, (0.5, 0.9))
        assert (one.weight_decay, one.dtype, one.max_gradient_norm) == (1e-4, torch.float32, math.inf)
        assert one.schedule(0.5) == pytest.approx(0.95**11)
    assert recipes.normal().objective == Clean()
    papers = Ascent(eps=0.3, steps=40, learning_rate=0.005, norm="linf", keep="best")
    regular: Any = recipes.regular().objective
    assert regular.attack == papers
    mixture: Any = recipes.mixture(data).objective
    assert mixture.attack == mixture.on_manifold.attack == papers
    shorter: Any = recipes.regular(10).objective
    assert shorter.attack == replace(papers, steps=10, learning_rate=0.02)
    with pytest.raises(ValueError, match="steps=0"):
        recipes.regular(0)


def test_every_recipe_of_dis_has_a_name_of_its_own():
    data, others = letters(), letters(30)
    every = [recipes.normal(), *(make(data) for make in STRATEGIES.values())]
    every += [recipes.regular(), STRATEGIES["on manifold"](others)]
    names = [artifacts.digest(artifacts.describe(one)) for one in every]
    assert len(set(names)) == len(every)


def test_a_network_is_trained_on_a_manifold_by_its_recipe_and_kept(cache):
    data = letters(20)
    recipe = recipes.on_manifold(data, 1).replace(epochs=1, batch_size=10)
    network = networks.Network(recipe, data)
    assert network().training is False
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_a_training_set_in_another_order_than_its_codes_is_noticed():
    data = letters(20)
    shuffled: Dataset = data.take(torch.arange(19, -1, -1))
    recipe = recipes.on_manifold(data, 1).replace(epochs=1, batch_size=10)
    with pytest.raises(ValueError, match="training set"):
        networks.Network(recipe, shuffled)()
