"""Attacks over codes: against a slow loop over single examples, where the optimum is known, and what never may happen."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from coded_data import SIDE, Data, LinearDecoder, TwoClasses, coded, normalised_net, pixels_at
from torch import Tensor, nn

from robustutils.attacks import margin
from robustutils.papers.disentangling import latent
from robustutils.papers.disentangling.fonts import Affine
from robustutils.papers.disentangling.latent import (
    Ascent,
    CarliniAscent,
    Found,
    InPixels,
    Manifold,
    Pixels,
    within,
)


def attacked(attack: Ascent | CarliniAscent, model: nn.Module, data: Data, seed: int = 0) -> Found:
    rows = torch.arange(len(data.labels))
    generator = torch.Generator().manual_seed(seed)
    return attack(model, data.manifold, data.codes, data.bases(rows), data.labels, generator)


MANIFOLDS = pytest.mark.parametrize(
    "manifold", [Pixels(), Affine("hard"), LinearDecoder()], ids=["pixels", "affine", "decoder"]
)
KEEP = pytest.mark.parametrize("keep", ["first", "best"])
NORMS = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.4)])


# ---- against a slow loop ----


def slow(
    model: nn.Module, data: Data, row: int, noise: Tensor, attack: Ascent | CarliniAscent
) -> tuple[Tensor, int]:
    """The same search for one example by torch's Adam, with every alternation of box and ball."""
    code, base, label = data.codes[row : row + 1], data.bases(torch.tensor([row])), data.labels[row : row + 1]
    low, high = data.manifold.bounds()
    tanh = isinstance(attack, CarliniAscent)
    delta = noise[row : row + 1] * attack.eps
    if tanh:
        share = ((code + delta).clamp(low, high) - low) / (high - low)
        delta = torch.atanh((2 * share - 1) * (1 - 1e-5))
    variable = delta.clone().requires_grad_(True)
    adam = torch.optim.Adam([variable], lr=attack.learning_rate)
    kept_code, highest, changed = code, -torch.inf, -1
    for step in range(attack.steps + 1):
        if not tanh:
            with torch.no_grad():
                for _ in range(5):
                    variable.copy_(torch.minimum(torch.maximum(variable, low - code), high - code))
                    if attack.norm == "linf":
                        variable.clamp_(-attack.eps, attack.eps)
                    else:
                        variable.mul_(min(1.0, attack.eps / max(variable.norm().item(), 1e-12)))
        made = low + (high - low) * (torch.tanh(variable) + 1) / 2 if tanh else code + variable
        logits = model(data.manifold.decode(made, base))
        if isinstance(attack, CarliniAscent):
            loss = (made - code).norm() + (-margin(logits, label)).clamp_min(-attack.confidence).sum()
        else:
            loss = -F.cross_entropy(logits, label)
        if logits.argmax(1) != label and changed < 0:
            changed = step
        if attack.keep == "best":
            if -loss.item() > highest:
                kept_code, highest = made.detach().clone(), -loss.item()
        else:
            kept_code = made.detach().clone()
            if changed >= 0:
                break
        adam.zero_grad()
        loss.backward()
        adam.step()
    return kept_code, changed


def compared_with_slow(attack: Ascent | CarliniAscent, manifold: Manifold) -> None:
    model = normalised_net()
    data = coded(manifold, model, n=6)
    found = attacked(attack, model, data)
    noise = attack.noise(data.codes.shape, torch.Generator().manual_seed(0))
    for row in range(len(data.labels)):
        if attack.keep == "first" and not found.correct[row]:
            continue
        code, step = slow(model, data, row, noise, attack)
        torch.testing.assert_close(found.codes[row : row + 1], code, rtol=0, atol=2e-4)
        assert found.steps[row] == step, f"first success of example {row}"
    assert found.success.any(), "an example should be found in this test"
    assert not found.success.all()


@MANIFOLDS
@KEEP
@NORMS
def test_it_is_the_loop_over_single_examples(manifold, keep, norm, eps):
    compared_with_slow(Ascent(eps=eps, steps=12, learning_rate=0.02, norm=norm, keep=keep), manifold)


@MANIFOLDS
@KEEP
def test_carlini_is_the_loop_over_single_examples(manifold, keep):
    compared_with_slow(CarliniAscent(eps=0.3, steps=12, learning_rate=0.05, keep=keep), manifold)


# ---- where it may go ----


@MANIFOLDS
@KEEP
@NORMS
def test_it_stays_in_the_ball_and_in_the_box(manifold, keep, norm, eps):
    model = normalised_net()
    data = coded(manifold, model)
    attack = Ascent(eps=eps, steps=10, learning_rate=0.05, norm=norm, keep=keep)
    found = attacked(attack, model, data)
    size = attack.size(found.codes - data.codes)
    assert (size <= eps + 1e-6).all(), f"outside of the ball: {size}"
    assert within(manifold, found.codes).all(), "outside of the box"
    assert (size[found.success] > 0.3 * eps).any(), "the radius is not used"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_codes_far_outside_of_the_box_go_as_near_as_the_ball_lets_them(norm):
    model = normalised_net()
    data = replace(coded(LinearDecoder(), model), codes=torch.full((12, 3), 3.0))
    found = attacked(Ascent(eps=0.25, steps=3, norm=norm, keep="best"), model, data)
    size = Ascent(norm=norm).size(found.codes - data.codes)
    torch.testing.assert_close(size, torch.full((12,), 0.25))
    assert (found.codes < 3).all(), "not towards the box"


def test_carlini_stays_in_the_box_and_may_leave_the_ball():
    model, data = TwoClasses(), pixels_at(torch.linspace(0.02, 0.1, 8))
    attack = CarliniAscent(eps=0.01, learning_rate=0.05)
    found = attacked(attack, model, data)
    assert found.success.all()
    assert within(Pixels(), found.codes).all()
    assert (attack.size(found.codes - data.codes) > 0.01).any()


def test_the_length_of_a_start_is_uniform():
    for norm in ("linf", "l2"):
        attack = Ascent(norm=norm)
        size = attack.size(attack.noise(torch.Size((4000, 6)), torch.Generator().manual_seed(0)))
        assert size.max() <= 1 + 1e-6
        assert (size.sort().values - torch.linspace(0, 1, 4000)).abs().max() < 0.04


# ---- what it finds ----


def test_on_a_linear_model_it_finds_what_exists_and_nothing_else():
    distances = torch.linspace(0.02, 0.1, 12)
    data = pixels_at(distances)
    found = attacked(Ascent(eps=0.06), TwoClasses(), data)
    assert torch.equal(found.success, distances < 0.06)
    assert ((found.steps >= 0) == found.success).all()
    moved = Ascent().size(found.codes - data.codes)
    assert (moved[found.success] >= distances[found.success] - 1e-5).all()


def test_more_steps_never_lower_the_loss_of_the_best():
    model = normalised_net()
    data = coded(Pixels(), model)
    losses = []
    for steps in (0, 3, 15):
        found = attacked(Ascent(steps=steps, keep="best"), model, data)
        with torch.no_grad():
            losses.append(F.cross_entropy(model(found.codes), data.labels, reduction="none"))
    assert (losses[1] >= losses[0] - 1e-5).all()
    assert (losses[2] >= losses[1] - 1e-5).all()
    assert (losses[2] > losses[0] + 0.1).any()


@KEEP
def test_a_point_that_is_wrong_before_is_told_by_its_decoded_image(keep):
    model = normalised_net()
    data = coded(LinearDecoder(), model)
    found = attacked(Ascent(keep=keep), model, data)
    assert found.correct.tolist() == [True, False] + [True] * 10
    assert not found.success[1]
    if keep == "first":
        assert torch.equal(found.codes[1], data.codes[1])
        assert found.steps[1] == -1
    else:
        assert not torch.equal(found.codes[1], data.codes[1]), "training attacks every example"


def test_the_model_gets_its_mode_back_and_nothing_else_changes():
    model = normalised_net()
    data = coded(Pixels(), model)
    model.train()
    model[1].eval()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    attacked(Ascent(steps=3), model, data)
    assert [part.training for part in model] == [True, False, *[True] * 6]
    assert model.training
    assert all(torch.equal(one, two) for one, two in zip(before, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_generator_torchs_own_decides():
    model = normalised_net()
    data = coded(Affine(), model)
    rows = torch.arange(12)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return Ascent(steps=2)(model, data.manifold, data.codes, data.bases(rows), data.labels).codes

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(run(1), run(1))
        assert not torch.equal(run(1), run(2))


def test_normalisation_is_folded_into_convolutions_alone():
    x = torch.rand(5, 1, SIDE, SIDE)
    net = nn.Sequential(normalised_net(), nn.BatchNorm1d(3)).eval()
    folded = latent._folded(net)
    assert [type(part).__name__ for part in folded.modules()].count("BatchNorm2d") == 0
    torch.testing.assert_close(folded(x), net(x))
    assert latent._folded(TwoClasses()).state_dict().keys() == TwoClasses().state_dict().keys()


# ---- data sets ----


def test_pixels_code_any_data_set(tiny_data):
    rows, data = torch.tensor([3, 1]), InPixels(tiny_data)
    made = data.manifold.decode(data.codes[rows], data.bases(rows))
    torch.testing.assert_close(made, tiny_data.images[rows])
    assert within(data.manifold, data.codes).all()
    assert torch.equal(data.labels, tiny_data.labels)


# ---- every complaint ----


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Ascent, {"eps": -0.1}, "eps=-0.1"),
        (Ascent, {"eps": float("nan")}, "eps=nan"),
        (Ascent, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (Ascent, {"steps": -1}, "steps=-1"),
        (Ascent, {"norm": "l1"}, "l1"),
        (Ascent, {"keep": "last"}, "last"),
        (CarliniAscent, {"confidence": -1.0}, "confidence=-1.0"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes, bases, labels: (codes.double(), bases, labels), "torch.float64"),
        (lambda codes, bases, labels: (codes, bases, labels[:3]), "int64 [3]"),
        (lambda codes, bases, labels: (codes, bases, labels.float()), "torch.float32 [12]"),
        (lambda codes, bases, labels: (codes, bases[:4], labels), "4 bases"),
        (lambda codes, bases, labels: (codes[:0], bases[:0], labels[:0]), "N > 0"),
    ],
)
def test_codes_bases_and_labels_must_fit(change: Callable[..., tuple[Tensor, ...]], message):
    data = coded(Affine(), model := normalised_net())
    with pytest.raises(ValueError, match=re.escape(message)):
        Ascent()(model, data.manifold, *change(data.codes, data.images, data.labels))
