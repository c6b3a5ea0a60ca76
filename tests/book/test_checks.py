"""The check: honest differences between machines stay green, seeded faults turn red, and the report says what and when."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustutils import attacks, data, evaluation, models, speed, storage
from robustutils.book import checks, outcomes_files
from robustutils.book.checks import Agreement, Report
from robustutils.outcomes import Measurement, Outcomes
from robustutils.threats import Linf

EPS = 0.1


@pytest.fixture(scope="module")
def images() -> data.Dataset:
    return data.load("digits", "test").first(300)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return models.published("small_cnn")


def measure(
    net: nn.Module,
    images: data.Dataset,
    *,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 20,
    loss: Callable[[Tensor, Tensor], Tensor] = attacks.cross_entropy,
) -> outcomes_files.Piece:
    """Rows as a chapter has them: errors without and with attacks, and the losses behind an approximation ratio."""
    single = attacks.FGSM(eps=EPS)
    strong = attacks.PGD(
        threat=Linf(eps=EPS), steps=steps, step_size=0.01, loss=loss, drop_fooled=False, dtype=dtype
    )
    rows = {}
    for name, attack in {"FGSM": single, "PGD": strong}.items():
        found = evaluation.evaluate(net, attack, images)
        errors = Outcomes(~found.attacked, [0]).measured(Outcomes(~found.clean, [0]))
        rows["T1", name] = errors
    reached = {
        name: evaluation.losses_under(net, attack, images).numpy()
        for name, attack in {"single": single, "strong": strong}.items()
    }
    rows["T2", "ratio"] = Measurement(0.0, None, 300, [0], outcomes=reached)
    return outcomes_files.of_run({"parameters": {}}, rows)


def disagreeing(published: outcomes_files.Piece, today: outcomes_files.Piece) -> list[str]:
    found = checks.compare(published, today)
    assert len(found) == 3, "every row is compared"
    return [f"{row.row}: {row.problem}" for row in found if row.problem]


def test_the_same_code_agrees_image_by_image(network, images):
    assert disagreeing(measure(network, images), measure(network, images)) == []


def test_another_precision_and_another_convolution_library_agree(network, images, monkeypatch, tmp_path):
    published = measure(network, images)
    for number, dtype in enumerate((torch.bfloat16, torch.float32)):
        monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / str(number)))
        monkeypatch.setattr(speed, "fast_dtype", lambda device, dtype=dtype: dtype)
        assert disagreeing(published, measure(network, images)) == [], f"passes in {dtype}"
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / "others"))
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        assert disagreeing(published, measure(network, images)) == []
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def wrong_label(logits: Tensor, y: Tensor) -> Tensor:
    return attacks.cross_entropy(logits, (y + 1) % 10)


@pytest.mark.parametrize("fault", ["half of the steps", "wrong label", "shifted pixels", "another seed"])
def test_a_seeded_fault_disagrees(network, images, fault, digits_net):
    published = measure(network, images)
    today = {
        "half of the steps": lambda: measure(network, images, steps=10),
        "wrong label": lambda: measure(network, images, loss=wrong_label),
        "shifted pixels": lambda: measure(network, images.changed((images.images + 2 / 255).clamp(0, 1))),
        "another seed": lambda: measure(digits_net, images),
    }[fault]()
    assert disagreeing(published, today), f"{fault}: no row disagrees"


def piece(array: list, *, images: list[int], seeds: tuple[int, ...] = (0,)) -> outcomes_files.Piece:
    row = outcomes_files.RowOutcomes(
        {"outcomes": np.atleast_2d(np.array(array))}, np.array(images), seeds, 1.0, len(images)
    )
    return outcomes_files.Piece({"parameters": {}}, {("T1", "row"): row})


def test_rows_are_paired_by_image_and_seed():
    published = piece([[True, False, True, False]], images=[0, 2, 4, 6])
    (found,) = checks.compare(published, piece([[True, False, False]], images=[4, 2, 6]))
    assert found == Agreement("T1", "row", 3, "")
    both = piece([[True] * 10, [False] * 10], images=list(range(10)), seeds=(0, 1))
    assert checks.compare(both, piece([[False] * 10], images=list(range(10)), seeds=(1,)))[0].problem == ""
    swapped = checks.compare(both, piece([[True] * 10], images=list(range(10)), seeds=(1,)))[0]
    assert swapped.problem == "10 of 10 outcomes changed, 4 may"


def problem(before: np.ndarray, after: np.ndarray) -> str:
    images = list(range(len(before)))
    (found,) = checks.compare(piece(before, images=images), piece(after, images=images))
    return found.problem


def flipped(outcomes: np.ndarray, places: slice) -> np.ndarray:
    changed = outcomes.copy()
    changed[places] = ~changed[places]
    return changed


def test_truth_values_may_flip_both_ways_but_not_one_way():
    half = np.repeat([False, True], 250)
    assert problem(half, flipped(half, slice(238, 262))) == "", "12 up and 12 down"
    assert problem(half, flipped(half, slice(238, 250))) == "outcomes moved by 2.4% in the mean, 2.1% may"
    assert problem(half, flipped(half, slice(234, 266))) == "32 of 500 outcomes changed, 30 may"


def test_numbers_may_scatter_but_not_move_in_one_direction():
    rng = np.random.default_rng(0)
    losses, scatter = rng.uniform(5, 15, 200), rng.normal(0, 1, 200)
    assert problem(losses, losses + scatter) == ""
    assert problem(losses, losses + scatter + 0.5).startswith("outcomes moved by 3.9%"), (
        "half a standard deviation"
    )
    assert problem(losses, 1.009 * losses) == "", "less than one percent is no direction"
    assert problem(losses, 1.02 * losses).startswith("outcomes moved by 2.0% in the mean, 1.0% may")


@pytest.mark.parametrize("today", [
    piece([[True]], images=[9]),
    piece([[True]], images=[0], seeds=(3,)),
    outcomes_files.Piece({"parameters": {}}),
], ids=["other images", "other seeds", "no such row"])  # fmt: skip
def test_what_has_nothing_in_common_is_not_counted(today):
    assert checks.compare(piece([[True]], images=[0]), today) == []


HALF = np.repeat([1.0, 2.0], 10)


@pytest.mark.parametrize(("after", "said"), [
    (np.full(20, np.nan), "not finite"),
    (np.where(HALF > 1, np.nan, HALF), "not finite"),
    (np.full(20, np.inf), "not finite"),
    (HALF > 1, "became bool"),
], ids=["NaN", "half NaN", "infinite", "truth values"])  # fmt: skip
def test_what_cannot_be_compared_is_no_agreement(after, said):
    assert problem(HALF, HALF) == ""
    assert said in problem(HALF, after)


def artifacts(**parts: np.ndarray) -> outcomes_files.Piece:
    tensors = {name: torch.from_numpy(part) for name, part in parts.items()}
    return outcomes_files.Piece({"parameters": {}}, small={"verdicts-1": tensors})


@pytest.mark.parametrize(("today", "said"), [
    ({"value": HALF[None, :1]}, r"value float64[1, 20] became float64[1, 1]"),
    ({"other": HALF[None]}, "value became other"),
    ({}, "value became nothing"),
], ids=["another shape", "another name", "nothing"])  # fmt: skip
def test_artifacts_of_another_shape_or_name_are_no_agreement(today, said):
    published = artifacts(value=HALF[None])
    assert [row.problem for row in checks.compare(published, published)] == [""]
    assert [row.problem for row in checks.compare(published, artifacts(**today))] == [said]


def test_what_today_keeps_besides_is_no_difference():
    assert [
        row.problem for row in checks.compare(artifacts(value=HALF), artifacts(value=HALF, more=HALF))
    ] == [""]


def test_pictures_are_not_compared_pixel_by_pixel():
    published, today = (artifacts(picture=np.full((2, 1, 3, 3), value), value=HALF) for value in (0.0, 1.0))
    assert [row.row for row in checks.compare(published, today)] == ["value"]
    assert checks.compare(artifacts(picture=HALF[None, None, None]), artifacts()) == []


def test_a_damaged_file_of_the_edition_is_named(tmp_path):
    network, outcomes = (
        tmp_path / "weights" / "net.safetensors",
        tmp_path / "results" / "x.outcomes.safetensors",
    )
    for path in (network, outcomes):
        storage.write(path, "key", {"values": torch.arange(100)})
    assert checks.damaged(tmp_path) == []
    content = bytearray(network.read_bytes())
    content[-1] ^= 1
    network.write_bytes(content)
    outcomes.write_bytes(b"")
    found = checks.damaged(tmp_path)
    assert [line.partition(":")[0] for line in found] == [
        "results/x.outcomes.safetensors",
        "weights/net.safetensors",
    ]
    assert "checksum" in found[1]


def test_rows_that_an_earlier_check_has_reached_are_told(tmp_path):
    rows = [Agreement("T1", name, 300, "") for name in "ab"]
    Report.of("blind_spot", tmp_path, [], rows).write(checks.path("blind_spot", tmp_path))
    later = Report.of("blind_spot", tmp_path, [], rows[:1])
    assert later.lost == ("T1 | b",)
    assert "lost     T1 | b" in later.text()


def test_rows_without_outcomes_are_compared_by_their_value():
    def row(value, n=10):
        found = outcomes_files.RowOutcomes({}, np.arange(0), (0,), value, n)
        return outcomes_files.Piece({"parameters": {}}, {("L", "k"): found})

    assert [found.problem for found in checks.compare(row(0.5), row(0.5000001))] == [""]
    assert [found.problem for found in checks.compare(row(0.5), row(0.6))] == ["0.5 became 0.6"]
    assert checks.compare(row(0.5), row(0.5, n=9)) == []


def test_the_report_comes_back_from_its_file_and_counts_its_rows(tmp_path):
    rows = [Agreement("T1", "a", 300, ""), Agreement("T1", "b", 300, "3 of 300 outcomes changed, 2 may")]
    report = replace(Report.of("blind_spot", tmp_path, [], rows), date="2026-01-31")
    path = checks.path("blind_spot", tmp_path)
    assert checks.read(path) is None
    report.write(path)
    assert checks.read(path) == report
    assert json.loads(path.read_text())["date"] == "2026-01-31"
    assert report.summary() == "1 of 2 rows come out again as published"
    assert [line.split()[0] for line in report.text().splitlines()] == ["agrees", "differs", "blind_spot:"]
    assert [row.row for row in report.disagreeing] == ["b"]


def test_the_path_is_beside_the_outcomes():
    assert checks.path("spots", Path("book")) == Path("book/results/spots.check.json")
