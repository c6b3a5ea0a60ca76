"""Chapters with parameters that a reader may choose, beyond the defaults that nbval runs."""

from pathlib import Path

import jupytext
import matplotlib as mpl
import papermill
import pytest
import safetensors.torch

from robustutils import models, runs

CHAPTERS = runs.repository() / "chapters"
SMALL = {"n_train": 600, "n_test": 40, "ratio_points": 20, "ratio_steps": 5, "pixel_points": 10, "queries": 5}


def begin(chapter: str, **parameters):
    """Run a chapter's cells up to the one that checks its parameters, with these instead of its own."""
    cells = [cell for cell in jupytext.read(CHAPTERS / f"{chapter}.py").cells if cell.cell_type == "code"]
    last = next(index for index, cell in enumerate(cells) if "runs.start(" in cell.source)
    namespace: dict[str, object] = {}
    with mpl.rc_context():
        for cell in cells[: last + 1]:
            exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= parameters


def test_a_single_architecture_and_a_model_of_ones_own_are_enough(tmp_path: Path):
    notebook = CHAPTERS / "ensemble_adversarial_training.ipynb"
    weights = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(models.build("eat_d", seed=7).state_dict(), weights)
    mine = {"model": "robustutils.models:eat_d", "weights": str(weights)}
    parameters = SMALL | mine | {"architectures": "D"}
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", parameters, progress_bar=False)
    printed = [
        output.text
        for cell in papermill.iorw.load_notebook_node(str(tmp_path / "out.ipynb")).cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    (diagnosis,) = [text for text in printed if text.startswith(mine["model"])]
    assert "masked" in diagnosis or "suspicious" in diagnosis


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"architectures": "E"}, "architectures='E': allowed are A, B"),
        ({"architectures": "B,D", "ensembles": "ens3"}, "architectures='B,D' lacks C"),
        ({"architectures": "C,D", "defended": "A"}, "defended='A': none of architectures='C,D'"),
        ({"weights": "mine.safetensors"}, "weights='mine.safetensors': needs -p model"),
    ],
)
def test_models_that_do_not_fit_together_stop_the_chapter_at_its_start(parameters, message):
    with pytest.raises(runs.ParameterError, match=message):
        begin("ensemble_adversarial_training", **parameters)
