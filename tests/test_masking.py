"""The diagnosis of masked gradients, on models whose gradients are known."""

import math

import pytest
import torch
from torch import Tensor, nn

from robustutils import masking
from robustutils.attacks import FGSM
from robustutils.data import Dataset
from robustutils.evaluation import AttackResult, adversarial

N = 60


class Linear(nn.Module):
    """Two classes by the mean of the pixels; a ``ripple`` turns the gradient at the data round, and little else."""

    def __init__(self, ripple: float = 0.0) -> None:
        super().__init__()
        self.weight, self.ripple = nn.Parameter(torch.tensor(20.0)), ripple

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1) - 0.5  # 0.2 or -0.2 at the data, where the sine is zero and rises
        score = self.weight * mean - self.ripple * torch.sin(mean * 40 * math.pi)
        return torch.stack([-score, score], dim=1)


@pytest.fixture
def points() -> Dataset:
    labels = torch.arange(N) % 2
    images = torch.where(labels == 1, 0.7, 0.3).view(-1, 1, 1, 1).expand(N, 1, 6, 6).contiguous()
    return Dataset("points", "test", images, labels, ("dark", "light"), "")


def verdicts(fooled: int) -> AttackResult:
    standing = torch.arange(N) >= fooled
    return AttackResult(torch.ones(N, dtype=torch.bool), standing)


def falling(count: int, n: int = 200, start: int = 0) -> AttackResult:
    """``count`` of ``n`` correct inputs fall, from input ``start`` on."""
    attacked = torch.ones(n, dtype=torch.bool)
    attacked[start : start + count] = False
    return AttackResult(torch.ones(n, dtype=torch.bool), attacked)


@pytest.mark.parametrize(("white_box", "others", "expected"), [
    (20, {"R+FGSM": falling(60), "transfer": falling(80)}, ["R+FGSM", "transfer"]),
    (20, {"R+FGSM": falling(60), "transfer": falling(10)}, ["R+FGSM"]),
    (20, {"R+FGSM": falling(20)}, []),
    (60, {"R+FGSM": falling(20)}, []),
    # One more error on the same images: beyond chance only where there are many.
    (20, {"R+FGSM": falling(21)}, []),
    # Ten more errors decide when they come on top of the same ones, not when all are other images.
    (20, {"nested": falling(30), "disjoint": falling(30, start=100)}, ["nested"]),
    (0, {"none": falling(0)}, []),
    (20, {}, []),
])  # fmt: skip
def test_beaten_by_names_the_attacks_that_find_significantly_more(white_box, others, expected):
    assert masking.beaten_by(falling(white_box), others) == expected


def test_approximation_ratio_counts_the_single_step_among_the_strong():
    single, strong = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 2.0])
    assert masking.approximation_ratio(single, strong) == pytest.approx(100 * 4 / 7)
    assert masking.approximation_ratio(strong, strong) == 100


def test_perturbation_cosines():
    x = torch.zeros(4, 1, 1, 2)
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).view(4, 1, 1, 2)
    other = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, -1.0], [1.0, 0.0]]).view(4, 1, 1, 2)
    assert masking.perturbation_cosines(one, other, x).tolist() == pytest.approx([1, 0, -1, 0])


def diagnosis(
    model: nn.Module, points: Dataset, eps: float = 0.15, **transferred: Tensor
) -> masking.Diagnosis:
    return masking.diagnose(model, points, eps=eps, transferred=transferred, steps=20, queries=50)


def test_an_honest_model_is_not_masked(points):
    found = diagnosis(Linear(), points, eps=0.25, source=adversarial(Linear(), FGSM(eps=0.25), points))
    assert not found.masked
    assert found.single_step.error_rate().percent == 100
    assert found.ratio == pytest.approx(100, abs=1)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.sentence().startswith("not masked")


def test_a_rippled_loss_is_found_out_by_transfer(points):
    rippled, honest = Linear(ripple=1.0), Linear()
    assert torch.equal(rippled(points.images).argmax(1), points.labels), (
        "the ripple must not cost clean accuracy"
    )
    found = diagnosis(rippled, points, eps=0.3, honest=adversarial(honest, FGSM(eps=0.3), points))
    assert found.masked
    assert "honest" in found.single_step_beaten_by()
    assert found.sentence().startswith("masked")
    assert "honest" in found.sentence()


def test_a_model_that_is_always_wrong_is_told_clearly(points):
    wrong = Dataset("points", "test", points.images, 1 - points.labels, points.classes, "")
    with pytest.raises(ValueError, match=r"none of the 60.*points"):
        diagnosis(Linear(), wrong)


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        (
            {"single_step": 5, "random_step": 5, "iterated": 30, "gradient_free": 50},
            "masked: even the iterated",
        ),
        (
            {"single_step": 5, "random_step": 40, "iterated": 55, "gradient_free": 20},
            "masked: the single step",
        ),
        ({"single_step": 20, "random_step": 50, "iterated": 55, "gradient_free": 20}, "suspicious"),
        ({"single_step": 20, "random_step": 20, "iterated": 55, "gradient_free": 20}, "not masked"),
    ],
)
def test_the_sentence_follows_the_strongest_symptom(counts, start):
    found = masking.Diagnosis(
        **{name: verdicts(count) for name, count in counts.items()},
        transferred={"another model": verdicts(20)},
        ratio=50.0,
        cosine=0.5,
        gradient_norm=1.0,
    )
    assert found.sentence().startswith(start)
    assert found.masked == start.startswith("masked")


def test_diagnoses_are_a_table_with_a_line_for_each_model(points):
    seen = masking.diagnose(Linear(), points, eps=0.1, transferred={}, steps=3, queries=3)
    table = masking.table({"linear": seen})
    assert table.header[0] == "model"
    assert table.header[-1] == "verdict"
    (line,) = table.rows
    assert (line[0], line[-1]) == ("linear", seen.sentence())
    assert masking.table({}).rows == ()
