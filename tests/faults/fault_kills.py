"""Kills at random moments, each followed by a rerun that must end as an undisturbed run does.

Run with ``pytest tests/faults/fault_kills.py``; ``KILLS`` is the number of kills, 7 by default: each costs about 20 seconds.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustutils import models, storage
from robustutils.book import results as results_files

sys.path.insert(0, str(Path(__file__).parent.parent / "book"))
from test_pipeline import CHAPTER, MEASURED, repository, rewrite

KILLS = int(os.environ.get("KILLS", "7"))
START = """
import sys
from pathlib import Path
from robustutils import __main__, models, provenance
from robustutils.book import catalogue
root = Path(sys.argv[1])
weights = root / ("trained" if sys.argv[2] == "train" else "book") / "weights"
provenance.repository = lambda: root
models.weights_folder = lambda: weights
sys.exit(__main__.main(sys.argv[2:]))
"""
COMMANDS = [
    "run spots",
    "build",
    "site",
    "publish spots --profile standard",
    "check spots",
    "train small_cnn",
    "examine small_cnn --data digits --n 20 --out OUT --force",
]
CONFIG = 'title: A book\nonly_build_toc_files: true\nexecute:\n  execute_notebooks: "off"\n'
TOC = "format: jb-book\nroot: book/intro\nchapters:\n- file: book/spots\n- file: book/scoreboard\n"


def arguments(root: Path, command: str) -> list[str]:
    words = command.replace("OUT", str(root / "out")).split()
    return [sys.executable, "-c", START, str(root), *words]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "ROBUSTUTILS_CACHE": str(root.parent / "cache"), "OMP_NUM_THREADS": "1"}


def whole(root: Path, command: str) -> None:
    done = subprocess.run(
        arguments(root, command), env=environment(root), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def found(root: Path) -> dict[str, object]:
    """What the commands have left, without dates, seconds and file formats: numbers, tensors, names of pages."""
    left: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.suffix == ".json" and path.parent.name == "results" and not name.endswith(".check.json"):
            rows = results_files.read(path)["claims"]
            left[name] = [[row["row"], row["measured"], row["verdict"]] for row in rows]
        elif path.suffix == ".safetensors" and path.parent.name == "weights":
            left[name] = storage.header(path)["content"]
        elif path.suffix in (".ipynb", ".html", ".safetensors") and not name.endswith(".failed.ipynb"):
            left[name] = None
    return left


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A repository with a published chapter that measures, all of it undisturbed."""
    root = repository(tmp_path_factory.mktemp("kills"))
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    (root / "_config.yml").write_text(CONFIG, encoding="utf-8")
    text = CHAPTER[: CHAPTER.rindex("# %% tags")]
    rewrite(root, (text + MEASURED).replace("CLAIMS", "../../chapters/spots.toml"))
    (root / "book" / "weights").mkdir()
    shutil.copy(models.weights_folder() / "small_cnn.safetensors", root / "book" / "weights")
    whole(root, "publish spots --profile standard")
    return root


@pytest.fixture(scope="module")
def undisturbed(published, tmp_path_factory) -> dict[str, tuple[dict[str, object], float]]:
    """What each command leaves, and the seconds that it takes."""
    left = {}
    for number, command in enumerate(COMMANDS):
        root = shutil.copytree(published, tmp_path_factory.mktemp(f"whole{number}") / "repository")
        began = time.monotonic()
        whole(root, command)
        left[command] = found(root), time.monotonic() - began
    return left


@pytest.mark.parametrize("number", range(KILLS))
def test_after_a_kill_the_next_call_ends_as_an_undisturbed_one(published, undisturbed, tmp_path, number):
    command = COMMANDS[number % len(COMMANDS)]
    left, seconds = undisturbed[command]
    root = shutil.copytree(published, tmp_path / "repository")
    process = subprocess.Popen(
        arguments(root, command), env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(random.Random(number).uniform(0.1, 1.0) * seconds)
    process.kill()
    process.wait()
    pages = root / "_build" / "html"
    assert not pages.exists() or (pages / "index.html").exists(), "pages were left half rendered"
    whole(root, command)
    assert found(root) == left
