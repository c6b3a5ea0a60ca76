"""Chapters with parameters that a reader may choose, beyond the defaults that nbval runs."""

from pathlib import Path

import papermill

from robustutils import runs

CHAPTERS = runs.repository() / "chapters"
SMALL = {"n_train": 600, "n_test": 40, "ratio_points": 20, "ratio_steps": 5}


def test_a_single_architecture_is_enough(tmp_path: Path):
    notebook = CHAPTERS / "ensemble_adversarial_training.ipynb"
    parameters = SMALL | {"architectures": "D"}
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", parameters, progress_bar=False)
