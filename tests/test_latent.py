"""Attacks over codes: against a slow loop over single examples, where the optimum is known, and what never may happen."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import fonts, latent
from robustutils.artifacts import kept
from robustutils.attacks import margin
from robustutils.data import Dataset
from robustutils.fonts import Affine
from robustutils.latent import (
    Ascent,
    CarliniAscent,
    Coded,
    Found,
    InPixels,
    Manifold,
    Pixels,
    Transformed,
    attempts,
    examples,
    smallest,
    success_of_points,
    success_rate,
    transferred,
    within,
    worst_case,
)

SIDE = 8
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, -0.25, 1.5])


@dataclass(frozen=True)
class LinearDecoder:
    """Images 0.5 + codes W for codes in [-2, 2]^3; the columns of W are small enough for pixels in [0, 1]."""

    def decode(self, codes: Tensor, bases: Tensor) -> Tensor:
        weights = torch.randn(3, SIDE * SIDE, generator=torch.Generator().manual_seed(9)).sign() / 12
        return (0.5 + codes @ weights).view(-1, 1, SIDE, SIDE)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(-2.0), torch.tensor(2.0)


@dataclass(frozen=True, eq=False)
class Data:
    """Codes of any manifold."""

    manifold: Manifold
    codes: Tensor
    labels: Tensor
    images: Tensor

    def bases(self, rows: Tensor) -> Tensor:
        return self.images[rows]


class TwoClasses(nn.Module):
    """Scores 0 and w x + bias, computed row by row so that the batch does not change a bit of it."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(sign * WEIGHTS), nn.Parameter(-sign * WEIGHTS.sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) * self.weight).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def normalised_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch normalisation, in evaluation mode: three classes, all alike on a grey image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 4, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip
        for part in (net[1], net[4]):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
        for _ in range(20):
            net(torch.rand(50, 1, SIDE, SIDE))
        net.eval()
        with torch.no_grad():
            net[7].bias -= net(torch.full((1, 1, SIDE, SIDE), 0.5))[0]
    return net


def coded(manifold: Manifold, model: nn.Module, n: int = 12) -> Data:
    """Codes of a manifold, near to a border and far from it in turn, labelled by the model but for the second one."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(100, 1, SIDE, SIDE, generator=generator)
    low, high = manifold.bounds()
    shape = images.shape if isinstance(manifold, Pixels) else (100, 6 if isinstance(manifold, Affine) else 3)
    codes = low + (high - low) * torch.rand(shape, generator=generator)
    with torch.no_grad():
        logits = model(manifold.decode(codes, images))
    order = margin(logits, logits.argmax(1)).argsort(descending=True)
    chosen = torch.stack([order[: n // 2], order[-(n // 2) :]], 1).flatten()
    labels = logits.argmax(1)[chosen]
    labels[1] = (labels[1] + 1) % 3
    return Data(manifold, codes[chosen], labels, images[chosen])


def pixels_at(distances: Tensor) -> Data:
    """Images of two classes at a linf distance to the border of :class:`TwoClasses`, the ball within [0, 1]."""
    n = len(distances)
    labels = torch.arange(n) % 2
    noise = 0.2 * torch.rand(n, 6, generator=torch.Generator().manual_seed(3)) - 0.1
    noise -= (noise @ WEIGHTS / WEIGHTS.square().sum())[:, None] * WEIGHTS
    codes = 0.5 + noise + (distances * (2 * labels - 1))[:, None] * WEIGHTS.sign()
    return Data(Pixels(), codes.view(n, 1, 2, 3), labels, torch.zeros(n))


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
    torch.testing.assert_close(found.linf, (found.codes - data.codes).flatten(1).abs().amax(1))


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
    found = attacked(Ascent(eps=0.06), TwoClasses(), pixels_at(distances))
    assert torch.equal(found.success, distances < 0.06)
    assert ((found.steps >= 0) == found.success).all()
    assert (found.linf[found.success] >= distances[found.success] - 1e-5).all()


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


def test_affine_maps_are_not_rounded_under_autocast():
    images, theta = torch.rand(4, 1, SIDE, SIDE), torch.rand(4, 6) / 5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = Affine().decode(theta, images)
    assert torch.equal(made, fonts.render(images, theta))


# ---- data sets ----


def test_pixels_and_transformations_code_any_data_set(tiny_data):
    rows = torch.tensor([3, 1])
    data: Coded
    for data in (InPixels(tiny_data), Transformed(tiny_data)):
        made = data.manifold.decode(data.codes[rows], data.bases(rows))
        torch.testing.assert_close(made, tiny_data.images[rows])
        assert within(data.manifold, data.codes).all()
        assert torch.equal(data.labels, tiny_data.labels)


# ---- several attempts ----


@pytest.mark.parametrize(
    ("manifold", "attack"),
    [
        (Pixels(), Ascent(steps=8, eps=0.1)),
        (LinearDecoder(), Ascent(steps=8, eps=0.1)),
        (Affine("hard"), CarliniAscent(steps=8, eps=0.2)),
    ],
    ids=["pixels", "decoder", "affine"],
)
def test_a_point_and_attempt_do_not_depend_on_the_batch(manifold, attack):
    model = normalised_net()
    data = coded(manifold, model)
    whole = examples(model, attack, data, points=12, tries=3)
    for points, batch_size in ((4, 1), (12, 7)):
        part = examples(model, attack, data, points=points, tries=3, batch_size=batch_size)
        torch.testing.assert_close(part["codes"], whole["codes"][:points], rtol=0, atol=2e-4)
        for name in ("success", "correct", "steps", "valid"):
            assert torch.equal(part[name], whole[name][:points]), name
    other = examples(model, attack, data, points=12, tries=3, seed=1)
    assert not torch.equal(other["codes"], whole["codes"])
    codes = whole["codes"][0]
    assert not torch.equal(codes[0], codes[1]), "two attempts are the same"


def test_attempts_measure_both_spaces_and_leave_out_what_does_not_count():
    model = normalised_net()
    data = coded(LinearDecoder(), model)
    data.codes[2] = 2.5
    with torch.no_grad():
        data.labels[2] = model(data.manifold.decode(data.codes[2:3], data.images)).argmax()
    attack = Ascent(steps=8)
    found = attempts(model, attack, data, points=12, tries=2)
    codes = examples(model, attack, data, points=12, tries=2)["codes"]
    moved = (codes - data.codes[:, None]).flatten(0, 1)
    images = data.manifold.decode(codes.flatten(0, 1), data.images)
    delta = (images - data.manifold.decode(data.codes, data.images).repeat_interleave(2, 0)).flatten(1)
    torch.testing.assert_close(found["code_linf"].flatten(), moved.abs().amax(1))
    torch.testing.assert_close(found["code_l2"].flatten(), moved.norm(dim=1))
    torch.testing.assert_close(found["image_linf"].flatten(), delta.abs().amax(1))
    torch.testing.assert_close(found["image_l2"].flatten(), delta.norm(dim=1))
    assert all(part.shape == (12, 2) for part in found.values())
    assert found["valid"][:, 0].tolist() == [True, True, False] + [True] * 9
    assert found["correct"][:, 0].tolist() == [True, False] + [True] * 10
    for row in (1, 2):
        assert not found["success"][row].any()
        assert (found["image_l2"][row] == 0).all()
    assert found["success"].any()


def test_where_no_point_counts_nothing_is_attacked():
    model = normalised_net()
    data = coded(Pixels(), model)
    wrong = replace(data, labels=(data.labels + 1) % 3)
    found = attempts(model, Ascent(), wrong, points=3)
    assert not found["correct"].any()
    assert (found["steps"] == -1).all()
    with pytest.raises(ValueError, match="none of 3 points is correct and valid"):
        success_rate(found)
    assert smallest(model, Ascent(), wrong, points=3)["size"].tolist() == [0, 0, 0]


def test_attempts_are_kept_under_their_name(tiny_data, tiny_net, cache):
    data = InPixels(tiny_data)
    first = kept(attempts, tiny_net(), Ascent(steps=2), data, points=4, tries=2)
    again = kept(attempts, tiny_net(), Ascent(steps=2), data, points=4, tries=2)
    assert first.keys() == again.keys()
    assert len(list(cache.glob("attempts-*.safetensors"))) == 1
    for attack, other in ((Ascent(steps=2, eps=0.2), data), (Ascent(steps=2), Transformed(tiny_data))):
        kept(attempts, tiny_net(), attack, other, points=4, tries=2)
    assert len(list(cache.glob("attempts-*.safetensors"))) == 3


# ---- the smallest change ----


def test_the_smallest_change_of_a_linear_model_is_the_distance_to_the_border():
    distances = torch.linspace(0.02, 0.14, 10)
    data = pixels_at(distances)
    data.labels[3] = 1 - data.labels[3]
    found = smallest(TwoClasses(), Ascent(eps=0.12, steps=60), data, points=10)
    size = found["size"]
    assert size[3] == 0, "wrong before"
    assert torch.equal(size.isinf(), distances > 0.12), "beyond eps"
    reached = size.isfinite() & (size > 0)
    assert (size[reached] >= distances[reached] - 1e-5).all(), "nearer than possible"
    assert (size[reached] <= distances[reached] + 0.12 / 2**9 + 1e-4).all(), f"too far: {size - distances}"
    assert found["valid"].all()


def test_the_smallest_change_is_in_the_norm_of_the_attack():
    distances = torch.linspace(0.02, 0.06, 6)
    exact = distances * WEIGHTS.abs().sum() / WEIGHTS.norm()
    along_signs = distances * 6**0.5  # Adam's first steps go there
    size = smallest(TwoClasses(), Ascent(eps=0.3, norm="l2", steps=60), pixels_at(distances), points=6)[
        "size"
    ]
    assert (size >= exact - 1e-5).all()
    assert (size <= 1.05 * along_signs + 0.005).all(), f"{size} for {along_signs}"


# ---- transfer ----


def test_examples_carry_over_to_the_same_model_and_not_to_its_opposite():
    data = pixels_at(torch.linspace(0.02, 0.1, 8))
    found = examples(TwoClasses(), Ascent(eps=0.06), data, points=8, tries=2)
    same = transferred(TwoClasses(), data, found)
    assert torch.equal(same["success"], found["success"])
    assert torch.equal(same["correct"], found["correct"])
    assert found["success"].any()
    opposite = transferred(TwoClasses(sign=-1), data, found)
    assert not opposite["correct"].any()
    assert not opposite["success"].any()


# ---- rates ----


def table() -> dict[str, Tensor]:
    """Four points with two attempts: both succeed, one, one that is not valid, one that was wrong before."""
    flags = {
        "success": [[True, True], [True, False], [True, True], [False, False]],
        "correct": [[True, True], [True, True], [True, True], [False, False]],
        "valid": [[True, True], [True, True], [False, False], [True, True]],
    }
    return {name: torch.tensor(part) for name, part in flags.items()}


def test_rates_name_their_denominators():
    value, (low, high) = success_rate(table())
    assert value == pytest.approx(75), "three of four attempts on points that count"
    assert 0 < low < 75 < high < 100, "an interval for two points"
    assert success_rate(table(), as_coded=True)[0] == pytest.approx(50), "three of six attempts"
    shares, places = success_of_points(table(), as_coded=True)
    assert (shares.tolist(), places.tolist()) == ([100, 50, 0], [0, 1, 2])
    assert (worst_case(table()).count, worst_case(table()).n) == (2, 2)
    assert (worst_case(table(), as_coded=True).count, worst_case(table(), as_coded=True).n) == (2, 3)


def test_more_attempts_do_not_narrow_the_interval():
    found = {name: part[:, :1].repeat(1, 50) for name, part in table().items()}
    few = {name: part[:, :1] for name, part in table().items()}
    assert success_rate(found) == success_rate(few)


# ---- every complaint ----


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Ascent, {"eps": -0.1}, "eps=-0.1"),
        (Ascent, {"eps": float("nan")}, "eps=nan"),
        (Ascent, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (Ascent, {"steps": -1}, "steps=-1: must not be negative"),
        (Ascent, {"norm": "l1"}, "l1"),
        (Ascent, {"keep": "last"}, "last"),
        (CarliniAscent, {"confidence": -1.0}, "confidence=-1.0: must not be negative"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes, bases, labels: (codes.double(), bases, labels), "got torch.float64"),
        (lambda codes, bases, labels: (codes, bases, labels[:3]), "int64 [3]"),
        (lambda codes, bases, labels: (codes, bases, labels.float()), "torch.float32 [12]"),
        (lambda codes, bases, labels: (codes, bases[:4], labels), "with 4 bases"),
        (lambda codes, bases, labels: (codes[:0], bases[:0], labels[:0]), "N > 0"),
    ],
)
def test_codes_bases_and_labels_must_fit(change: Callable[..., tuple[Tensor, ...]], message):
    data = coded(Affine(), model := normalised_net())
    with pytest.raises(ValueError, match=re.escape(message)):
        Ascent()(model, data.manifold, *change(data.codes, data.images, data.labels))


def test_points_and_rounds_are_checked(tiny_data: Dataset, tiny_net):
    data = InPixels(tiny_data)
    for points in (0, 51):
        with pytest.raises(ValueError, match=f"points={points}: there are 50 examples, so 1 to 50"):
            attempts(tiny_net(), Ascent(), data, points=points)
    with pytest.raises(ValueError, match="tries=0: at least one"):
        attempts(tiny_net(), Ascent(), data, points=2, tries=0)
    with pytest.raises(ValueError, match="rounds=0: at least one"):
        smallest(tiny_net(), Ascent(), data, points=2, rounds=0)
