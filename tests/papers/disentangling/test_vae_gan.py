"""VAE-GANs: their parts and losses, class manifolds and their codes, and the gate that a collapsed one does not pass."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import artifacts, models, networks, training
from robustutils.artifacts import composed, describe
from robustutils.data import Dataset
from robustutils.papers.disentangling import latent, recipes, vae_gan
from robustutils.papers.disentangling.latent import within
from robustutils.papers.disentangling.vae_gan import (
    ClassManifold,
    EncodedDataset,
    VaeGan,
    VaeGanError,
    VaeGanLoss,
    gate,
    prior,
    vae_gan_beta,
)

LOSS = VaeGanLoss(beta=2.25, gamma=0.5)
EASY: dict[str, Any] = {"max_error": 0.97, "min_within": 0.3, "spread": (0.4, 2.0)}


def gan(width: float = 1 / 16, seed: int = 0) -> VaeGan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VaeGan(width=width)


def loud(width: float = 1 / 16, seed: int = 0) -> VaeGan:
    """A VAE-GAN whose images depend strongly on the code, in evaluation mode."""
    model = gan(width, seed)
    with torch.no_grad():
        for layer in model.decoder:
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.mul_(100.0)
    return model.eval()


def batch(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def drawn(n: int) -> Tensor:
    """The noise of a step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.randn(n, vae_gan.LATENT)


def loss_of(model: VaeGan, x: Tensor, objective: VaeGanLoss = LOSS) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return objective(model, x, torch.zeros(len(x), dtype=torch.int64), 0.0)


def gradients(loss: Tensor, part: nn.Module) -> dict[str, Tensor]:
    names, weights = zip(*part.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights, retain_graph=True), strict=True))


@pytest.fixture(scope="module")
def ones(digits: Dataset) -> Dataset:
    """The ones among the digits: 132 images."""
    return digits.take((digits.labels == 1).nonzero().squeeze(1))


@pytest.fixture(scope="module")
def trained(ones: Dataset) -> VaeGan:
    """A narrow VAE-GAN after some epochs on the ones."""
    settings: dict[str, Any] = {"epochs": 20, "batch_size": 22, "learning_rate": 5e-3, "betas": (0.5, 0.9)}
    model = training.fit(
        gan(1 / 8),
        ones,
        VaeGanLoss(beta=2.25),
        schedule=lambda progress: 0.9 ** (1 + 20 * progress),
        **settings,
    )
    return vae_gan._checked(model)


# ---- the network ----


@pytest.mark.parametrize("width", [1 / 64, 0.5])
def test_the_parts_have_the_shapes_of_the_paper(width):
    model, x, few = gan(width).eval(), batch(3), round(64 * width)
    mean, log_variance = model.encode(x)
    assert mean.shape == log_variance.shape == (3, 10)
    assert [model.encoder[:end](x).shape[1:] for end in (3, 6, 9)] == [
        (few, 14, 14), (2 * few, 7, 7), (4 * few, 3, 3),
    ]  # fmt: skip
    assert [model.decoder[:end](mean).shape[1:] for end in (2, 5, 8)] == [
        (4 * few, 3, 3), (2 * few, 7, 7), (few, 14, 14),
    ]  # fmt: skip
    assert [model.discriminator[:end](x).shape[1:] for end in (3, 6, 9)] == [
        (few, 14, 14), (2 * few, 7, 7), (4 * few, 3, 3),
    ]  # fmt: skip
    images = model.decode(mean)
    assert images.shape == (3, 1, 28, 28)
    assert 0 <= images.amin() <= images.amax() <= 1
    assert model.discriminate(x).shape == (3,)
    assert torch.equal(model(x), images), "called, it reconstructs"


def test_full_width_has_the_weights_of_the_paper():
    model = gan(1.0)
    convolutions = 64 * 1 + 128 * 64 + 256 * 128
    norms = 2 * (64 + 128 + 256)
    expected = {
        "encoder": 16 * convolutions + norms + (2304 + 1) * 20,
        "decoder": (10 + 1) * 2304 + 36 * convolutions + 2 * (64 + 128) + 1,
        "discriminator": 36 * convolutions + norms + (2304 + 1) * 10 + 11,
    }
    assert {name: models.count_parameters(part) for name, part in model.named_children()} == expected


def test_weights_start_as_in_the_paper():
    model = gan(0.5)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            assert 0.8e-3 < layer.weight.std() < 1.2e-3
        elif isinstance(layer, nn.Linear) and layer.weight.numel() > 100:
            assert 0.9 < layer.weight.std() * math.sqrt(1.5 * layer.in_features) < 1.1
        if isinstance(layer, (nn.Linear, nn.ConvTranspose2d)) and layer.bias is not None:
            assert (layer.bias == 0).all()


# ---- the losses ----


def test_each_part_has_the_gradient_of_its_own_loss_of_one_pass():
    model, x = gan(), batch()
    mean, log_variance = model.encode(x)
    made = model.decode(mean + (log_variance / 2).exp() * drawn(len(x)))
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum()
    real, fake = torch.sigmoid(model.discriminate(x)), torch.sigmoid(model.discriminate(made))
    decoders = 2.25 * (x - made).abs().sum() - 0.5 * fake.log().sum()
    discriminators = -(real.log() + (1 - fake).log()).sum()
    loss = loss_of(model, x)
    torch.testing.assert_close(loss, divergence + decoders + discriminators)
    for part, own in (
        (model.encoder, divergence + decoders),
        (model.decoder, decoders),
        (model.discriminator, discriminators),
    ):
        expected, found = gradients(own, part), gradients(loss, part)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
        assert any(gradient.abs().sum() > 0 for gradient in expected.values())


def test_without_gamma_the_discriminator_does_not_reach_the_decoder():
    """Then the gradients of encoder and decoder are the same whatever the discriminator says."""
    model, x = gan(), batch()
    found = []
    for _ in range(2):
        loss = loss_of(model, x, VaeGanLoss(beta=1.0, gamma=0.0))
        found.append(gradients(loss, model.encoder) | gradients(loss, model.decoder))
        nn.init.normal_(model.discriminator[-1].weight)
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_one_adam_with_decay_is_three():
    x, steps = batch(), 3
    together, apart = gan(), gan()
    settings: dict[str, Any] = {"lr": 5e-3, "betas": (0.5, 0.9), "weight_decay": 1e-4}
    one = [torch.optim.Adam(together.parameters(), **settings)]
    three = [torch.optim.Adam(part.parameters(), **settings) for part in apart.children()]
    assert len(three) == 3
    for model, optimisers in ((together, one), (apart, three)):
        for _ in range(steps):
            model.zero_grad()
            loss_of(model, x).backward()
            for optimiser in optimisers:
                optimiser.step()
    for name, weight in together.state_dict().items():
        assert torch.equal(weight, apart.state_dict()[name]), name


def test_a_step_in_bfloat16_reaches_every_weight():
    model, x = gan(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model, x)
    assert loss.dtype == torch.float32
    loss.backward()
    torch.testing.assert_close(loss, loss_of(model, x), rtol=0.02, atol=0)
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta=0.0"),
        ({"beta": math.nan}, "beta=nan"),
        ({"beta": 1.0, "gamma": -1.0}, "gamma=-1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VaeGanLoss(**settings)


@pytest.mark.parametrize("width", [0.0, -1.0, 0.3])
def test_a_width_without_whole_channels_is_refused(width):
    with pytest.raises(ValueError, match=f"width={width}"):
        VaeGan(width=width)


# ---- training ----


@pytest.mark.parametrize(
    ("dataset", "label", "beta"),
    [
        ("mnist", 0, 2.25),
        ("mnist", 1, 5.0),
        ("mnist", 7, 3.0),
        ("fashion_mnist", 1, 2.75),
        ("fonts", 7, 3.0),
        ("fonts_embedded", 1, 3.0),
    ],
)
def test_the_weight_of_the_reconstruction_is_that_of_the_class(dataset, label, beta):
    assert vae_gan_beta(dataset, label) == beta


def test_a_data_set_without_a_weight_is_refused():
    names = "mnist, fashion_mnist, fonts, fonts_embedded"
    with pytest.raises(ValueError, match=f"'svhn'.*{names}"):
        vae_gan_beta("svhn", 0)


def test_recipes_have_the_settings_of_the_paper_at_half_width_in_bfloat16():
    full, narrow = recipes.vae_gan(2.25), recipes.vae_gan(5.0, narrow=True, epochs=15)
    for one in (full, narrow):
        settings = (one.batch_size, one.learning_rate, one.betas, one.weight_decay, one.max_gradient_norm)
        assert settings == (100, 0.005, (0.5, 0.9), 1e-4, math.inf)
        assert [one.schedule(progress) for progress in (0, 0.5)] == pytest.approx([0.9, 0.9**16])
    assert (full.architecture, full.epochs, full.dtype) == ("vae_gan", 30, torch.float32)
    assert (narrow.architecture, narrow.epochs, narrow.dtype) == ("vae_gan_narrow", 15, torch.bfloat16)
    assert (full.objective, narrow.objective) == (VaeGanLoss(beta=2.25), VaeGanLoss(beta=5.0))


def test_a_recipe_is_trained_and_kept(ones, cache):
    few = ones.first(20)
    recipe = recipes.vae_gan(5.0, narrow=True, epochs=1).replace(batch_size=10)
    made = networks.Network(recipe, few)()
    assert networks.Network(recipe, few)()(few.images).equal(made(few.images))
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_training_improves_reconstruction_and_passes_an_easy_gate(trained, ones):
    before = vae_gan._quality(gan(1 / 8).eval(), ones.images, 100, 0)
    after = gate(trained, ones.images, **EASY)
    assert before["error"] > 1, "untrained, it is no better than the mean image"
    assert after.l1 < 0.5 * before["l1"]
    assert after.l2 < 0.8 * before["l2"]


def test_in_half_precision_it_stays_the_same(trained, ones):
    halved = gan(1 / 8).eval()
    halved.load_state_dict(trained.state_dict())
    training.rounded(halved)
    with torch.no_grad():
        torch.testing.assert_close(halved(ones.images), trained(ones.images), rtol=0, atol=0.05)


# ---- the manifold ----


def test_every_code_is_decoded_by_its_class():
    gans = {0: loud(seed=0), 3: loud(seed=1), 7: loud(seed=2)}
    labels = torch.tensor([7, 0, 3, 3, 7, 0, 0])
    z = prior(len(labels), torch.Generator().manual_seed(0))
    manifold = ClassManifold(gans)
    images = manifold.decode(z, labels)
    for row, label in enumerate(labels.tolist()):
        torch.testing.assert_close(images[row], gans[label].decode(z[row : row + 1])[0])
    assert not torch.allclose(images[0], gans[0].decode(z[:1])[0], atol=1e-3), "the decoders differ"
    assert manifold.decode(z[:0], labels[:0]).shape == (0, 1, 28, 28)


def test_gradients_reach_each_code_from_its_image_alone():
    manifold, labels = ClassManifold({0: loud(seed=0), 1: loud(seed=1)}), torch.tensor([1, 0, 1])
    z = prior(3, torch.Generator().manual_seed(0)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(manifold.decode(z, labels)[2].sum(), z)
    assert (gradient[:2] == 0).all()
    assert (gradient[2] != 0).all()


def test_bounds_are_two_from_zero():
    low, high = ClassManifold({}).bounds()
    assert (low, high) == (-2, 2)
    manifold: latent.Manifold = ClassManifold({})  # mypy: it is one
    assert manifold.bounds()[1].ndim == 0, "it broadcasts against codes"


def test_codes_are_the_means_of_each_class_whatever_the_batch(digits, monkeypatch):
    few = digits.first(25)
    gans = {label: gan(seed=label).eval() for label in range(10)}
    encoded = EncodedDataset(few, ClassManifold(gans))
    for row, label in enumerate(few.labels.tolist()):
        mean, _ = gans[label].encode(few.images[row : row + 1])
        torch.testing.assert_close(encoded.codes[row], mean[0], rtol=1e-4, atol=1e-5)
    assert not encoded.codes.requires_grad
    monkeypatch.setattr(vae_gan, "ROWS", 2)
    torch.testing.assert_close(EncodedDataset(few, encoded.manifold).codes, encoded.codes)
    rows = torch.tensor([3, 3, 20])
    assert torch.equal(encoded.bases(rows), few.labels[rows])
    assert torch.equal(encoded.labels, few.labels)


def test_codes_further_than_two_from_zero_are_not_valid(digits):
    few = digits.first(4)
    encoded = EncodedDataset(few, ClassManifold({}))
    codes = torch.zeros(4, 10)
    codes[0, 3], codes[1, 9], codes[2, 0] = 2.0, 2.1, -2.1
    vars(encoded)["codes"] = codes
    assert within(encoded.manifold, encoded.codes).tolist() == [True, False, False, True]


def _named_gan(seed: int) -> VaeGan:
    return gan(seed=seed).eval()


def test_a_coded_data_set_is_known_by_its_data_and_its_gans(digits, monkeypatch):
    monkeypatch.setattr(_named_gan, "__module__", "robustutils.test")
    few = digits.first(10)

    def name(seed: int, dataset: Dataset) -> str:
        manifold = ClassManifold({label: composed(_named_gan, seed) for label in range(10)})
        return artifacts.digest(describe(EncodedDataset(dataset, manifold)))

    assert name(0, few) == name(0, few)
    assert len({name(0, few), name(1, few), name(0, digits.first(9))}) == 3
    loaded = ClassManifold({label: gan(seed=label) for label in range(2)})
    assert describe(loaded) != describe(ClassManifold({0: loaded.gans[0]}))


def test_artifacts_are_made_when_they_are_needed():
    made: list[int] = []

    def build(label: int) -> VaeGan:
        made.append(label)
        return loud(seed=label)

    manifold = ClassManifold({label: composed(build, label) for label in range(3)})
    z = prior(2, torch.Generator().manual_seed(0))
    found = manifold.decode(z, torch.tensor([2, 2]))
    torch.testing.assert_close(found, loud(seed=2).decode(z))
    assert made == [2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.decode(torch.zeros(2, 10), torch.tensor([0, 4])), "class 4"),
        (lambda m: m.encode(batch(1), torch.tensor([9])), "class 9"),
        (lambda m: m.decode(torch.zeros(2, 9), torch.tensor([0, 0])), "[2, 9]; 2 labels"),
        (lambda m: m.decode(torch.zeros(2, 10), torch.tensor([0])), "[2, 10]; 1 labels"),
        (lambda m: m.encode(batch(2), torch.tensor([0])), "[2, 1, 28, 28]; 1 labels"),
        (lambda m: m.decode(torch.zeros(1, 10), torch.tensor([1])), "class 1 is in training"),
        (lambda m: ClassManifold({}).encode(batch(1), torch.tensor([0])), "no class"),
        (lambda m: ClassManifold({0: nn.Flatten()}).encode(batch(1), torch.tensor([0])), "Flatten"),
        (lambda m: LOSS(nn.Flatten(), batch(1), torch.tensor([0]), 0.0), "Flatten"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call: Callable[[ClassManifold], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(ClassManifold({0: gan().eval(), 1: gan()}))


# ---- codes ----


def test_the_prior_is_a_truncated_normal():
    z = prior(4000, torch.Generator().manual_seed(0))
    assert z.shape == (4000, 10)
    assert z.abs().amax() <= 2
    # Its variance is 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.774.
    torch.testing.assert_close(z.var(), torch.tensor(0.774), rtol=0.02, atol=0)
    torch.testing.assert_close(z.mean(), torch.tensor(0.0), rtol=0, atol=0.02)
    assert torch.equal(z[:3], prior(4000, torch.Generator().manual_seed(0))[:3])


# ---- the gate ----


class Told(VaeGan):
    """Codes, reconstructions and samples as they are told, so that the quality is known."""

    def __init__(self, codes: Tensor, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__(width=1 / 64)
        self.codes, self.made = codes, made

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes, self.codes

    def decode(self, z: Tensor) -> Tensor:
        return self.made(z)


def test_the_quality_is_what_it_says():
    images = batch(20)
    codes = prior(20, torch.Generator().manual_seed(0))
    codes[:5] = 2.5

    def made(z: Tensor) -> Tensor:
        return (
            images + 0.1
            if torch.equal(z, codes)
            else images.mean(0) + (images[: len(z)] - images.mean(0)) / 2
        )

    quality = gate(Told(codes, made), images, samples=20, **EASY)
    assert quality.l1 == pytest.approx(78.4, rel=1e-4)
    assert quality.l2 == pytest.approx(2.8, rel=1e-4)
    deviation = (images - images.mean(0)).flatten(1).norm(dim=1).mean().item()
    assert quality.error == pytest.approx(2.8 / deviation, rel=1e-4)
    assert quality.within == pytest.approx(0.75)
    assert quality.spread == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("codes", "made", "message"),
    [
        (0.0, lambda z: batch(1).expand(len(z), -1, -1, -1), "spread of samples 0.00"),
        (0.0, lambda z: torch.rand(len(z), 1, 28, 28), "reconstruction error 1"),
        (3.0, lambda z: batch(len(z)), "0% of the codes"),
        (0.0, lambda z: torch.full((len(z), 1, 28, 28), math.nan), "reconstruction error nan"),
    ],
)
def test_one_that_has_failed_does_not_pass(codes, made, message):
    with pytest.raises(VaeGanError, match=re.escape(message)) as failure:
        gate(Told(torch.full((20, 10), codes), made), batch(20), samples=20)
    assert str(failure.value).startswith("the VAE-GAN does not pass the quality gate")
    assert "more epochs, from another seed, or at full width" in str(failure.value)


def test_a_trained_one_whose_decoder_collapses_fails(trained, ones):
    collapsed = gan(1 / 8).eval()
    collapsed.load_state_dict(trained.state_dict())
    nn.init.zeros_(collapsed.decoder[0].weight)
    with pytest.raises(VaeGanError, match=r"spread of samples 0\.00"):
        gate(collapsed, ones.images, **EASY)


def test_the_quality_is_kept_under_its_name(trained, ones, monkeypatch):
    first = gate(trained, ones.images, samples=20, **EASY)
    monkeypatch.setattr(VaeGan, "encode", None)
    assert gate(trained, ones.images, samples=20, **EASY) == first


@pytest.mark.parametrize(
    ("images", "samples", "message"),
    [(batch(1), 20, "[1, 1, 28, 28]"), (batch(2)[0], 20, "[1, 28, 28]"), (batch(3), 1, "samples=1")],
)
def test_too_few_images_are_refused(images, samples, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        gate(gan().eval(), images, samples=samples)


def test_losses_are_sums_over_the_batch():
    """Without batch statistics two copies of a batch cost twice as much, but for their noise."""
    model, x = gan().eval(), batch(3)
    with torch.no_grad():
        model.encoder[-1].weight[10:] = 0
        model.encoder[-1].bias[10:] = -60  # no noise
    assert F.l1_loss(loss_of(model, torch.cat([x, x])), 2 * loss_of(model, x)) < 0.01
