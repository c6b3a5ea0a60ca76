"""The square attack on a model without a gradient; images are [N, 1, 2, 3], all of class 0."""

import pytest
import torch
from torch import Tensor, nn

from robustutils import threats
from robustutils.attacks import FGSM
from robustutils.square import Square
from robustutils.threats import Linf


class FirstColumn(nn.Module):
    """Class 1 where the mean of the first column exceeds 0.75, with a gradient of zero everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[..., 0].mean((1, 2)).detach() - 0.75 + 0 * x.sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)


def misled(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1) == 1


def test_square_needs_no_gradient_and_stays_in_the_ball():
    x, y = torch.full((64, 1, 2, 3), 0.5), torch.zeros(64, dtype=torch.int64)
    assert torch.equal(FGSM(eps=0.3)(FirstColumn(), x, y), x)
    x_adv = Square(eps=0.3, queries=60)(FirstColumn(), x, y)
    threats.check_inside(Linf(eps=0.3), x, x_adv)
    assert misled(FirstColumn(), x_adv).all()
    for grey in (0.0, 0.1, 1.0):
        edge = torch.full_like(x, grey)
        threats.check_inside(Linf(eps=0.3), edge, Square(eps=0.3, queries=5)(FirstColumn(), edge, y))


def test_square_repeats_itself_and_does_better_with_more_queries():
    net, x, y = FirstColumn(), torch.full((256, 1, 2, 3), 0.5), torch.zeros(256, dtype=torch.int64)
    assert torch.equal(Square(eps=0.3, queries=5)(net, x, y), Square(eps=0.3, queries=5)(net, x, y))
    few, many = (int(misled(net, Square(eps=0.3, queries=q)(net, x, y)).sum()) for q in (1, 20))
    assert few < many


def test_square_asks_no_more_about_an_image_that_is_fooled():
    asked = []
    net = FirstColumn()
    net.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    x, y = torch.full((64, 1, 2, 3), 0.5), torch.zeros(64, dtype=torch.int64)
    Square(eps=0.3, queries=50)(net, x, y)
    assert asked[3:] == sorted(
        asked[3:], reverse=True
    )  # the first three questions are whether the model works
    assert asked[-1] < 64


@pytest.mark.parametrize(("changes", "text"), [({"queries": 0}, "queries=0"), ({"p": 0.0}, "p=0.0")])
def test_square_refuses(changes, text):
    with pytest.raises(ValueError, match=text):
        Square(eps=0.3, **changes)
