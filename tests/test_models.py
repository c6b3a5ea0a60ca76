"""Architectures: shapes, parameters counted by hand, seeds and the layers that the papers name."""

import math
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import models, registry
from robustutils.models import PreActBlock
from robustutils.papers.blind_spot.models import Standardise
from robustutils.papers.disentangling.models import ResidualBlock
from robustutils.papers.ensemble.models import Average, TanhPool
from robustutils.papers.invariance.abs import AnalysisBySynthesis

ARCHITECTURES = registry.names("models", models.ARCHITECTURES)
GREY = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
COLOUR = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
IMAGES = dict.fromkeys(ARCHITECTURES, GREY) | dict.fromkeys(["kolter_wong_cifar", "preact_resnet18"], COLOUR)

CLASSIFIERS = [name for name in ARCHITECTURES if not name.startswith("vae_gan")]


def blocks(*widths: int) -> int:
    """The numbers of residual blocks of these widths: two normalisations, two 3x3 and, if it widens, a 1x1 kernel."""
    return sum(2 * a + 9 * a * b + 2 * b + 9 * b * b + (a * b if a != b else 0) for a, b in pairwise(widths))


def after_each(*widths: int) -> int:
    """The numbers of residual blocks with a normalisation behind each convolution, that of the way around too."""
    return sum(9 * a * b + 9 * b * b + 4 * b + (a * b + 2 * b if a != b else 0) for a, b in pairwise(widths))


def acgan(w: int) -> int:
    """The numbers of an AC-GAN of this width: two stacks of three 5x5 layers, and three dense ends."""
    generator = (74 * 64 * w + 64 * w) + (25 * 4 * w * 2 * w + 2 * w) + (25 * 2 * w * w + w) + (25 * w + 1)
    features = (25 * w + w) + (25 * w * 2 * w + 2 * w) + (25 * 2 * w * 4 * w + 4 * w)
    return generator + features + 64 * w + (64 * w * 10 + 10)


def vae_gan(w: int) -> int:
    """The numbers of a VAE-GAN of this width: three stacks of 4x4 or 6x6 layers with normalisation, and their dense ends."""
    kernels, norms, dense = w + 2 * w * w + 8 * w * w, 2 * (w + 2 * w + 4 * w), 9 * 4 * w
    encoder = 16 * kernels + norms + (dense * 20 + 20)
    decoder = (10 * dense + dense) + 36 * kernels + 2 * (w + 2 * w) + 1
    return encoder + decoder + 36 * kernels + norms + (dense * 10 + 10) + (10 + 1)


# An autoencoder of ABS: two stacks of four convolutions with batch normalisation between them.
ENCODER = (25 * 32 + 32) + (16 * 32 * 32 + 32) + (9 * 32 * 64 + 64) + (25 * 64 * 16 + 16) + 2 * (32 + 32 + 64)
DECODER = (16 * 8 * 32 + 32) + (25 * 32 * 16 + 16) + (25 * 16 * 16 + 16) + (16 * 16 + 1) + 2 * (32 + 16 + 16)


# A convolution has k k in out + out numbers, a dense layer in out + out.
PARAMETERS = {
    # 28 - 5 + 1 = 24, 24 - 5 + 1 = 20
    "eat_a": (25 * 64 + 64) + (25 * 64 * 64 + 64) + (20 * 20 * 64 * 128 + 128) + (128 * 10 + 10),
    # ceil(28 / 2) = 14, (14 - 6) / 2 + 1 = 5, 5 - 5 + 1 = 1
    "eat_b": (64 * 64 + 64) + (36 * 64 * 128 + 128) + (25 * 128 * 128 + 128) + (128 * 10 + 10),
    "eat_b_star": (64 * 64 + 64) + (36 * 64 * 128 + 128) + (25 * 128 * 128 + 128) + (128 * 10 + 10),
    # 28 - 2 = 26, 13, 13 - 2 = 11, 5
    "eat_c": (9 * 128 + 128) + (9 * 128 * 64 + 64) + (5 * 5 * 64 * 128 + 128) + (128 * 10 + 10),
    "eat_d": (784 * 300 + 300) + 3 * (300 * 300 + 300) + (300 * 10 + 10),
    # 28 / 2 = 14, 7, 3; no bias before a normalisation of two numbers a channel
    "dis_cnn": 16 * (16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + (9 * 64 * 100 + 100) + (100 * 10 + 10),
    "dis_mlp": (784 * 128 + 128) + 3 * (128 * 128 + 128) + 4 * 2 * 128 + (128 * 10 + 10),
    "dis_resnet13": 9 * 64 + 2 * 64 + after_each(64, 64, 64, 128, 128, 256, 256) + (256 * 10 + 10),
    # 28 / 2 = 14, 7
    "dis_vgg": 9 * (64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)
    + 2 * (64 + 2 * 128 + 2 * 256)
    + (7 * 7 * 256 * 1024 + 1024)
    + (1024 * 1024 + 1024)
    + (1024 * 10 + 10),
    "abs_mnist": 10 * (ENCODER + DECODER),
    "acgan_mnist": acgan(128),
    "acgan_mnist_narrow": acgan(32),
    "binary_abs_mnist": 10 * (ENCODER + DECODER),
    # 28 - 4 = 24, 12, 12 - 4 = 8, 8 - 2 = 6, 3
    "inv_cnn": (25 * 64 + 64)
    + (25 * 64 * 128 + 128)
    + (9 * 128 * 128 + 128)
    + 4 * 128
    + (3 * 3 * 128 * 256 + 256)
    + (256 * 10 + 10),
    # 28 / 2 = 14, 14 / 2 = 7
    "l0_sparse_mnist": (25 * 32 + 32) + (25 * 32 * 64 + 64) + (7 * 7 * 64 * 128 + 128) + (128 * 10 + 10),
    "resnet_mnist": 9 * 16 + blocks(16, 16, 16, 32, 32, 64, 64) + 2 * 64 + (64 * 10 + 10),
    "kolter_wong_small": (16 * 16 + 16) + (16 * 16 * 32 + 32) + (7 * 7 * 32 * 100 + 100) + (100 * 10 + 10),
    "kolter_wong_cifar": (48 * 16 + 16) + (16 * 16 * 32 + 32) + (8 * 8 * 32 * 100 + 100) + (100 * 10 + 10),
    "madry_mnist": (25 * 32 + 32) + (25 * 32 * 64 + 64) + (7 * 7 * 64 * 1024 + 1024) + (1024 * 10 + 10),
    "madry_mnist_narrow": (25 * 32 + 32) + (25 * 32 * 64 + 64) + (7 * 7 * 64 * 128 + 128) + (128 * 10 + 10),
    "preact_resnet18": 9 * 3 * 64
    + blocks(64, 64, 64, 128, 128, 256, 256, 512, 512)
    + 2 * 512
    + (512 * 10 + 10),
    "small_cnn": (25 * 16 + 16) + (25 * 16 * 32 + 32) + (7 * 7 * 32 * 64 + 64) + (64 * 10 + 10),
    "vae_gan": vae_gan(64),
    "vae_gan_narrow": vae_gan(32),
    # 8x8 with stride 2 and padding 3: 14, then (14 - 6) / 2 + 1 = 5, 5 - 5 + 1 = 1
    "wrm_mnist": (64 * 64 + 64) + (36 * 64 * 128 + 128) + (25 * 128 * 128 + 128) + (128 * 10 + 10),
}
DROPPED = {f"{name}_input_dropout": name for name in ("eat_a", "eat_c", "eat_d")}
PARAMETERS |= {name: PARAMETERS[plain] for name, plain in DROPPED.items()}
TOTALS = {"eat_a": 3_382_346, "eat_b": 710_218, "eat_c": 281_290, "eat_d": 509_410, "madry_mnist": 3_274_634}
TOTALS |= {"kolter_wong_small": 166_406}


@pytest.fixture(scope="module", autouse=True)
def short_synthesis() -> Iterator[None]:
    """Analysis by synthesis with few samples and steps; its networks are as they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in (("samples", 20), ("steps", 2)):
            patch.setitem(AnalysisBySynthesis.__init__.__kwdefaults__, name, few)
        yield


@pytest.fixture(scope="module")
def built() -> dict[str, nn.Module]:
    return {name: models.build(name).eval() for name in ARCHITECTURES}


def test_every_architecture_is_in_the_table():
    assert set(PARAMETERS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_the_papers_table_says(name, built):
    assert models.count_parameters(built[name]) == PARAMETERS[name]
    assert PARAMETERS[name] == TOTALS.get(name, PARAMETERS[name])


def test_frozen_parameters_do_not_count():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    assert models.count_parameters(model) == 3


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_output_is_one_finite_logit_for_each_class(name, batch, built):
    with torch.no_grad():
        logits = built[name](IMAGES[name][:batch])
    assert logits.shape == (batch, 10)
    assert torch.isfinite(logits).all()
    assert (logits.sum(1) - 1).abs().max() > 1e-3, "these look like probabilities"


@pytest.mark.parametrize("name", ["eat_b", "eat_c", "eat_d", "small_cnn"])
def test_classes_set_the_width_of_the_output(name):
    with torch.no_grad():
        assert models.build(name, classes=7).eval()(GREY).shape == (2, 7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_the_input_and_every_weight(name):
    model = models.build(name).eval()
    x = IMAGES[name].clone().requires_grad_(True)
    model(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for label, parameter in model.named_parameters():
        if label.startswith(("generator.", "critic.", "discriminator.")) or ".encoder." in label:
            continue  # of the training alone, not of the output
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", ["eat_b", "eat_c", "eat_d", "small_cnn"])
def test_seeds_reproduce_and_leave_the_callers_generator_alone(name):
    before = torch.get_rng_state()
    first, again, other = (list(models.build(name, seed=seed).parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1)


@pytest.mark.parametrize(
    "name", ["eat_a", "eat_b", "eat_b_star", "eat_c", "small_cnn", "wrm_mnist", "preact_resnet18"]
)
def test_convolutions_are_channels_last(name, built):
    for layer in built[name].modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def input_rate(model: nn.Module) -> float:
    """The dropout on the pixels themselves: that of a first layer."""
    first = next(iter(model.children()))
    return first.p if isinstance(first, nn.Dropout) else 0.0


def test_dropout_on_the_input_is_in_b_and_where_the_name_says_so(built):
    rates = {name: input_rate(model) for name, model in built.items() if input_rate(model)}
    assert rates == dict.fromkeys(["eat_b", *DROPPED], 0.2)


@pytest.mark.parametrize(("name", "plain"), DROPPED.items())
def test_a_dropout_on_the_input_changes_nothing_in_evaluation(name, plain, built):
    assert torch.equal(built[name](GREY), built[plain](GREY))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("eat_a", [0.25, 0.5]),
        ("eat_b", [0.2, 0.5]),
        ("eat_b_star", [0.5]),
        ("eat_c", []),
        ("eat_d", [0.5] * 4),
        ("madry_mnist", []),
    ],
)
def test_dropout_rates_are_those_of_the_papers(name, rates, built):
    assert [layer.p for layer in built[name].modules() if isinstance(layer, nn.Dropout)] == rates


def test_b_is_b_star_behind_its_input_dropout():
    b, b_star = models.build("eat_b", seed=3).eval(), models.build("eat_b_star", seed=3).eval()
    with torch.no_grad():
        assert torch.equal(b(GREY), b_star(GREY))


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 4, 11, 11)])
def test_tanh_pool_is_the_pool_of_the_tanh(shape):
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(TanhPool()(x), nn.functional.max_pool2d(torch.tanh(x), 2), rtol=0, atol=1e-7)


def test_tanh_pool_has_the_gradient_of_the_pool_of_the_tanh():
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients: list[Tensor] = []
    for function in (TanhPool(), lambda t: nn.functional.max_pool2d(torch.tanh(t), 2)):
        leaf = x.clone().requires_grad_(True)
        function(leaf).sin().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def spread(weight: Tensor) -> tuple[float, float]:
    return weight.std().item(), weight.abs().max().item()


@pytest.mark.parametrize("name", ["eat_a", "eat_b", "eat_c"])
def test_glorot_weights_fill_their_interval(name, built):
    for layer in built[name].modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            area = layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
            limit = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            std, top = spread(layer.weight)
            assert top <= limit
            assert std == pytest.approx(limit / 3**0.5, rel=0.1)
            assert not layer.bias.any()


def test_d_starts_from_he_normal_weights_and_a_glorot_output(built):
    *hidden, last = (layer for layer in built["eat_d"] if isinstance(layer, nn.Linear))
    for layer in hidden:
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.02)
        assert layer.weight.abs().max() > 3 * layer.weight.std(), "a normal distribution has tails"
    assert last.weight.abs().max() <= (6 / 310) ** 0.5


def test_madry_starts_from_a_truncated_normal_and_biases_of_a_tenth(built):
    for layer in built["madry_mnist"]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            std, top = spread(layer.weight)
            assert top <= 0.2
            assert std == pytest.approx(0.088, rel=0.05)  # a normal of 0.1 cut off at two standard deviations
            assert torch.equal(layer.bias, torch.full_like(layer.bias, 0.1))


@pytest.mark.parametrize(
    ("name", "hint"), [("eat_b_sta", "did you mean 'eat_b_star'"), ("madry", "there are"), ("", "there are")]
)
@pytest.mark.parametrize("ask", [models.architecture, models.build])
def test_unknown_architecture_is_refused_with_what_there_is(ask, name, hint):
    with pytest.raises(ValueError, match=f"architecture '{name}'.*{hint}") as error:
        ask(name)
    assert all(known in str(error.value) for known in ARCHITECTURES)


# ---- the networks of the blind-spot paper ----


def test_kolter_wong_small_halves_the_image_twice_and_has_100_units():
    model: Any = models.build("kolter_wong_small")
    shapes, x = [], GREY
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 14, 14), (32, 7, 7), (100,), (10,)]


def test_wrm_is_the_network_whose_first_layer_is_8x8_with_stride_2():
    model: Any = models.build("wrm_mnist", seed=1)
    pad, blocks_of_4, first, *rest = model
    assert (type(pad), type(blocks_of_4)) == (nn.ZeroPad2d, nn.PixelUnshuffle)
    nn.init.normal_(first.bias)  # it starts at zero
    papers = nn.Conv2d(1, 64, 8, stride=2, padding=3)
    with torch.no_grad():
        for i in range(2):
            for j in range(2):
                papers.weight[:, 0, i::2, j::2] = first.weight[:, 2 * i + j]
        papers.bias.copy_(first.bias)
        torch.testing.assert_close(model(GREY), nn.Sequential(papers, *rest)(GREY), rtol=1e-4, atol=1e-5)
    assert [layer.kernel_size for layer in rest if isinstance(layer, nn.Conv2d)] == [(6, 6), (5, 5)]
    assert sum(isinstance(layer, nn.ELU) for layer in rest) == 3


def test_wrm_starts_from_the_glorot_interval_of_the_layers_of_the_paper(built):
    first, second, third, last = (m for m in built["wrm_mnist"] if isinstance(m, (nn.Conv2d, nn.Linear)))
    for layer, fans in (
        (first, 8 * 8 * (1 + 64)),  # not the 4 x 4 x (4 + 64) of the form it is written in
        (second, 6 * 6 * (64 + 128)),
        (third, 5 * 5 * (128 + 128)),
        (last, 128 + 10),
    ):
        limit = math.sqrt(6 / fans)
        std, top = spread(layer.weight)
        assert 0.99 * limit < top <= limit
        assert std == pytest.approx(limit / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


def test_standardise_gives_each_image_mean_0_and_standard_deviation_1():
    x = COLOUR * torch.tensor([0.1, 0.9])[:, None, None, None] + 0.05
    out = Standardise()(x).flatten(1)
    torch.testing.assert_close(out.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(1, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    torch.testing.assert_close(out[0], Standardise()(x[:1]).flatten(), msg="an image depends on its batch")


def test_standardise_divides_almost_constant_images_by_the_least_scale_only():
    constant = torch.full((2, 3, 4, 4), 0.5)
    assert not Standardise()(constant).any()
    speck = constant.clone()
    speck[0, 0, 0, 0] += 0.01  # a standard deviation of 0.01 sqrt(47) / 48, below 1 / sqrt(48)
    expected = (speck - speck.mean((1, 2, 3), keepdim=True)) * math.sqrt(48)
    torch.testing.assert_close(Standardise()(speck), expected)


def test_standardise_gives_constant_images_a_finite_gradient():
    """An attack may start at the grey image (BS, section 4.1)."""
    x = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    (Standardise()(x) * weights).sum().backward()
    expected = (weights - weights.mean((1, 2, 3), keepdim=True)) * math.sqrt(48)
    torch.testing.assert_close(x.grad, expected)


def test_preact_resnet18_has_512_features_behind_four_stages():
    model: Any = models.build("preact_resnet18", classes=43).eval()
    shapes, x = [], COLOUR
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            if isinstance(layer, PreActBlock):
                shapes.append(tuple(x.shape[1:]))
            if isinstance(layer, nn.Flatten):
                features = x
    sides = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert shapes == [shape for shape in sides for _ in range(2)]
    assert features.shape == (2, 512)
    assert features.min() >= 0, "features are those behind the last ReLU"
    assert x.shape == (2, 43)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 2), (4, 4, 2), (4, 6, 1)])
def test_a_residual_block_is_two_convolutions_behind_activations_and_a_way_around_them(
    inputs, outputs, stride
):
    torch.manual_seed(0)
    block, x = PreActBlock(inputs, outputs, stride).eval(), torch.randn(2, inputs, 6, 6)
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    first, second = (layer for layer in block.rest if isinstance(layer, nn.Conv2d))
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    active = norms[0](x).relu()
    out = F.conv2d(active, first.weight, stride=stride, padding=1)
    out = F.conv2d(norms[1](out).relu(), second.weight, padding=1)
    same = inputs == outputs and stride == 1
    way = x if same else F.conv2d(active, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), out + way)


# ---- the networks of the paper on disentangling ----


def test_dis_cnn_halves_the_image_three_times_and_ends_in_two_dense_layers_with_nothing_between_them(built):
    shapes, x = [], GREY
    for layer in built["dis_cnn"]:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 14, 14), (32, 7, 7), (64, 3, 3), (100,), (10,)]
    kinds = [type(layer) for layer in built["dis_cnn"]]
    convolution = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == 3 * convolution + [nn.Flatten, nn.Linear, nn.Linear]


def test_dis_mlp_normalises_behind_each_of_four_rectifiers(built):
    kinds = [type(layer) for layer in built["dis_mlp"]]
    assert kinds == [nn.Flatten, *4 * [nn.Linear, nn.ReLU, nn.BatchNorm1d], nn.Linear]


@pytest.mark.parametrize("name", ["dis_cnn", "dis_mlp"])
def test_dis_weights_have_two_thirds_of_the_inverse_of_their_inputs_as_variance(name, built):
    for layer in built[name]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / 3 / fan) ** 0.5, rel=0.15), layer
            assert layer.weight.abs().max() > 2 * layer.weight.std(), "a normal distribution has tails"
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(("name", "dense"), [("dis_resnet13", 2 / 3), ("dis_vgg", 2)])
def test_deep_dis_networks_start_from_he_normal_convolutions_by_their_outputs(name, dense, built):
    for layer in built[name].modules():
        if isinstance(layer, nn.Conv2d):
            variance = 2 / (layer.out_channels * layer.weight[0, 0].numel())
        elif isinstance(layer, nn.Linear):
            variance = dense / layer.in_features
            assert not layer.bias.any()
        else:
            continue
        assert layer.weight.std().item() == pytest.approx(variance**0.5, rel=0.1), layer


def test_dis_vgg_pools_where_the_width_changes(built):
    kinds = [type(layer) for layer in built["dis_vgg"] if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))]
    convolution, pool = nn.Conv2d, nn.MaxPool2d
    assert kinds == [convolution, pool, convolution, convolution, pool, convolution, convolution]


def test_dis_resnet13_has_256_features_behind_three_stages(built):
    shapes, x = [], GREY
    with torch.no_grad():
        for layer in built["dis_resnet13"]:
            x = layer(x)
            if isinstance(layer, ResidualBlock):
                shapes.append(tuple(x.shape[1:]))
    assert shapes == [shape for shape in ((64, 28, 28), (128, 14, 14), (256, 7, 7)) for _ in range(2)]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 2), (4, 4, 2), (4, 6, 1)])
def test_a_residual_block_normalises_behind_each_convolution_and_rectifies_the_sum(inputs, outputs, stride):
    torch.manual_seed(0)
    block, x = ResidualBlock(inputs, outputs, stride).eval(), torch.randn(2, inputs, 6, 6)
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    first, second = (layer for layer in block.rest if isinstance(layer, nn.Conv2d))
    out = F.conv2d(x, first.weight, stride=stride, padding=1)
    out = norms[1](F.conv2d(norms[0](out).relu(), second.weight, padding=1))
    same = inputs == outputs and stride == 1
    way = x if same else norms[2](F.conv2d(x, block.shortcut[0].weight, stride=stride))
    torch.testing.assert_close(block(x), (out + way).relu())


# ---- thresholded pixels ----


@pytest.mark.parametrize("slope", [None, 20.0])
def test_binarise_thresholds_and_passes_its_surrogate_gradient(slope):
    x = torch.tensor([0.0, 0.4999, 0.5, 0.8, 1.0], requires_grad=True)
    out = models.Binarise(slope)(x)
    assert out.tolist() == [0, 0, 1, 1, 1]
    weights = torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0])
    (found,) = torch.autograd.grad((out * weights).sum(), x)
    if slope is None:
        expected = weights
    else:
        soft = torch.sigmoid(slope * (x - 0.5))
        (expected,) = torch.autograd.grad((soft * weights).sum(), x)
    torch.testing.assert_close(found, expected)


# ---- models of one's own ----

OWN = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))

def text():
    return "no network"

def broken():
    raise KeyError("layers")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_own_models", None)


def test_a_model_of_ones_own_is_built_and_filled(own):
    weights = {"1.weight": torch.randn(10, 784), "1.bias": torch.randn(10)}
    safetensors.torch.save_file(weights, own / "w.safetensors")
    model = models.load("my_own_models:net", own / "w.safetensors")
    assert not model.training
    assert torch.equal(model[1].weight, weights["1.weight"])
    assert models.load("my_own_models:net")(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("my_own_models", "model='my_own_models'"),
        (":net", "model=':net'"),
        ("my_own_model:net", "ModuleNotFoundError"),
        ("my_own_models:nets", "AttributeError"),
        ("my_own_models:text", "a str"),
        ("my_own_models:broken", "KeyError: 'layers'"),
    ],
)
def test_what_is_no_model_is_told_clearly(own, function, text):
    with pytest.raises(models.ModelError, match=re.escape(text)):
        models.load(function)


def test_weights_that_do_not_fit_are_told_clearly(own):
    safetensors.torch.save_file({"1.weight": torch.randn(10, 784)}, own / "w.safetensors")
    (own / "text.safetensors").write_text("no weights at all")
    for name, text in {
        "w.safetensors": '"1.bias"',
        "text.safetensors": "safetensors file",
        "absent.safetensors": "safetensors file",
    }.items():
        with pytest.raises(models.ModelError, match=re.escape(text)) as error:
            models.load("my_own_models:net", own / name)
        assert name in str(error.value)


def test_the_average_of_models_is_that_of_their_probabilities():
    members = [models.build("eat_d", seed=seed).eval() for seed in range(3)]
    together = Average(*members).eval()(GREY)
    expected = torch.stack([member(GREY).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(together.softmax(1), expected)
    torch.testing.assert_close(together.exp(), expected)
