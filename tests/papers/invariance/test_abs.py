"""Analysis by synthesis: the search for latents, its gradient, and the bound that trains it, on few latents and digits."""

import copy

import pytest
import torch
from torch import Tensor, nn

from robustutils import artifacts, training
from robustutils.models import Binarise
from robustutils.papers.invariance.abs import (
    CHUNK,
    AnalysisBySynthesis,
    Autoencoder,
    EvidenceBound,
    prior_samples,
)


def tiny(classes: int = 3, **options) -> AnalysisBySynthesis:
    """Few latents and steps, in evaluation mode; normalised by what noise decodes to, so that images differ."""
    settings = {"samples": 40, "steps": 10, **options}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AnalysisBySynthesis(classes, **settings).to(memory_format=torch.channels_last)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        for autoencoder in model.autoencoders:
            autoencoder.decoded(torch.randn(50, 8))
    return model.eval()


@pytest.fixture
def model() -> AnalysisBySynthesis:
    return tiny()


def decoded(model: AnalysisBySynthesis, label: int, z: Tensor) -> Tensor:
    with torch.no_grad():
        return model.autoencoders[label].decoded(z).view(-1, 1, 28, 28)


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(1))


# ---- layers ----


def test_an_autoencoder_has_the_sizes_of_the_paper():
    autoencoder = Autoencoder().eval()
    with torch.no_grad():
        assert autoencoder.encoder(images()).shape == (4, 16, 1, 1)
        painted = autoencoder.decoded(torch.randn(4, 8))
    assert painted.shape == (4, 784)
    assert ((painted > 0) & (painted < 1)).all()
    convolutions = [
        (type(part), part.out_channels, part.kernel_size[0], part.stride[0])
        for part in autoencoder.modules()
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    down, up = nn.Conv2d, nn.ConvTranspose2d
    assert convolutions[:4] == [(down, 32, 5, 1), (down, 32, 4, 2), (down, 64, 3, 2), (down, 16, 5, 1)]
    assert convolutions[4:] == [(up, 32, 4, 1), (up, 16, 5, 2), (up, 16, 5, 2), (up, 1, 4, 1)]


# ---- classification ----


def test_an_image_that_a_class_can_paint_has_almost_only_the_energy_of_its_latent():
    model = tiny(steps=15)
    z = prior_samples(model.samples)[:6]
    for label in range(3):
        with torch.no_grad():
            energies = -model(decoded(model, label, z))
        prior = z.square().sum(1) / 2
        assert (energies[:, label] <= prior + 1e-3).all(), "a latent worse than the one that was tried"
        assert (energies.argmin(1) == label).float().mean() > 0.9


def test_the_search_starts_from_the_best_of_all_latents_that_are_tried():
    model, x = tiny(steps=0), images()
    z = prior_samples(model.samples)
    by_hand = torch.stack(
        [
            torch.cdist(x.flatten(1).double(), decoded(model, label, z).flatten(1).double()).square()
            + z.square().sum(1) / 2
            for label in range(3)
        ]
    )
    with torch.no_grad():
        torch.testing.assert_close(-model(x).T.double(), by_hand.amin(2), rtol=1e-5, atol=1e-3)


def test_steps_lower_the_energy_and_latents_stay_in_their_ball():
    pixels = images().flatten(1)
    before, after = (tiny(steps=steps, max_norm=1.5) for steps in (0, 20))
    with torch.no_grad():
        start, z = before.latents(pixels), after.latents(pixels)
        assert after.energies(pixels, z).sum() < before.energies(pixels, start).sum() - 1
    assert (z.norm(dim=2) <= 1.5 + 1e-5).all()
    assert (start.norm(dim=2) > 1.5).any(), "the ball binds nowhere in this test"


def test_the_answer_is_the_same_in_every_call_copy_and_batch(model):
    x = images(CHUNK + 3)
    with torch.no_grad():
        together = model(x)
        assert torch.equal(model(x), together)
        assert torch.equal(copy.deepcopy(model)(x), together)
        alone = torch.cat([model(one) for one in x.split(1)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-2)


def test_the_gradient_is_that_at_fixed_latents(model):
    x = images().requires_grad_(True)
    logits = model(x)
    z = model.latents(x.detach().flatten(1))
    for label in range(3):
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), x, retain_graph=True)
        expected = -2 * (x.detach() - decoded(model, label, z[:, label]))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_predicts_how_the_logit_of_a_painted_image_moves():
    model = tiny(steps=60)
    x = decoded(model, 1, prior_samples(40)[:4]) + 0.1 * (images() - 0.5)
    step = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    with torch.no_grad():
        moved = model(x + step)[:, 1] - model(x - step)[:, 1]
    torch.testing.assert_close(moved, 2 * (gradient * step).flatten(1).sum(1), rtol=0.1, atol=0.02)


def test_factors_multiply_the_scores(model):
    x = images()
    scaled = tiny(factors=(1.0, 0.5, 2.0))
    with torch.no_grad():
        torch.testing.assert_close(scaled(x), model(x) * torch.tensor([1.0, 0.5, 2.0]))


def test_a_binary_model_sees_thresholded_pixels_and_passes_gradients_through():
    binary, x = tiny(front=Binarise()), images()
    with torch.no_grad():
        assert torch.equal(binary(x), binary((x >= 0.5).float()))
        assert torch.equal(binary(x), tiny()((x >= 0.5).float()))
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(binary(leaf)[:, 0].sum(), leaf)
    z = binary.latents((x >= 0.5).float().flatten(1))
    torch.testing.assert_close(
        gradient, -2 * ((x >= 0.5).float() - decoded(binary, 0, z[:, 0])), rtol=1e-4, atol=1e-5
    )


def test_the_latents_that_are_tried_are_the_innermost_of_the_prior():
    z = prior_samples(900)
    assert z.shape == (900, 8)
    assert torch.equal(z, prior_samples(900))
    assert not torch.equal(z, prior_samples(900, seed=1))
    drawn = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    assert z.norm(dim=1).max() <= drawn.quantile(0.901)


def test_changed_weights_and_settings_are_noticed(model):
    x = images()
    with torch.no_grad():
        before = model(x)
        model.samples = 10
        fewer = model(x)
        model.samples = 40
        assert torch.equal(model(x), before)
        assert not torch.equal(fewer, before)
        other = tiny()
        for parameter in other.parameters():
            parameter.mul_(1.1)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(x), other(x)), "it went on with the images of the old weights"


def test_what_is_remembered_is_no_part_of_the_model(model):
    names, described = set(model.state_dict()), artifacts.describe(model)
    with torch.no_grad():
        model(images())
    assert set(model.state_dict()) == names
    assert artifacts.describe(model) == described
    model.steps += 1
    assert artifacts.describe(model) != described, "results with more steps would pass for those with fewer"


# ---- training ----


def test_the_bound_of_each_image_is_that_of_its_own_class(model, digits):
    x, y = digits.images[:30], digits.labels[:30] % 3
    torch.manual_seed(0)
    with torch.no_grad():
        found = model.bounds(x, y)
        least = model.energies(x.flatten(1), model.latents(x.flatten(1))).gather(1, y[:, None]).squeeze(1)
    for label in range(3):
        torch.manual_seed(0)
        own = y == label
        autoencoder = model.autoencoders[label]
        with torch.no_grad():
            mean, log_variance = autoencoder.encoder(x[own]).flatten(1).chunk(2, 1)
            q = torch.distributions.Normal(mean, (log_variance / 2).exp())
            divergence = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
            error = found[own] - divergence
            nearest = (x[own].flatten(1) - autoencoder.decoded(mean)).square().sum(1)
        assert (error > 0.5 * nearest).all()
        assert (error < 2 * nearest).all()
    assert (found > least - 10).all(), "a bound far below the least energy"


def test_training_teaches_the_digits(digits):
    model = AnalysisBySynthesis(3, samples=100, steps=5).to(memory_format=torch.channels_last)
    few = digits.take((digits.labels < 3).nonzero().squeeze(1)[:300])
    training.fit(model, few, EvidenceBound(), epochs=4, batch_size=30, learning_rate=5e-3)
    with torch.no_grad():
        hits = model(few.images[:60]).argmax(1) == few.labels[:60]
    assert hits.float().mean() > 0.9, f"{hits.sum()} of 60"


def test_a_class_without_an_image_in_the_batch_is_left_alone(model, digits):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.autoencoders[2].state_dict().items()}
    EvidenceBound()(model, digits.images[:5], torch.tensor([0, 1, 0, 1, 0]), 0.0).backward()
    assert all(parameter.grad is None for parameter in model.autoencoders[2].parameters())
    for name, tensor in model.autoencoders[2].state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is not None for parameter in model.autoencoders[0].parameters())


# ---- what is refused ----


@pytest.mark.parametrize(
    "options", [{"samples": 0}, {"steps": -1}, {"max_norm": 0.0}], ids=lambda options: next(iter(options))
)
def test_settings_out_of_range_are_refused(options):
    (setting,) = options.items()
    with pytest.raises(ValueError, match=f"{setting[0]}={setting[1]}"):
        AnalysisBySynthesis(3, **options)


@pytest.mark.parametrize("factors", [(1.0,), (1.0, 0.0, 1.0)])
def test_factors_are_one_positive_number_a_class(factors):
    with pytest.raises(ValueError, match="each of 3 classes"):
        AnalysisBySynthesis(3, factors=factors)


def test_other_images_models_and_modes_are_refused(model):
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        model(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="Linear"):
        EvidenceBound()(nn.Linear(1, 1), images(), torch.zeros(4, dtype=torch.int64), 0.0)
    with pytest.raises(RuntimeError, match="evaluation mode"):
        model.train()(images())
