"""The AC-GAN: whose gradient reaches whom, the penalty of critics with a known gradient, and the scores of images."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import models, networks, training
from robustutils.artifacts import kept, later
from robustutils.data import Dataset
from robustutils.papers.invariance import acgan
from robustutils.papers.invariance.acgan import ACGAN, LATENT, Generative, gradient_penalty, score
from robustutils.recipes import recipe

EVERY_STEP = Generative(critic_steps=1)


def gan(seed: int = 0, width: int = 2, classes: int = 10) -> ACGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ACGAN(classes, width=width)


def halves(model: ACGAN) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the generator, and those of the discriminator."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    generator = {name: weight for name, weight in named.items() if name.startswith("generator.")}
    return generator, {name: weight for name, weight in named.items() if name not in generator}


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 28, 28, generator=generator), torch.arange(n) % 10


def gradients(model: ACGAN, objective: Any, seed: int = 0) -> dict[str, Tensor | None]:
    """What one step gives every weight, out of the same random numbers."""
    model.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective(model, *batch(), 0.0).backward()
    return {name: None if w.grad is None else w.grad.clone() for name, w in model.named_parameters()}


def drawn(model: ACGAN, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The labels, noise and mixing weights that a step draws."""
    n = len(batch()[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.randint(model.classes, (n,)), torch.randn(n, LATENT), torch.rand(n, 1, 1, 1)


@pytest.fixture(scope="module")
def few() -> Dataset:
    """20 random images of 28x28."""
    pixels = torch.randint(0, 256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(2))
    return Dataset.from_pixels(
        "few", "train", pixels.to(torch.uint8), torch.arange(20) % 10, tuple("0123456789")
    )


# ---- the network ----


@pytest.mark.parametrize("width", [1, 2])
def test_generator_and_discriminator_have_the_shapes_of_the_paper(width):
    model = gan(width=width)
    labels = torch.tensor([0, 9, 3])
    images = model.generate(labels, torch.randn(3, LATENT))
    assert images.shape == (3, 1, 28, 28)
    assert 0 <= images.amin() <= images.amax() <= 1
    inside = [
        layer(images).shape[1:] for layer in (model.features[:1], model.features[:3], model.features[:5])
    ]
    assert inside == [(width, 14, 14), (2 * width, 7, 7), (4 * width, 4, 4)]
    scores, logits = model.discriminate(images)
    assert (scores.shape, logits.shape) == ((3,), (3, 10))
    torch.testing.assert_close(model(images), logits)


def test_the_class_is_one_hot_before_the_noise():
    model, seen = gan(classes=4), []
    model.generator[0].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    z = torch.randn(2, LATENT)
    model.generate(torch.tensor([3, 0]), z)
    expected = torch.cat([torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0]]), z], 1)
    assert torch.equal(seen[0], expected)


def test_samples_are_repeatable_and_differ():
    model, labels = gan(), torch.arange(4)
    first, again, other = (model.sample(labels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_both_published_widths_are_architectures():
    wide, narrow = models.build("acgan_mnist"), models.build("acgan_mnist_narrow")
    kernels = [
        [layer.weight.shape for layer in part if hasattr(layer, "weight")]
        for part in (wide.generator, wide.features)  # type: ignore[union-attr, arg-type]
    ]
    assert kernels[0] == [(8192, 74), (512, 256, 5, 5), (256, 128, 5, 5), (128, 1, 5, 5)]
    assert kernels[1] == [(128, 1, 5, 5), (256, 128, 5, 5), (512, 256, 5, 5)]
    assert models.count_parameters(narrow) < models.count_parameters(wide) / 12


def test_weights_start_so_that_layers_keep_the_size_of_their_inputs():
    model = gan(width=32)
    generator = torch.Generator().manual_seed(0)
    inside = model.generator[:2](torch.randn(200, 10 + LATENT, generator=generator))
    for layer in (model.generator[2:5], model.generator[5:7]):
        before, inside = inside.square().mean(), layer(inside)
        assert 0.6 < inside.square().mean() / before < 1.2, "the border gets fewer inputs"
    assert all((bias == 0).all() for name, bias in model.named_parameters() if name.endswith("bias"))


# ---- training ----


def test_each_part_of_the_loss_reaches_its_own_half_alone():
    model = gan()
    found = gradients(model, EVERY_STEP)
    generator, discriminator = halves(model)
    (x, y), (labels, z, mixing) = batch(), drawn(model)
    fake = model.generate(labels, z)

    scores, logits = model.discriminate(fake)
    generators = -scores.mean() + F.cross_entropy(logits, labels)
    expected = dict(zip(generator, torch.autograd.grad(generators, [*generator.values()]), strict=True))

    fake = fake.detach()
    (on_real, real_logits), (on_fake, fake_logits) = model.discriminate(x), model.discriminate(fake)
    critics = on_fake.mean() - on_real.mean()
    critics = critics + F.cross_entropy(real_logits, y) + F.cross_entropy(fake_logits, labels)
    mixed = x + mixing * (fake - x)
    critics = critics + 10 * gradient_penalty(lambda images: model.discriminate(images)[0], mixed)
    grads = torch.autograd.grad(critics, [*discriminator.values()], materialize_grads=True)
    expected |= dict(zip(discriminator, grads, strict=True))

    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=f"gradient of {name}", rtol=1e-4, atol=1e-6)
        assert gradient.abs().sum() > 0, name


def test_the_loss_is_the_critics_and_the_generators_turn_does_not_change_its_gradient():
    model = gan()
    x, y = batch()
    losses = []
    for objective in (EVERY_STEP, Generative(critic_steps=10**9)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            losses.append(objective(model, x, y, 0.0))
    torch.testing.assert_close(*losses)
    together, alone = gradients(model, EVERY_STEP), gradients(model, Generative(critic_steps=10**9))
    generator, discriminator = halves(model)
    assert all(alone[name] is None for name in generator), "not the generator's turn"
    for name in discriminator:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-6)


def test_the_generator_takes_one_of_five_steps():
    model, (x, y) = gan(width=1), batch(1)
    turns = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(60):
            model.zero_grad()
            Generative(critic_steps=5)(model, x, y, 0.0).backward()
            turns += model.generator[0].weight.grad is not None
    assert 5 <= turns <= 21, turns


def test_a_step_of_adam_leaves_the_generator_alone_when_it_is_not_its_turn(few):
    model = gan()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    training.fit(model, few, Generative(critic_steps=10**9), epochs=1, batch_size=10)
    generator, discriminator = halves(model)
    assert all(torch.equal(weight, before[name]) for name, weight in generator.items())
    assert not any(torch.equal(weight, before[name]) for name, weight in discriminator.items())


def test_an_interrupted_training_ends_with_the_same_weights(few, tmp_path, monkeypatch):
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 10}
    whole = training.fit(gan(width=1), few, Generative(critic_steps=2), **settings)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    done = 0

    def interrupted(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        return Generative(critic_steps=2)(model, x, y, progress)

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        training.fit(gan(width=1), few, interrupted, checkpoint=path, **settings)
    again = training.fit(gan(width=1), few, Generative(critic_steps=2), checkpoint=path, **settings)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_recipe_takes_a_step_in_its_precision():
    one = recipe("acgan")
    model = models.build(one.architecture).train()
    x, y = batch(4)
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=one.dtype):
        torch.manual_seed(0)
        loss = one.objective(model, x, y, 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    silent = [name for name, w in model.named_parameters() if w.grad is None or not w.grad.abs().sum() > 0]
    assert silent == []


def test_training_uses_the_moments_of_the_recipe(few, monkeypatch):
    seen: list[tuple[float, float]] = []
    adam = torch.optim.Adam

    def noted(*args: Any, betas: tuple[float, float], **settings: Any) -> torch.optim.Adam:
        seen.append(betas)
        return adam(*args, betas=betas, **settings)

    monkeypatch.setattr(torch.optim, "Adam", noted)
    for name in ("acgan", "acgan_in_full"):
        short = recipe(name).replace(architecture="acgan_mnist_narrow", epochs=1, batch_size=20)
        networks.Network(short, few)()
    assert seen == [(0.5, 0.9)] * 2, "with (0.9, 0.999) the generator goes black"


@pytest.mark.parametrize(
    ("settings", "message"), [({"critic_steps": 0}, "critic_steps=0"), ({"penalty": -1.0}, "penalty=-1.0")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Generative(**settings)


def test_another_network_is_refused(tiny_net):
    images, labels = batch(2)
    for call in (lambda net: EVERY_STEP(net, images, labels, 0.0), lambda net: score(net, images, labels)):
        with pytest.raises(ValueError, match="Sequential"):
            call(tiny_net())


# ---- the penalty ----


@pytest.mark.parametrize(("length", "penalty"), [(0.25, 0.5625), (1.0, 0.0), (3.0, 4.0)])
def test_the_penalty_of_a_linear_critic_is_the_square_of_its_length_less_one(length, penalty):
    direction = torch.randn(28 * 28, generator=torch.Generator().manual_seed(0))
    weight = (length * direction / direction.norm()).requires_grad_(True)
    found = gradient_penalty(lambda images: images.flatten(1) @ weight, batch()[0])
    torch.testing.assert_close(found, torch.tensor(penalty), rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(
        gradient, 2 * (length - 1) * direction / direction.norm(), rtol=1e-3, atol=1e-5
    )


def test_the_penalty_is_the_mean_over_images():
    images = torch.tensor([[3.0, 4], [0, 1]]).view(2, 1, 1, 2)
    found = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, images)
    torch.testing.assert_close(found, torch.tensor((4.0**2 + 0) / 2))


# ---- scores ----


@pytest.fixture
def contrast() -> ACGAN:
    """Its images depend strongly on the class and on the noise."""
    model = gan(seed=3)
    with torch.no_grad():
        for layer in model.generator:
            if hasattr(layer, "weight"):
                layer.weight.mul_(3.0)  # type: ignore[operator]
    return model


def starts(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))


def test_an_image_made_from_a_start_costs_only_its_noise(contrast):
    z, labels = starts(4), torch.tensor([1, 5, 5, 8])
    images = contrast.generate(labels, z).detach()
    found = score(contrast, images, labels, restarts=4, steps=0)
    torch.testing.assert_close(found, 0.01 * z.square().sum(1), rtol=1e-3, atol=1e-3)


def test_an_image_is_likelier_in_its_own_class(contrast):
    labels = torch.arange(10)
    images = contrast.generate(labels, starts(10)).detach()
    every = torch.stack(
        [score(contrast, images, torch.full((10,), k), restarts=10, steps=0) for k in range(10)]
    )
    assert torch.equal(every.argmin(0), labels)


def test_scores_without_steps_are_the_least_of_the_starts(contrast):
    (images, labels), z = batch(3), starts(5)
    expected = []
    for x, y in zip(images, labels, strict=True):
        made = contrast.generate(y.expand(5), z).detach()
        expected.append(((made - x).abs().sum((1, 2, 3)) + 0.01 * z.square().sum(1)).min())
    torch.testing.assert_close(score(contrast, images, labels, restarts=5, steps=0), torch.stack(expected))


def test_one_step_goes_down_the_distance_alone(contrast):
    (images, labels), z = batch(1), starts(1).requires_grad_(True)
    (gradient,) = torch.autograd.grad((contrast.generate(labels, z) - images).abs().sum(), z)
    z = (z - 0.01 * gradient).detach()
    expected = (contrast.generate(labels, z) - images).abs().sum() + 0.01 * z.square().sum()
    found = score(contrast, images, labels, restarts=1, steps=1)
    torch.testing.assert_close(found, expected.detach()[None])


def test_steps_and_restarts_lower_the_score(contrast):
    images = contrast.sample(torch.arange(5), torch.Generator().manual_seed(9))
    labels = torch.arange(5)
    few, more = (score(contrast, images, labels, restarts=n, steps=10) for n in (2, 8))
    still = score(contrast, images, labels, restarts=2, steps=0)
    assert (more <= few).all(), "the first starts are the same"
    assert few.mean() < still.mean()


def test_scores_do_not_depend_on_the_batch_and_repeat(contrast, monkeypatch):
    images, labels = batch(5)
    settings: dict[str, Any] = {"restarts": 3, "steps": 4}
    whole = score(contrast, images, labels, **settings)
    assert torch.equal(whole, score(contrast, images, labels, **settings))
    monkeypatch.setattr(acgan, "ROWS", 7)
    split = score(contrast, images, labels, **settings)
    torch.testing.assert_close(split, whole, rtol=1e-3, atol=0)  # rounding turns signs of l1 gradients


def test_scoring_leaves_the_network_and_the_callers_generator_alone(contrast):
    images, labels = batch(2)
    before, state = {k: v.clone() for k, v in contrast.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        found = score(contrast, images, labels, restarts=2, steps=2)
    assert torch.isfinite(found).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in contrast.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in contrast.state_dict().items())


def test_scores_are_kept_under_their_name(contrast, monkeypatch):
    images, labels = batch(2)
    name = later(score, contrast, images, labels, restarts=2, steps=1).name
    assert name.startswith("score-")
    assert name != later(score, contrast, images, labels, restarts=3, steps=1).name
    first = kept(score, contrast, images, labels, restarts=2, steps=1)
    monkeypatch.setattr(acgan, "_lowest", None)
    assert torch.equal(kept(score, contrast, images, labels, restarts=2, steps=1), first)


GOOD = {"images": torch.zeros(2, 1, 28, 28), "targets": torch.tensor([0, 9])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 28, 28)}, r"\[2, 28, 28\]"),
        ({"images": torch.zeros(2, 3, 28, 28)}, r"\[2, 3, 28, 28\]"),
        ({"images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}, "torch.uint8"),
        ({"images": torch.full((2, 1, 28, 28), 1.5)}, "pixels from 1.5 to 1.5"),
        ({"images": torch.full((2, 1, 28, 28), math.nan)}, "pixels from nan"),
        ({"targets": torch.tensor([0])}, r"targets \[1\]"),
        ({"targets": torch.tensor([0, 10])}, "targets from 0 to 10"),
        ({"targets": torch.tensor([-1, 3])}, "targets from -1 to 3"),
        ({"restarts": 0}, "restarts=0"),
        ({"steps": -1}, "steps=-1"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        score(gan(width=1), **(GOOD | changes))


def test_no_images_have_no_scores():
    empty: Dataset | Tensor = torch.zeros(0, 1, 28, 28)
    assert score(gan(width=1), empty, torch.zeros(0, dtype=torch.int64)).shape == (0,)
