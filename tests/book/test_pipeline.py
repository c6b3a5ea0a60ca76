"""From source to book, on a repository made for each test with one tiny chapter and the real kernel."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from robustutils import provenance
from robustutils.__main__ import main
from robustutils.book import checks, outcomes_files, pipeline, scoreboard
from robustutils.book import results as results_files
from robustutils.book.claims import Claims
from robustutils.book.pipeline import PipelineError

CLAIMS = """
[paper]
key = "SP"
title = "Spots"
url = "https://example.org"

[titles]
SP-T1 = "Spots (Table 1)"
SP-T2 = "Stripes (Table 2)"

[parameters]
radius = { range = [0.0, 1.0], values = 0.1 }
then = { text = true }

[[claims]]
id = "SP-T1"
statement = "Spots are seen."
unit = "%"
criterion = { kind = "within", points = 5 }
rows = [{ row = "SP-T1", paper = 40.0 }]

[[claims]]
id = "SP-T2"
statement = "Stripes are not."
needs = "needs stripes"
rows = [{ row = "SP-T2" }]
"""

CHAPTER = """# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spots

# %% tags=["parameters"]
profile = "quick"  # quick, standard or paper
radius = 0.1  # of the spots
then = None  # what happens in the middle
device = None

# %%
import os
import time
from pathlib import Path

print(f"radius {radius}")

# %% tags=["nbval-check-output"]
print("two", "spots")
6 * 7

# %%
if then == "fail":
    raise ValueError("radius=7: must be small")
elif then == "die":
    os._exit(3)
elif then == "sleep":
    Path("kernel.pid").write_text(str(os.getpid()))
    time.sleep(60)

# %%
from IPython.display import display
from robustutils.book import runs
from robustutils.book.claims import Claims
from robustutils.book.results import MIME
from robustutils.book.study import Study
from robustutils.outcomes import Measurement

claims = Claims.load("CLAIMS")
study = Study(claims, runs.start(claims, globals()))

# %% tags=["remove-cell"]
study.record("SP-T1", "SP-T1", Measurement(41.0, (39.0, 43.0), 500, [0]))
provenance = {"parameters": {"profile": profile, "radius": radius}, "date": "2026-01-31"}
display({MIME: study.so_far() | provenance}, raw=True)
"""

PAGE = "# Spots\n\n<!-- scoreboard:start -->\n<!-- scoreboard:end -->\n\nThe end.\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def repository(folder: Path) -> Path:
    """A repository with the chapter ``spots``, its claims, and pages for the scoreboard."""
    root = folder / "repository"
    write(root / "chapters" / "spots.toml", CLAIMS)
    text = write(root / "chapters" / "spots.py", CHAPTER.replace("CLAIMS", "../../chapters/spots.toml"))
    nbformat.write(jupytext.read(text), text.with_suffix(".ipynb"))
    write(root / "_toc.yml", "format: jb-book\nroot: book/intro\nchapters:\n- file: book/spots\n")
    write(root / "_config.yml", "title: Spots\n")
    for page in ("book/intro.md", "book/scoreboard.md", "README.md"):
        write(root / page, PAGE)
    return root


@pytest.fixture
def repo(tmp_path, monkeypatch) -> Path:
    """Such a repository in place of this one."""
    root = repository(tmp_path)
    monkeypatch.setattr(provenance, "repository", lambda: root)
    return root


@pytest.fixture
def no_kernel(monkeypatch):
    """Starting a notebook is an error."""

    def started(*_, **__):
        raise AssertionError("a notebook was executed")

    monkeypatch.setattr(papermill, "execute_notebook", started)


@pytest.fixture
def executed(monkeypatch) -> list[tuple]:
    """The calls of ``execute``, which makes a page and results without a kernel."""
    calls: list[tuple] = []

    def execute(chapter, profile, parameters, folder):
        calls.append((chapter, profile, dict(parameters)))
        results = {**RESULTS, "chapter": chapter, "profile": profile}
        results["claims"] = [
            {**entry, "verdict": "not_evidence"} if profile == "quick" and entry["fidelity"] else entry
            for entry in RESULTS["claims"]
        ]
        results_files.write(folder / "results" / f"{chapter}.json", results)
        cell = nbformat.v4.new_code_cell(f"run {len(calls)} with {parameters}")
        cell.outputs = [nbformat.v4.new_output("display_data", {results_files.MIME: results})]
        pipeline.write_notebook(folder / f"{chapter}.ipynb", nbformat.v4.new_notebook(cells=[cell]))
        about = {"parameters": {"profile": profile, **parameters}}
        outcomes_files.write(pipeline.outcomes_path(chapter, folder), [outcomes_files.Piece(about)])

    monkeypatch.setattr(pipeline, "execute", execute)
    return calls


def _results() -> dict:
    entry = dict.fromkeys(("paper_value", "measured", "ci95", "seed_ci95", "fidelity", "effect"))
    entry |= {
        "id": "SP-T1",
        "row": "SP-T1",
        "statement": "Spots are seen.",
        "unit": "%",
        "criterion": "",
        "note": "",
        "departures": "",
    }
    entry |= {"measured": 41.0, "paper_value": 40.0, "ci95": [39.0, 43.0], "n": 500, "seeds": [0]}
    entry |= {"fidelity": "exact", "verdict": "reproduced", "direction_holds": True, "size_holds": True}
    entry |= {"effect_ci95": None, "effect_seed_ci95": None, "per_seed": [41.0], "effect_per_seed": None}
    head = {"chapter": "spots", "profile": "standard", "source_hash": "", "git_commit": "", "seconds": 1.0}
    paper = {"key": "SP", "title": "Spots", "url": "https://example.org"}
    more = {"parameters": {}, "datasets": {}, "environment": {}, "date": "2026-01-31", "claims_sha256": ""}
    return {**head, **more, "paper": paper, "titles": {"SP-T1": "Spots"}, "claims": [entry]}


RESULTS = _results()


def files(folder: Path) -> dict[str, str]:
    """Path and content of every file below a folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(errors="replace") for path in found}


# ---- refused before anything runs ----


@pytest.mark.parametrize(("chapter", "parameters", "message"), [
    ("spost", {}, "unknown chapter 'spost' (did you mean 'spots'?); there are spots"),
    ("zebra", {}, "unknown chapter 'zebra'; there are spots"),
    ("../spots", {}, "unknown chapter '../spots'"),
    ("spots", {"radus": 1},
     "unknown parameter of spots 'radus' (did you mean 'radius'?); there are profile, radius, then, device"),
    ("spots", {"epsilon": 1}, "unknown parameter of spots 'epsilon'; there are profile, radius, then, device"),
])  # fmt: skip
def test_what_does_not_exist_is_refused_before_anything_runs(repo, no_kernel, chapter, parameters, message):
    before = files(repo)
    with pytest.raises(PipelineError) as caught:
        pipeline.run(chapter, "quick", parameters)
    assert message in str(caught.value)
    assert files(repo) == before


def test_the_profile_has_one_place(repo, no_kernel):
    with pytest.raises(PipelineError, match="profile"):
        pipeline.run("spots", "quick", {"profile": "standard"})


def git(repo: Path, *words: str) -> None:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(repo), *author, *words], check=True, capture_output=True)


@pytest.mark.parametrize("profile", ["standard", "paper"])
def test_criteria_are_committed_before_they_are_measured(repo, executed, profile):
    git(repo, "init")
    with pytest.raises(PipelineError, match=rf"spots\.toml.*uncommitted.* {profile} "):
        pipeline.run("spots", profile, {})  # not even tracked
    git(repo, "add", ".")
    git(repo, "commit", "-m", "criteria")
    pipeline.run("spots", profile, {})
    (repo / "chapters" / "spots.toml").write_text(CLAIMS.replace("points = 5", "points = 50"))
    for stage in ("edited", "added"):
        with pytest.raises(PipelineError, match="uncommitted"):
            pipeline.publish("spots", profile, {})
        if stage == "edited":
            git(repo, "add", ".")
    pipeline.run("spots", "quick", {})
    assert executed == [("spots", profile, {}), ("spots", "quick", {})]


def test_other_changes_do_not_matter_and_without_git_nothing_is_asked(repo, executed):
    pipeline.run("spots", "standard", {})
    git(repo, "init")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "criteria")
    text = repo / "chapters" / "spots.py"
    text.write_text(text.read_text() + "\n# more\n")
    pipeline.run("spots", "standard", {})
    assert len(executed) == 2


# ---- one run, with the real kernel ----


def test_a_run_moves_notebook_and_results_into_place_without_a_trace_of_the_machine(repo):
    pipeline.run("spots", "standard", {"radius": 0.25})
    folder = repo / "_build" / "standard"
    made = files(folder)
    assert {name for name in made if not name.endswith(".made-from")} == {
        "spots.ipynb",
        "results/spots.json",
        "results/spots.outcomes.safetensors",
    }
    results = results_files.read(folder / "results" / "spots.json")
    assert results["parameters"] == {"profile": "standard", "radius": 0.25}
    assert [entry["verdict"] for entry in results["claims"]] == ["reproduced", "not_run"]
    notebook = nbformat.read(folder / "spots.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all("papermill" not in part.metadata for part in (notebook, *notebook.cells))
    assert str(repo) not in made["spots.ipynb"]
    assert "radius 0.25" in made["spots.ipynb"], "the outputs are kept"
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize(("then", "message"), [
    ("fail", "spots: ValueError: radius=7: must be small"),
    ("die", "spots: "),
])  # fmt: skip
def test_a_failed_run_leaves_the_earlier_one_alone_and_says_why(repo, capsys, then, message):
    folder = repo / "_build" / "quick"
    write(folder / "spots.ipynb", "an earlier good run")
    write(folder / "results" / "spots.json", "with its results")
    before = files(folder)
    chapters = files(repo / "chapters")
    assert main(["run", "spots", "-p", "then", then]) == 1
    error = capsys.readouterr().err
    said = error[error.index("error: ") :].strip().splitlines()
    assert said[0].startswith(f"error: {message}")
    assert len(said) <= 2, "the message and where the notebook is"
    after = files(folder)
    failed = after.pop("spots.failed.ipynb")
    assert "radius 0.1" in failed, "the notebook up to the failure is kept for a look"
    assert after == before
    assert files(repo / "chapters") == chapters, "the sources are never executed in place"


def test_a_chapter_with_claims_but_without_results_is_a_failure(repo, monkeypatch):
    def silent(notebook, output, **_):
        nbformat.write(notebook, output)
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", silent)
    with pytest.raises(PipelineError, match="no results"):
        pipeline.run("spots", "quick", {})
    assert not (repo / "_build" / "quick" / "spots.ipynb").exists()
    assert not (repo / "_build" / "quick" / "results").exists()


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts deaf to it
import sys
from pathlib import Path
from robustutils import __main__, provenance
provenance.repository = lambda: Path(sys.argv[1])
sys.exit(__main__.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("command", ["run spots", "build"])
def test_ctrl_c_stops_the_kernel_too_and_replaces_nothing(repo, command):
    rewrite(repo, (repo / "chapters" / "spots.py").read_text().replace("then = None", 'then = "sleep"'))
    folder = repo / "_build" / "quick"
    good = write(folder / "spots.ipynb", "an earlier good run")
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(repo), *command.split()], stderr=subprocess.PIPE, text=True
    )
    pid = folder / "kernel.pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=40)
    assert process.returncode == 130, error
    assert "interrupted: nothing was replaced" in error
    assert "Traceback" not in error
    assert good.read_text() == "an earlier good run"
    assert not (folder / "results").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_run_computes_with_this_interpreter_and_this_package(repo, monkeypatch, tmp_path):
    spec = {"argv": ["false"], "display_name": "Another environment", "language": "python"}
    write(tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(spec))
    write(tmp_path / "other" / "robustutils" / "__init__.py", "raise ImportError('another package')")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    text = (repo / "chapters" / "spots.py").read_text(encoding="utf-8")
    rewrite(repo, text.replace("import time\n", "import sys\nimport time\n\nprint(sys.executable)\n"))
    pipeline.run("spots", "quick", {})
    assert sys.executable in (repo / "_build" / "quick" / "spots.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["spots.failed", "/absolute/spots", "spots.ipynb", "../chapters/spots"])
def test_nothing_but_a_chapter_is_run(repo, no_kernel, name):
    shutil.copy2(repo / "chapters" / "spots.ipynb", repo / "chapters" / "spots.failed.ipynb")
    name = name.replace("/absolute", str(repo / "chapters"))
    before = files(repo)
    assert main(["run", name]) == 1
    assert pipeline.chapters() == ["spots"]
    assert files(repo) == before


@pytest.mark.parametrize("work", ["the book", "spots (quick)", "the pages"])
def test_two_commands_at_the_same_work_do_not_meet(repo, executed, work):
    with (
        pipeline.alone(work),
        pytest.raises(PipelineError, match=rf"another command works on {re.escape(work)}"),
        pipeline.alone(work),
    ):
        raise AssertionError
    with pipeline.alone(work):
        pass


# ---- the book ----


@pytest.fixture
def rendered(monkeypatch) -> list[dict[str, str]]:
    """What ``render`` was asked to render: the files of each source tree."""
    trees: list[dict[str, str]] = []

    def render(source: Path) -> Path:
        trees.append(files(source))
        return source / "index.html"

    monkeypatch.setattr(pipeline, "render", render)
    return trees


def test_the_book_shows_the_run_beside_the_edition_and_writes_into_neither(repo, executed, rendered):
    write(repo / "book" / "results" / "spots.json", json.dumps(RESULTS))
    write(repo / "book" / "spots.ipynb", "the published page")
    before = files(repo / "book")
    pipeline.book()
    assert files(repo / "book") == before
    (tree,) = rendered
    assert {"_config.yml", "_toc.yml", "book/intro.md", "book/scoreboard.md", "book/spots.ipynb"} <= set(tree)
    assert "run 1 with {}" in tree["book/spots.ipynb"], "the page is that of the run"
    assert json.loads(tree["book/results/spots.json"]) == RESULTS, "the edition's results stand beside it"
    assert json.loads(tree["book/this_run/spots.json"])["profile"] == "quick"
    assert "not evidence" in tree["book/scoreboard.md"]
    assert "this run (quick" in tree["book/scoreboard.md"]
    assert "this run" not in tree["book/intro.md"], "the front page states the edition"


def test_the_book_executes_what_has_changed_and_nothing_else(repo, executed, rendered):
    pipeline.book()
    pipeline.book()
    assert len(executed) == 1
    pipeline.run("spots", "quick", {"radius": 0.9})  # a run of one's own must not become the book's page
    pipeline.book()
    assert "run 3 with {}" in rendered[-1]["book/spots.ipynb"]
    for path, old, new in (
        ("spots.py", "# # Spots", "# # More spots"),
        ("spots.toml", "points = 5", "points = 6"),
    ):
        source = repo / "chapters" / path
        source.write_text(source.read_text().replace(old, new))
        before = len(executed)
        pipeline.book()
        assert len(executed) == before + 1, f"{path} has changed"


@pytest.fixture
def three(repo) -> list[str]:
    """The repository with two chapters more, in the order of their length; the longest first."""
    names = ["longest", "longer", "spots"]
    for more, name in enumerate(names[1::-1], 1):
        for kind in ("py", "toml"):
            shutil.copy2(repo / "chapters" / f"spots.{kind}", repo / "chapters" / f"{name}.{kind}")
        notebook = nbformat.read(repo / "chapters" / "spots.ipynb", as_version=4)
        notebook.cells.append(nbformat.v4.new_markdown_cell(1000 * more * "word "))
        nbformat.write(notebook, repo / "chapters" / f"{name}.ipynb")
    return names


def test_the_book_runs_chapters_side_by_side_the_longest_first(repo, three, executed, rendered, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    execute, all_here = pipeline.execute, threading.Barrier(3, timeout=30)

    def together(chapter, *rest):
        threads.append(os.environ["OMP_NUM_THREADS"])
        execute(chapter, *rest)
        all_here.wait()

    threads: list[str] = []
    monkeypatch.setattr(pipeline, "execute", together)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    pipeline.book()
    assert sorted(name for name, *_ in executed) == sorted(three)
    assert threads == ["1"] * 3
    assert os.environ["OMP_NUM_THREADS"] == "8"
    assert {f"book/{name}.ipynb" for name in three} <= rendered[0].keys()


def test_a_chapter_that_fails_stops_the_book_and_those_that_are_made_stay_made(
    repo, three, executed, rendered, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    execute = pipeline.execute

    def fails_in_the_second(chapter, *rest):
        if chapter == "longer":
            raise PipelineError("longer: ZeroDivisionError")
        execute(chapter, *rest)

    monkeypatch.setattr(pipeline, "execute", fails_in_the_second)
    with pytest.raises(PipelineError, match=r"longer.*ZeroDivisionError"):
        pipeline.book()
    monkeypatch.setattr(pipeline, "execute", execute)
    pipeline.book()
    assert sorted(name for name, *_ in executed) == sorted(three)
    assert len(rendered) == 1


# ---- the published edition ----


def test_publishing_writes_page_results_scoreboard_and_readme(repo, executed):
    pipeline.publish("spots", "standard", {"radius": 0.2})
    edition = files(repo / "book")
    results = results_files.read(repo / "book" / "results" / "spots.json")
    assert results["profile"] == "standard"
    notebook = nbformat.reads(edition["spots.ipynb"], as_version=4)
    assert pipeline.stored_results(notebook) == results
    assert "'radius': 0.2" in edition["spots.ipynb"]
    for text, block in (
        (edition["scoreboard.md"], scoreboard.scoreboard_markdown([results])),
        (edition["intro.md"], scoreboard.readme_table([results], page="{chapter}.ipynb")),
        ((repo / "README.md").read_text(), scoreboard.readme_table([results])),
    ):
        assert block in text
        assert text.startswith("# Spots")
        assert text.endswith("The end.\n")
    before = files(repo / "book")
    pipeline.write_scoreboard(repo / "book")
    assert files(repo / "book") == before, "writing the blocks again changes nothing"


def test_a_failed_run_publishes_nothing(repo, monkeypatch):
    def fail(*_):
        raise PipelineError("no")

    monkeypatch.setattr(pipeline, "execute", fail)
    write(repo / "_build" / "standard" / "spots.ipynb", "an earlier run")
    before = files(repo / "book")
    with pytest.raises(PipelineError, match="no"):
        pipeline.publish("spots", "standard", {})
    assert files(repo / "book") == before


@pytest.mark.parametrize("page", ["README.md", "book/intro.md", "book/scoreboard.md"])
def test_an_edition_is_published_whole_or_not_at_all(repo, executed, page):
    pipeline.publish("spots", "standard", {})
    (repo / page).write_text("a page that has lost its markers")
    before = files(repo / "book")
    with pytest.raises(ValueError, match="scoreboard:start"):
        pipeline.publish("spots", "standard", {})
    assert files(repo / "book") == before


@pytest.mark.parametrize("what", ["a sentence", "an output", "a page of another publish"])
def test_a_page_that_its_results_do_not_belong_to_is_named(repo, executed, capsys, monkeypatch, what):
    monkeypatch.setattr(pipeline, "render", lambda source: source / "index.html")
    pipeline.publish("spots", "standard", {})
    assert main(["site"]) == 0
    page = repo / "book" / "spots.ipynb"
    notebook = nbformat.read(page, as_version=4)
    if what == "a sentence":
        notebook.cells[0].source += " and all is well"
    elif what == "an output":
        notebook.cells[0].outputs.append(nbformat.v4.new_output("stream", text="99.9%"))
    else:
        pipeline.publish("spots", "standard", {"radius": 0.3})
    nbformat.write(notebook, page)
    assert main(["site"]) == 1
    assert "spots.ipynb is not the page that its results were published with" in capsys.readouterr().err


def test_a_publish_that_cannot_write_changes_nothing(repo, executed, monkeypatch):
    pipeline.publish("spots", "standard", {})
    before = files(repo / "book") | files(repo / "chapters")
    copyfile = shutil.copyfile

    def full(source, target, **settings):
        if Path(target).name.startswith("spots.ipynb") and str(target).endswith(".part"):
            raise OSError(28, "No space left on device")
        return copyfile(source, target, **settings)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match=r"spots\.ipynb cannot be written \(No space left"):
        pipeline.publish("spots", "standard", {"radius": 0.3})
    assert files(repo / "book") | files(repo / "chapters") == before


def test_the_scoreboard_of_a_run_stays_out_of_the_readme(repo):
    staged = repo / "_build" / "source" / "book"
    shutil.copytree(repo / "book", staged)
    pipeline.write_scoreboard(staged, [RESULTS])
    assert (repo / "README.md").read_text() == PAGE
    assert "this run (standard, 2026-01-31)" in (staged / "scoreboard.md").read_text()


# ---- published outcomes ----

MEASURED = """
# %% tags=["remove-cell"]
from robustutils import attacks, data, evaluation, models, networks, recipes
from robustutils.outcomes import Outcomes

def refuse(*arguments, **settings):
    raise AssertionError("a network was built, loaded or trained")

if then == "no networks":
    models.build = models.published = refuse
net = networks.Network(recipes.recipe("small_cnn"), data.load("digits").first(1280))
run = study.run
test = data.load("digits", "test").first(60 if run.profile == "check" else 100)
fooled = ~evaluation.evaluate(net, attacks.FGSM(eps=run.radius), test).attacked
study.record("SP-T1", "SP-T1", Outcomes(fooled, [0]))
display({MIME: study.so_far() | run.provenance()}, raw=True)
"""


def rewrite(repo: Path, text: str) -> Path:
    path = write(repo / "chapters" / "spots.py", text)
    nbformat.write(jupytext.read(path), path.with_suffix(".ipynb"))
    return repo


@pytest.fixture(scope="module")
def published_once(tmp_path_factory) -> Path:
    """A repository with a published chapter that measures: FGSM on the small network that the book publishes."""
    root = repository(tmp_path_factory.mktemp("published"))
    text = CHAPTER[: CHAPTER.rindex("# %% tags")]
    rewrite(root, (text + MEASURED).replace("CLAIMS", "../../chapters/spots.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "repository", lambda: root)
        patch.setenv("ROBUSTUTILS_CACHE", str(root.parent / "cache"))
        assert pipeline.checkable() == []
        with pytest.raises(PipelineError, match=r"spots.* no published"):
            pipeline.check("spots")
        pipeline.publish("spots", "standard", {})
    return root


@pytest.fixture
def measured(published_once, tmp_path, monkeypatch) -> Path:
    """A copy of it for this test alone."""
    root = shutil.copytree(published_once, tmp_path / "measured")
    monkeypatch.setattr(provenance, "repository", lambda: root)
    return root


def test_new_words_are_published_from_outcomes_without_a_network(measured, tmp_path, monkeypatch):
    before = results_files.read(measured / "book" / "results" / "spots.json")
    text = (measured / "chapters" / "spots.py").read_text()
    rewrite(measured, text.replace("# # Spots", "# # Spots, in other words"))
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / "empty"))
    pipeline.publish("spots", "standard", {"then": "no networks"})
    assert not (tmp_path / "empty").exists(), "something was measured"
    assert "in other words" in (measured / "book" / "spots.ipynb").read_text()
    after = results_files.read(measured / "book" / "results" / "spots.json")
    assert after["claims"] == before["claims"]
    (piece,) = outcomes_files.read(pipeline.outcomes_path("spots", measured / "book"))
    assert any(name.startswith("model-small_cnn") for name in piece.certificates), "its certificate is lost"


def test_a_run_of_a_part_adds_outcomes_and_leaves_the_page_alone(measured):
    claims = measured / "chapters" / "spots.toml"
    claims.write_text(
        claims.read_text().replace("paper = 40.0 }", 'paper = 40.0 }, { row = "of zebras", paper = 40.0 }')
    )
    results = measured / "book" / "results" / "spots.json"
    whole = json.loads(results.read_text())
    row = whole["claims"][0]
    whole["claims"].append({**row, "row": "of zebras"})
    results.write_text(json.dumps(whole))
    page = (measured / "book" / "spots.ipynb").read_text()
    path = pipeline.publish("spots", "standard", {"radius": 0.2})
    assert path == pipeline.outcomes_path("spots", measured / "book")
    assert json.loads(results.read_text()) == whole
    assert (measured / "book" / "spots.ipynb").read_text() == page


def test_a_check_agrees_with_what_was_published_and_names_what_a_fault_changed(measured, capsys):
    assert main(["check", "spots"]) == 0
    assert "spots: 1 of 1 rows come out again as published" in capsys.readouterr().out
    report = checks.read(checks.path("spots", measured / "book"))
    assert report is not None
    assert [(row.id, row.n, row.problem) for row in report.rows] == [("SP-T1", 60, "")]
    text = (measured / "chapters" / "spots.py").read_text()
    rewrite(measured, text.replace("FGSM(eps=run.radius)", "FGSM(eps=run.radius / 2)"))
    assert main(["check"]) == 1
    said = capsys.readouterr()
    assert "differs  SP-T1 | SP-T1 (n = 60): " in said.out
    assert "published outcomes disagree in spots" in said.err


def test_a_check_measures_even_where_outcomes_are_at_hand(measured, monkeypatch, capsys):
    text = (measured / "chapters" / "spots.py").read_text()
    rewrite(measured, text.replace("FGSM(eps=run.radius)", "FGSM(eps=run.radius / 2)"))
    path = pipeline.outcomes_path("spots", measured / "book")
    monkeypatch.setenv(outcomes_files.VARIABLE, str(path))
    assert main(["check", "spots"]) == 1, "the published outcomes were compared with themselves"
    assert os.environ[outcomes_files.VARIABLE] == str(path)


@pytest.mark.parametrize("where", ["results/spots.outcomes.safetensors", "weights/other.safetensors"])
def test_a_damaged_file_is_named_before_anything_is_checked(measured, capsys, where):
    kept = checks.path("spots", measured / "book")
    kept.write_text("the report before")
    path = measured / "book" / where
    path.parent.mkdir(exist_ok=True)
    content = bytearray(pipeline.outcomes_path("spots", measured / "book").read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["check", "spots"]) == 1
    assert where in capsys.readouterr().err
    assert kept.read_text() == "the report before"


def test_a_check_that_compares_nothing_fails_and_leaves_the_report(measured, capsys, monkeypatch):
    kept = checks.path("spots", measured / "book")
    kept.write_text("the report before")
    monkeypatch.setattr(checks, "compare", lambda published, today: [])
    assert main(["check", "spots"]) == 1
    assert "nothing was compared" in capsys.readouterr().err
    assert kept.read_text() == "the report before"


# ---- the outputs that nbval compares ----


def test_references_follow_the_text_are_the_outputs_of_tagged_cells_alone_and_survive_a_failure(repo):
    path = repo / "chapters" / "spots.ipynb"
    before = nbformat.read(path, as_version=4)
    text = path.with_suffix(".py").read_text().replace("# # Spots", "# # More spots")
    path.with_suffix(".py").write_text(text)
    pipeline.write_parameters(path.with_suffix(".py"))
    text = path.with_suffix(".py").read_text()
    path.with_suffix(".py").write_text(text.replace('"two", "spots"', '"two", 1 / 0'))
    with pytest.raises(PipelineError, match="ZeroDivisionError"):
        pipeline.renew_references()
    assert nbformat.read(path, as_version=4) == before
    path.with_suffix(".py").write_text(text)
    assert pipeline.renew_references() == ["spots"]
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    tagged = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert [[output.output_type for output in cell.outputs] for cell in tagged] == [
        ["stream", "execute_result"]
    ]
    assert tagged[0].outputs[0].text == "two spots\n"
    assert tagged[0].outputs[1].data["text/plain"] == "42"
    others = [cell for cell in notebook.cells if cell.cell_type == "code" and cell not in tagged]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in others)
    assert jupytext.writes(notebook, fmt="py:percent").split("# %%")[1:] == text.split("# %%")[1:]
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert path.with_suffix(".py").read_text() == text
    assert notebook.metadata == before.metadata
    assert [cell.id for cell in notebook.cells] == [f"cell-{k}" for k in range(len(notebook.cells))], (
        "ids stay, so that a commit shows what has changed and nothing else"
    )


# ---- rendering ----


@pytest.mark.parametrize("status", [0, 1])
def test_rendering_takes_warnings_as_errors_and_shows_them(repo, monkeypatch, status):
    commands = []

    write(repo / "_build" / "html" / "old.html", "a page of the book before")
    code = """
import sys
from pathlib import Path
print("WARNING: a reference is undefined")
html = Path(sys.argv[sys.argv.index("--path-output") + 1], "_build", "html")
html.mkdir(parents=True)
(html / "index.html").write_text("new")
sys.exit(STATUS)
"""
    popen = subprocess.Popen

    def start(command, **settings):
        commands.append(command[2:])
        return popen([*command[:2], code.replace("STATUS", str(status)), *command[3:]], **settings)

    monkeypatch.setattr(pipeline.subprocess, "Popen", start)
    if status:
        with pytest.raises(PipelineError, match="undefined"):
            pipeline.render(repo)
    else:
        assert pipeline.render(repo) == repo / "_build" / "html" / "index.html"
    kept = files(repo / "_build" / "html")
    assert kept == ({"old.html": "a page of the book before"} if status else {"index.html": "new"})
    assert list((repo / "_build").glob("*.part")) == []
    (command,) = commands
    assert command[1:3] == ["build", str(repo)]
    assert {"-W", "-n", "--keep-going"} <= set(command)


def test_chapters_come_in_the_order_of_the_table_of_contents(repo):
    for name in ("zebra", "ant"):
        write(repo / "chapters" / f"{name}.ipynb", "{}")
    toc = textwrap.dedent("""
        format: jb-book
        root: book/intro
        chapters:
        - file: book/zebra
        - file: book/spots
        - file: book/ant
    """)
    write(repo / "_toc.yml", toc)
    assert pipeline.chapters() == ["zebra", "spots", "ant"]


# ---- a new chapter ----


def test_a_new_chapter_is_written_whole_and_entered_in_the_table_of_contents(repo):
    text = "format: jb-book\nroot: book/intro\nparts:\n  - chapters:\n      - file: book/spots\n"
    write(repo / "_toc.yml", text)
    made = pipeline.new("zebra_stripes")
    assert made == [
        *(repo / "chapters" / f"zebra_stripes.{kind}" for kind in ("py", "toml")),
        repo / "_toc.yml",
    ]
    claims = Claims.load(repo / "chapters" / "zebra_stripes.toml")
    assert (claims.chapter, list(claims.titles)) == ("zebra_stripes", ["ZEBRA_STRIPES-T1"])
    chapter = (repo / "chapters" / "zebra_stripes.py").read_text()
    assert 'Study.begin("zebra_stripes", globals())' in chapter
    assert 'study.measure("ZEBRA_STRIPES-T1", by=error)' in chapter
    assert not {"NAME", "KEY"} & set(re.findall(r"[A-Z]+", chapter + claims.paper["key"]))
    assert (repo / "_toc.yml").read_text() == text + "      - file: book/zebra_stripes\n"
    assert set(claims.parameters) | {"profile", "device"} == set(
        re.findall(r"^(\w+) = (?:None|\"quick\")", chapter, re.M)
    )


@pytest.mark.parametrize(("name", "message"), [
    ("spots", "spots.py"),
    ("Zebra", "'Zebra'"),
    ("../zebra", "/zebra'"),
])  # fmt: skip
def test_a_chapter_is_not_written_over_another_or_outside_the_folder(repo, name, message):
    before = files(repo)
    with pytest.raises(PipelineError, match=re.escape(message)):
        pipeline.new(name)
    assert files(repo) == before
