"""Verified bounds enclose what the network does, and are exact where they can be."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import models
from robustutils.bounds import crown_ibp_margins, interval_bounds, interval_margins, verified
from robustutils.papers.blind_spot import dual
from robustutils.papers.blind_spot.dual import dual_margins

ALL = pytest.mark.parametrize("margins", [interval_margins, dual_margins, crown_ibp_margins])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(2, 4, 3, stride=2, padding=1)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(36, 3),
    ).eval()


def deep(
    first: nn.Conv2d, second: nn.Conv2d, *between: nn.Module, size: tuple[int, int] = (9, 9)
) -> nn.Module:
    """Two convolutions and two dense layers, for images of ``size``."""
    body = nn.Sequential(first, nn.ReLU(), *between, second, nn.ReLU(), nn.Flatten())
    width = body(torch.zeros(1, first.in_channels, *size)).shape[1]
    return nn.Sequential(*body, nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def box(x: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    return (x - radius).clamp(0, 1), (x + radius).clamp(0, 1)


def true_margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x)
    return logits.gather(1, y[:, None]) - logits


def least_found(model: nn.Module, low: Tensor, high: Tensor, y: Tensor, steps: int = 20) -> Tensor:
    """The least margins that random points, corners and a descent for each rival class find, [N, K]."""
    least = true_margins(model, (low + high) / 2, y).detach()
    width = high - low
    for _ in range(30):
        share = torch.rand_like(low)
        for point in (low + share * width, low + share.round() * width):
            least = torch.minimum(least, true_margins(model, point, y).detach())
    for rival in range(least.shape[1]):
        x = low + torch.rand_like(low) * width
        for _ in range(steps):
            x.requires_grad_(True)
            found = true_margins(model, x, y)
            least = torch.minimum(least, found.detach())
            (gradient,) = torch.autograd.grad(found[:, rival].sum(), x)
            x = (x.detach() - 0.25 * width * gradient.sign()).clamp(low, high)
    return least


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    """kolter_wong_small after a few steps on a certificate, so that many ReLUs are stable, as in the paper."""
    model = models.build("kolter_wong_small")
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(40):
        chosen = torch.arange(50 * step, 50 * step + 50) % len(digits)
        x, y = digits.images[chosen], digits.labels[chosen]
        optimiser.zero_grad()
        F.cross_entropy(-interval_margins(model, *box(x, 0.05 * step / 40), y), y).backward()
        optimiser.step()
    return model.eval()


# ---- intervals ----


def test_every_point_of_the_box_lies_within_the_bounds():
    model, x = net(), torch.rand(5, 2, 6, 6)
    low, high = (x - 0.1).clamp(0, 1), (x + 0.2).clamp(0, 1)
    lower, upper = interval_bounds(model, low, high)
    for _ in range(200):
        logits = model(low + torch.rand_like(low).round() * (high - low))
        assert (lower <= logits + 1e-5).all()
        assert (logits <= upper + 1e-5).all()


def test_a_box_of_one_point_has_the_network_s_output_as_bounds():
    model, x = net(), torch.rand(5, 2, 6, 6)
    for end in interval_bounds(model, x, x):
        torch.testing.assert_close(end, model(x), rtol=1e-4, atol=1e-5)


def test_bounds_of_one_layer_are_attained():
    layer, x = nn.Linear(4, 2), torch.rand(3, 4)
    lower, upper = interval_bounds(layer, x - 0.1, x + 0.1)
    reach = 0.1 * layer.weight.abs().sum(1)
    torch.testing.assert_close(upper, layer(x) + reach)
    torch.testing.assert_close(lower, layer(x) - reach)


def test_verified_means_that_no_input_of_the_box_changes_the_class():
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0], [-1.0]])
    low, high = torch.tensor([[0.1], [-0.1], [-0.3]]), torch.tensor([[0.3], [0.3], [-0.1]])
    assert verified(layer, low, high, torch.zeros(3, dtype=torch.int64)).tolist() == [True, False, False]
    assert verified(layer, low, high, torch.ones(3, dtype=torch.int64)).tolist() == [False, False, True]


def test_margins_are_at_least_as_tight_as_the_difference_of_the_bounds():
    """The last layer's rows are subtracted before they are bounded."""
    model, x, y = net(), torch.rand(5, 2, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    lower, upper = interval_bounds(model, *box(x, 0.1))
    found = interval_margins(model, *box(x, 0.1), y)
    rivals = torch.arange(3) != y[:, None]
    apart = lower.gather(1, y[:, None]) - upper
    assert (found >= apart - 1e-5)[rivals].all()
    assert (found > apart + 1e-3)[rivals].any()


# ---- margins ----


@ALL
@pytest.mark.parametrize("radius", [0.02, 0.1, 0.3])
def test_no_point_of_the_box_has_a_smaller_margin(margins, radius, trained, digits):
    x, y = digits.images[:6], (digits.labels[:6] + torch.tensor([0, 0, 0, 1, 2, 3])) % 10
    for model in (trained, models.build("kolter_wong_small", seed=1).eval()):
        low, high = box(x, radius)
        with torch.no_grad():
            bound = margins(model, low, high, y)
        beaten = bound - least_found(model, low, high, y)
        assert beaten.max() < 1e-4, f"a point of the box beats the bound by {beaten.max()}"


def test_the_dual_bound_is_the_tighter_one_on_the_network_of_the_paper(trained, digits):
    x, y = digits.images[:6], digits.labels[:6]
    rivals = torch.arange(10) != y[:, None]
    for name, model in {"trained": trained, "random": models.build("kolter_wong_small", seed=1)}.items():
        for radius in (0.01, 0.05, 0.1):
            with torch.no_grad():
                dual, intervals = (
                    margins(model, *box(x, radius), y) for margins in (dual_margins, interval_margins)
                )
            assert (dual > intervals)[rivals].all(), f"{name}, radius {radius}"


def test_the_dual_bound_leaves_little_to_an_attack_at_a_small_radius(trained, digits):
    x, y = digits.images[:4], digits.labels[:4]
    low, high = box(x, 0.01)
    gap = least_found(trained, low, high, y) - dual_margins(trained, low, high, y).detach()
    assert gap.max() < 0.1 * true_margins(trained, x, y).abs().max()


@ALL
def test_a_margin_to_the_class_itself_is_zero(margins):
    x, y = torch.rand(3, 2, 9, 9), torch.tensor([2, 0, 1])
    found = margins(deep(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)), *box(x, 0.1), y)
    assert found.shape == (3, 3)
    assert not found.gather(1, y[:, None]).any()
    assert (found.scatter(1, y[:, None], 1.0) != 0).all()


@ALL
def test_a_box_of_one_point_has_the_margins_of_the_network(margins):
    y = torch.tensor([2, 0, 1])
    for model, side in ((deep(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)), 9), (net(), 6)):
        x = torch.rand(3, 2, side, side)
        torch.testing.assert_close(margins(model, x, x, y), true_margins(model, x, y), rtol=1e-4, atol=1e-5)


@ALL
def test_margins_of_a_linear_model_are_attained(margins):
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), torch.rand(5, 3, 2, 2), torch.arange(5) % 4
    rows = model[1].weight[y][:, None] - model[1].weight
    exact = true_margins(model, x, y) - 0.1 * rows.abs().sum(2)
    torch.testing.assert_close(margins(model, x - 0.1, x + 0.1, y), exact)


@pytest.mark.parametrize("margins", [dual_margins, crown_ibp_margins])
@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_linear_bounds_are_exact_where_every_relu_is_stable(signs, margins):
    """Biases of both signs switch half of the units of a layer on and half of them off: the network is affine."""
    torch.manual_seed(0)
    model, x, y = (
        deep(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)),
        torch.rand(3, 2, 9, 9),
        torch.tensor([2, 0, 1]),
    )
    for layer, sign in zip((model[0], model[2], model[5]), signs, strict=True):
        layer.weight.data *= 0.05
        layer.bias.data = 3 * sign ** torch.arange(1.0, len(layer.bias) + 1)
    low, high = box(x, 0.1)
    for end in (2, 4, 7):  # the intervals of what goes into each ReLU
        lower, upper = interval_bounds(model[: end - 1], low, high)
        assert ((lower > 0) | (upper < 0)).all(), "this test needs stable units"
    centre = ((low + high) / 2).requires_grad_(True)
    middle, found = true_margins(model, centre, y), margins(model, low, high, y)
    for rival in range(3):
        (gradient,) = torch.autograd.grad(middle[:, rival].sum(), centre, retain_graph=True)
        exact = middle[:, rival] - (gradient.abs() * (high - low) / 2).sum((1, 2, 3))
        torch.testing.assert_close(found[:, rival], exact, rtol=1e-4, atol=1e-5)


def test_the_dual_bound_of_one_relu_is_that_of_the_parallel_lines():
    """z_0 - z_1 = relu(x) - 2 relu(-x - 1/2) on [-1, 2]; the intervals know that relu is not negative, the lines do not."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0, -0.5])
    model[2].weight.data, model[2].bias.data = torch.tensor([[1.0, -2.0], [0.0, 0.0]]), torch.zeros(2)
    low, high, y = torch.tensor([[-1.0]]), torch.tensor([[2.0]]), torch.tensor([0])
    # The first unit lies in [-1, 2]: at least 2/3 x. The second in [-5/2, 1/2]: at most 1/6 (-x - 1/2 + 5/2), twice.
    # Together 2/3 x + 1/3 x - 2/3, least at x = -1.
    torch.testing.assert_close(dual_margins(model, low, high, y)[0, 1], torch.tensor(-5 / 3))
    torch.testing.assert_close(interval_margins(model, low, high, y)[0, 1], torch.tensor(-1.0))
    assert least_found(model, low, high, y)[0, 1] == -1


@pytest.mark.parametrize(
    ("low", "high", "weight", "least"),
    [
        (-1.0, 2.0, 1.0, -1.0),  # z, since u > -l: at -1
        (-2.0, 1.0, 1.0, 0.0),  # 0, since u <= -l
        (-1.0, 1.0, 1.0, 0.0),
        (-1.0, 2.0, -1.0, -2.0),  # -2 (z + 1) / 3: at 2
        (-2.0, 1.0, -3.0, -3.0),
        (0.5, 1.0, 1.0, 0.5),  # always on
        (0.5, 1.0, -1.0, -1.0),
        (-1.0, -0.5, 1.0, 0.0),  # always off
        (-1.0, 0.0, -1.0, 0.0),
        (0.0, 0.0, 1.0, 0.0),
    ],
)
def test_crown_ibp_of_one_relu_is_that_of_its_lines(low, high, weight, least):
    """z_0 - z_1 = w relu(x) + 2 on [l, u]."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(1, 2))
    model[1].weight.data, model[1].bias.data = torch.tensor([[weight], [0.0]]), torch.tensor([2.0, 0.0])
    found = crown_ibp_margins(model, torch.tensor([[low]]), torch.tensor([[high]]), torch.tensor([0]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 2 + least]]))


def test_crown_ibp_knows_that_two_relus_see_the_same_pixel_and_the_intervals_do_not():
    """z_0 - z_1 = relu(x) - relu(x + 1) / 2 on [-1, 3]: at least x - (x + 1) / 2, where intervals give 0 - 4 / 2."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    model[0].weight.data, model[0].bias.data = torch.ones(2, 1), torch.tensor([0.0, 1.0])
    model[2].weight.data, model[2].bias.data = torch.tensor([[1.0, -0.5], [0.0, 0.0]]), torch.zeros(2)
    low, high, y = torch.tensor([[-1.0]]), torch.tensor([[3.0]]), torch.tensor([0])
    torch.testing.assert_close(crown_ibp_margins(model, low, high, y)[0, 1], torch.tensor(-1.0))
    torch.testing.assert_close(interval_margins(model, low, high, y)[0, 1], torch.tensor(-2.0))


def test_crown_ibp_is_the_tighter_one_on_a_trained_network_though_not_always(trained, digits):
    x, y = digits.images[:20], digits.labels[:20]
    rivals = torch.arange(10) != y[:, None]
    for radius in (0.01, 0.05, 0.1, 0.2):
        with torch.no_grad():
            crown, intervals, dual = (
                margins(trained, *box(x, radius), y)[rivals]
                for margins in (crown_ibp_margins, interval_margins, dual_margins)
            )
        assert (crown > intervals).all(), radius
    assert (crown < dual).all(), "its inner bounds are intervals at the largest radius, not the dual ones"
    relu = nn.Sequential(nn.ReLU(), nn.Linear(1, 2, bias=False))
    relu[1].weight.data = torch.tensor([[1.0], [0.0]])
    ends = torch.tensor([[-1.0]]), torch.tensor([[2.0]]), torch.tensor([0])
    assert (interval_margins(relu, *ends)[0, 1], crown_ibp_margins(relu, *ends)[0, 1]) == (0, -1)


# ---- two ways to bound the second convolution ----

CONVOLUTIONS = {
    "kolter_wong": (
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 1},
    ),
    "no padding": ({"kernel_size": 3}, {"kernel_size": 2}),
    "wide padding": ({"kernel_size": 3, "padding": 2}, {"kernel_size": 3, "stride": 2, "padding": 2}),
    "strides that leave pixels over": ({"kernel_size": 2, "stride": 3}, {"kernel_size": 2, "stride": 2}),
    "1x1": ({"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 1}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(9, 9), (10, 13)])
def test_the_second_convolution_has_the_bounds_of_the_backward_pass(name, size):
    torch.manual_seed(0)
    first, second = (
        nn.Conv2d(*width, **how) for width, how in zip([(2, 3), (3, 4)], CONVOLUTIONS[name], strict=True)
    )
    x = torch.rand(3, 2, *size)
    low, high = box(x, 0.15)
    lower, upper = interval_bounds(first, low, high)
    assert ((lower < 0) & (upper > 0)).any(), "no unit is unstable: the offsets are not tested"
    slope = torch.where(lower >= 0, 1.0, (upper / (upper - lower)).clamp(0, 1))
    relaxed = (slope, -slope * lower.clamp_max(0))
    shape = second(first(x)).shape[1:]
    rows = torch.eye(shape.numel()).view(-1, *shape).expand(len(x), -1, *shape)
    slow = dual._backward([first, nn.ReLU(), second], [relaxed], low, high, rows, 0.0)
    fast = dual._second_convolution(first, second, relaxed, low, high)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other.view(-1, *shape), rtol=1e-4, atol=1e-5)


def test_margins_and_gradients_do_not_depend_on_the_way(monkeypatch):
    """A 1x1 convolution that changes nothing between the two keeps the fast way from being taken."""
    torch.manual_seed(0)
    same = nn.Conv2d(3, 3, 1)
    same.weight.data, same.bias.data = torch.eye(3).view(3, 3, 1, 1), torch.zeros(3)
    first, second = nn.Conv2d(2, 3, 4, stride=2, padding=1), nn.Conv2d(3, 4, 4, stride=2, padding=1)
    fast = deep(first, second, size=(12, 12))
    slow = nn.Sequential(*fast[:2], same, *fast[2:])
    x, y = torch.rand(4, 2, 12, 12), torch.tensor([2, 0, 1, 1])
    calls = []
    short = dual._second_convolution
    monkeypatch.setattr(dual, "_second_convolution", lambda *args: calls.append(args) or short(*args))
    found, taken = [], []
    for model in (fast, slow):
        margins = dual_margins(model, *box(x, 0.1), y)
        taken.append(len(calls))
        loss = F.cross_entropy(-margins, y)
        found.append(
            [margins, *torch.autograd.grad(loss, [first.weight, second.weight, first.bias, fast[5].weight])]
        )
    assert taken == [1, 1], "the fast way is for the one and not for the other"
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# ---- gradients ----


@ALL
def test_margins_have_the_gradients_of_their_differences(margins):
    torch.manual_seed(0)
    model = deep(nn.Conv2d(2, 3, 3, stride=2), nn.Conv2d(3, 4, 2)).double()
    x, y = torch.rand(2, 2, 9, 9).double(), torch.tensor([2, 0])

    def total() -> Tensor:
        return margins(model, *box(x, 0.1), y).sum()

    total().backward()
    for label, weight in model.named_parameters():
        length = weight.grad.norm()
        assert length > 0, label
        step = 1e-5 * weight.grad / length  # so small that no unit takes another lower line
        ends = []
        for sign in (1, -2):
            weight.data += sign * step
            ends.append(total().item())
        weight.data += step
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(length.item(), rel=0.02), label


# ---- complaints ----


@pytest.mark.parametrize("bound", [interval_bounds, interval_margins, dual_margins, crown_ibp_margins])
def test_what_has_no_bound_is_told_clearly(bound):
    x = torch.rand(1, 3)
    y = [] if bound is interval_bounds else [torch.zeros(1, dtype=torch.int64)]
    with pytest.raises(ValueError, match=r"Tanh\(\)"):
        bound(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)), x, x, *y)
    with pytest.raises(ValueError, match=r"low.* high"):
        bound(nn.Linear(3, 2), x + 1, x, *y)
    with pytest.raises(ValueError, match=r"low \(1, 3\).* high \(2, 3\)"):
        bound(nn.Linear(3, 2), x, x.expand(2, -1), *y)


@ALL
def test_margins_of_what_does_not_end_in_a_linear_layer_are_refused(margins):
    x = torch.rand(1, 3)
    with pytest.raises(ValueError, match=r"Linear.*ReLU\(\)"):
        margins(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), x, x, torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(1, 3, 3, dilation=2),
        nn.Conv2d(1, 3, 3, padding=(1, 0)),
        nn.Conv2d(1, 3, 3, stride=(1, 2)),
        nn.Conv2d(1, 3, (2, 3)),
    ],
    ids=str,
)
def test_the_dual_bound_of_uncommon_convolutions_is_exact_at_radius_zero(convolution):
    torch.manual_seed(0)
    x, y = torch.rand(2, 1, 9, 9), torch.tensor([0, 2])
    body = nn.Sequential(convolution, nn.ReLU(), nn.Conv2d(3, 2, 3, stride=2), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*body, nn.Linear(body(x).shape[1], 3))
    logits = model(x)
    exact = logits.gather(1, y[:, None]) - logits
    assert torch.allclose(dual_margins(model, x, x, y), exact, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.Conv2d(1, 1, 3, padding="same")],
    ids=str,
)
def test_convolutions_that_the_bounds_do_not_know_are_refused(layer):
    x = torch.rand(1, 1, 5, 5)
    with pytest.raises(ValueError, match="Conv2d"):
        interval_bounds(nn.Sequential(layer), x, x)
