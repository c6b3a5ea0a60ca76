"""The surrogate: centred neighbours, divided votes, and agreement told apart where people changed their mind."""

import pytest
import torch
from torch import nn

from robustutils.papers.invariance.surrogate import ABSTAINS, VIEWS, Surrogate, centred, validation


class Always(nn.Module):
    """A model that says one class."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.label = label

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.label), 10).float() + self.weight


def test_images_are_centred_on_their_ink(digits):
    shifted = torch.zeros(1, 1, 28, 28)
    shifted[0, 0, 2:6, 3:7] = 1
    made = centred(shifted)
    assert torch.allclose(made[0, 0, 12:16, 12:16], torch.ones(4, 4), atol=1e-4)
    assert torch.equal(centred(torch.zeros(1, 1, 28, 28)), torch.zeros(1, 1, 28, 28))


def test_networks_and_neighbours_have_half_the_votes_each(digits):
    found = Surrogate(models=[Always(3), Always(4)], train=digits, neighbours=1)
    votes = found.votes(digits.images[:20])
    own = digits.labels[:20]
    assert torch.allclose(votes.sum(1), torch.ones(20))
    expected = 0.5 * nn.functional.one_hot(own, 10) + 0.25 * (
        nn.functional.one_hot(torch.tensor([3]), 10) + nn.functional.one_hot(torch.tensor([4]), 10)
    )
    assert torch.allclose(votes, expected), "the nearest neighbour of a training image is itself"


def test_it_abstains_where_votes_are_divided_and_does_not_depend_on_the_batch(digits, digits_net):
    found = Surrogate(models=[digits_net], train=digits)
    images = digits.images[:30]
    labels = found.labels(images)
    assert (labels == digits.labels[:30]).float().mean() > 0.8, "it knows training images"
    assert torch.equal(torch.cat([found.labels(images[:7]), found.labels(images[7:])]), labels)
    divided = Surrogate(models=[Always(3)], train=digits.take((digits.labels == 5).nonzero().squeeze(1)))
    assert divided.labels(images).tolist() == [ABSTAINS] * 30
    agreed = Surrogate(models=[Always(5)], train=digits.take((digits.labels == 5).nonzero().squeeze(1)))
    assert agreed.labels(images).tolist() == [5] * 30
    assert len(VIEWS) == 15


def test_agreement_is_told_apart_by_what_people_did():
    human, original = torch.tensor([1, 1, 2, 2]), torch.tensor([1, 1, 5, 6])
    found = validation(torch.tensor([1, ABSTAINS, 2, 6]), human, original)
    assert [part.tolist() for part in found["unchanged"]] == [[True, False], [True, False]]
    assert [part.tolist() for part in found["changed"]] == [[True, True], [True, False]]


@pytest.mark.parametrize("settings", [{"models": []}, {"neighbours": 0}, {"needed": 0.5}, {"needed": 1.1}])
def test_settings_that_cannot_be_are_refused(settings, digits):
    with pytest.raises(ValueError, match=r"model.* 1297 neighbours.*share"):
        Surrogate(**{"models": [Always(1)], "train": digits} | settings)
