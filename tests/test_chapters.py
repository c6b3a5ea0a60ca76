"""Chapters with parameters that a reader may choose, beyond the defaults that nbval runs."""

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext
import matplotlib as mpl
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure

from robustutils import data, evaluation, models, provenance, recipes
from robustutils.book import outcomes_files, pipeline, results
from robustutils.book.claims import Claims
from robustutils.book.parameters import ParameterError
from robustutils.objectives import Clean
from robustutils.sanity import SanityError

CHAPTERS = provenance.repository() / "chapters"
SMALL = {"n_train": 600, "n_test": 40, "ratio_points": 20, "ratio_steps": 5, "pixel_points": 10, "queries": 5}


@dataclass
class Page:
    """A chapter that was run: its names, the HTML of its tables and the names of its figures."""

    names: dict[str, Any]
    tables: str = ""
    drawn: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def measured(self) -> dict[str, set[str]]:
        """The ids of the claims with measured rows, and those rows."""
        found: dict[str, set[str]] = {}
        for row in self["results"]["claims"]:
            if row["measured"] is not None:
                found.setdefault(row["id"], set()).add(row["row"])
        return found


def run_here(chapter: str, *, only_begin: bool = False, **parameters) -> Page:
    """Run a chapter's cells in this process, with these parameters instead of its own.

    ``only_begin`` ends after the cell that checks the parameters.
    """
    cells = [cell for cell in jupytext.read(CHAPTERS / f"{chapter}.py").cells if cell.cell_type == "code"]
    page = Page({})
    with mpl.rc_context():
        for cell in cells:
            *body, last = ast.parse(cell.source).body
            ends_in_a_value = isinstance(last, ast.Expr)
            statements = body if ends_in_a_value else [*body, last]
            exec(compile(ast.Module(statements, []), chapter, "exec"), page.names)
            if ends_in_a_value:
                show(eval(compile(ast.Expression(last.value), chapter, "eval"), page.names), cell, page)
            if "parameters" in cell.metadata.get("tags", []):
                page.names |= parameters
            if only_begin and "Study.begin(" in cell.source:
                break
    return page


def show(value: Any, cell: Any, page: Page) -> None:
    """What a notebook does with the value of a cell; figures are laid out, and not turned into pixels."""
    if isinstance(value, Figure):
        value.draw_without_rendering()
        page.drawn.add(cell.metadata["mystnb"]["figure"]["name"])
    elif hasattr(value, "_repr_html_"):
        page.tables += value._repr_html_()


def test_a_single_architecture_and_a_model_of_ones_own_are_enough(tmp_path: Path):
    weights = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(models.build("eat_d", seed=7).state_dict(), weights)
    mine = {"model": "robustutils.papers.ensemble.models:eat_d", "weights": str(weights)}
    page = run_here("ensemble_adversarial_training", **SMALL | mine | {"architectures": "D"})
    lines = [line.split("</tr>")[0] for line in page.tables.split('<th scope="row">')]
    (diagnosis,) = [line for line in lines if line.startswith(mine["model"])]
    assert "masked" in diagnosis or "suspicious" in diagnosis


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"architectures": "E"}, "architectures='E'.* A, B"),
        ({"architectures": "B,D", "ensembles": "ens3"}, "architectures='B,D'.* A, C"),
        ({"architectures": "C,D", "defended": "A"}, "defended='A'.*architectures='C,D'"),
        ({"weights": "mine.safetensors"}, "weights='mine.safetensors'.*model"),
    ],
)
def test_models_that_do_not_fit_together_stop_the_chapter_at_its_start(parameters, message):
    with pytest.raises(ParameterError, match=message):
        run_here("ensemble_adversarial_training", only_begin=True, **parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dataset": "svhn"}, "dataset='svhn'.*digits, mnist"),
        ({"dataset": "gtsrb,gtsrb_half"}, "same set"),
        ({"defences": "wrmm"}, "'wrmm'"),
        ({"alpha": 0.85, "beta": 0.2}, "beta=0.2.*alpha=0.85"),
        ({"alpha": 1.5}, "alpha=1.5.* 1.0"),
        ({"epsilon": 2.0}, "epsilon=2.0.*wrm"),
        ({"n_test": 3}, "n_test=3.* 40"),
        ({"weights": "mine.safetensors"}, "weights='mine.safetensors'.*model"),
    ],
)
def test_blind_spots_that_cannot_be_stop_the_chapter_at_its_start(parameters, message):
    with pytest.raises(ParameterError, match=message):
        run_here("blind_spot", only_begin=True, **parameters)


BRIEF = {
    "epochs": 1,
    "n_train": 130,
    "n_held_out": 0,
    "n_test": 40,
    "n_attacked": 10,
    "steps": 2,
    "trend_steps": 2,
    "n_carlini": 4,
    "n_gallery": 4,
    "carlini_iterations": 10,
    "carlini_l2_iterations": 10,
    "n_map": 4,
    "n_repair": 0,
}


def needs(dataset: str) -> None:
    """Skip the test where a data set is absent."""
    try:
        data.load(dataset, "test")
    except data.DataError:
        pytest.skip(f"ROBUSTUTILS_DATA does not hold {dataset}")


COLOUR = {"n_train": 1500, "n_test": 150, "n_attacked": 20, "epochs": 0}


@pytest.fixture
def small_colour_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of colour images that learn something in a second."""
    small = recipes.Recipe(
        architecture="kolter_wong_cifar", objective=Clean(), epochs=8, batch_size=64, learning_rate=3e-3
    )
    for name in ("natural_cifar10", "madry_cifar10", "kolter_wong_cifar10", "natural_gtsrb", "madry_gtsrb"):
        monkeypatch.setitem(recipes.RECIPES, name, small)


@pytest.mark.usefixtures("small_colour_networks")
def test_traffic_signs_are_measured_too():
    needs("gtsrb_half")
    page = run_here("blind_spot", **BRIEF | COLOUR | {"dataset": "gtsrb_half", "defences": "madry"})
    assert len(page["train"]["GTSRB"].labels.unique()) == 43, "an even choice has every class"
    assert set(page["nets"]) == {("natural", "GTSRB"), ("madry", "GTSRB")}
    assert "BS-F9" in page.measured()


@pytest.mark.usefixtures("small_colour_networks")
def test_colour_images_are_measured_too_with_every_number_of_neighbours_and_the_certified_defence():
    needs("cifar10")
    page = run_here("blind_spot", **BRIEF | COLOUR | {"dataset": "cifar10", "defences": "madry,kolter_wong"})
    rows = page.measured()
    assert {"BS-F3", "BS-F6", "BS-F7", "BS-F8", "BS-F11"} <= rows.keys()
    assert {"CIFAR-10 | accuracy", "CIFAR-10 | normalised distance"} <= rows["BS-T1"]
    assert "CIFAR-10 | accuracy under PGD-20" in rows["BS-X1"]
    assert '<th scope="row">CIFAR-10</th><td>Kolter-Wong</td>' in page.tables
    assert {"bs-trend", "bs-trend-natural", "bs-trend-k", "bs-trend-certified"} <= page.drawn


@pytest.mark.parametrize("defence", ["kolter_wong", "wrm"])
def test_a_single_defence_is_enough(defence):
    page = run_here("blind_spot", **BRIEF | {"defences": defence, "epochs": 0})
    assert list(page["searched"]) == [(defence, "MNIST")]
    assert page["trended"] == []


def test_a_network_that_is_nearly_always_wrong_stops_the_chapter(monkeypatch):
    def wrong(model, images, labels):
        return torch.arange(len(labels)) < 3

    monkeypatch.setattr(evaluation, "correct", wrong)
    with pytest.raises(SanityError, match="natural on digits"):
        run_here("blind_spot", **BRIEF | {"defences": "wrm"})


def test_a_cell_of_ones_own_has_its_line_and_its_gallery():
    needs("fashion_mnist")
    cell = {"dataset": "fashion_mnist", "alpha": 0.85, "beta": 0.05}
    page = run_here("blind_spot", **BRIEF | cell | {"defences": "madry", "epochs": 0, "n_train": 600})
    line = '<th scope="row">Madry</th><td>Fashion-MNIST</td><td>0.1</td><td>0.85</td><td>0.05</td>'
    assert page.tables.count(line) == 1
    assert "bs-gallery" in page.drawn
    rows = page.measured()
    assert "Fashion-MNIST alpha=1 beta=0 | accuracy" in rows["BS-T3"]
    assert "BS-F4" not in rows, "not the paper's columns"


def test_a_cell_of_ones_own_and_a_model_of_ones_own(tmp_path: Path):
    weights = tmp_path / "mine.safetensors"
    state = {key: value.contiguous() for key, value in models.build("small_cnn", seed=7).state_dict().items()}
    safetensors.torch.save_file(state, weights)
    mine = {"model": "robustutils.models:small_cnn", "weights": str(weights)}
    page = run_here("blind_spot", **BRIEF | mine | {"alpha": 0.85, "beta": 0.05, "defences": "madry"})
    for who in ("Madry", mine["model"]):
        line = f'<th scope="row">{who}</th><td>MNIST</td><td>0.3</td><td>0.85</td><td>0.05</td>'
        assert page.tables.count(line) == 1, who
    assert "BS-F4" not in page.measured(), "not the paper's columns"


@pytest.mark.parametrize("chapter", pipeline.checkable())
def test_a_published_run_is_made_again_from_its_outcomes_without_measuring(
    chapter, cache, tmp_path, monkeypatch
):
    published = results.published(chapter)
    if published and published["claims_sha256"] != Claims.of(chapter).sha256:
        pytest.skip("its declaration has changed since it was published: the next edition measures it anew")
    path = pipeline.outcomes_path(chapter, provenance.repository() / "book")
    monkeypatch.setenv(outcomes_files.VARIABLE, str(path))
    for piece in outcomes_files.read(path):
        several = piece.parameters["dataset"]
        for dataset in [several] if isinstance(several, str) else several:
            needs(dataset)
        study = run_here(chapter, **piece.parameters)["study"]
        assert not cache.exists() or not list(cache.glob("*.safetensors")), "something was measured"
        outcomes_files.export(str(tmp_path / "again"), study.run.provenance(), study.measured)
        (again,) = outcomes_files.read(tmp_path / "again")
        assert again.rows.keys() == piece.rows.keys()
        for name, row in again.rows.items():
            assert row.value == pytest.approx(piece.rows[name].value, rel=1e-6), name
