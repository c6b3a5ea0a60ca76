"""From source to book: execute the chapters, stage the pages, render them, publish an edition.

Every step works on copies below ``_build/`` and moves a result into place only when it is whole. No chapter imports
this module.
"""

import contextlib
import filecmp
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jupytext
import nbformat
import papermill
import psutil
from filelock import FileLock, Timeout
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from robustutils import models, provenance
from robustutils.book import checks, outcomes_files, scoreboard
from robustutils.book import results as results_files
from robustutils.book.claims import Claims
from robustutils.book.criteria import NO_EVIDENCE
from robustutils.book.parameters import cell as parameters_cell
from robustutils.registry import unknown
from robustutils.storage import partial_path, sweep, write_atomically, write_together

PARAMETERS_CELL = re.compile(r'\n# %% tags=\["parameters".*?\n# %%', re.DOTALL)
REFERENCE_TAG = "nbval-check-output"
MOST_CHAPTERS = 4
"""Chapters that run at the same time; each takes about a gigabyte."""
RENDERER = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from jupyter_book.cli.main import main
sys.exit(main())
"""
"""Jupyter Book as a process that ends with this one, which holds the other end of its standard input."""


class PipelineError(RuntimeError):
    """A step of the pipeline cannot be done; the message is meant for the terminal."""


class Kernel(AsyncKernelManager):
    """A kernel of this interpreter and this package, whatever the machine knows by the name ``python3``."""

    @property
    def kernel_spec(self) -> KernelSpec:
        package = str(Path(provenance.__file__).parent.parent)
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            env={"PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))},
            language="python",
        )


@contextlib.contextmanager
def alone(work: str, wait: float = 0) -> Iterator[None]:
    """While a piece of work that no two processes may do at the same time is done.

    Raises:
        PipelineError: another process does it, and has not ended after ``wait`` seconds.
    """
    path = build_folder() / "locks" / f"{work}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise PipelineError(f"another command works on {work} here: wait until it has ended") from error
    try:
        yield
    finally:
        lock.release()


def chapters() -> list[str]:
    """The names of all chapters, in the order of the book's table of contents."""
    toc = (provenance.repository() / "_toc.yml").read_text(encoding="utf-8")
    names = {path.stem for path in (provenance.repository() / "chapters").glob("*.ipynb")}
    names = {name for name in names if name.isidentifier()}  # no NAME.failed.ipynb
    return sorted(names, key=lambda name: toc.find(f"book/{name}"))


def notebook_path(chapter: str) -> Path:
    """The notebook of a chapter.

    Raises:
        PipelineError: there is no such chapter, or only its text; the message lists those there are.
    """
    if chapter not in chapters():
        unmade = f"{chapter} has no notebook yet: make references makes it from {chapter}.py"
        raise PipelineError(
            unmade if chapter in chapters_from_text() else unknown("chapter", chapter, chapters())
        )
    return provenance.repository() / "chapters" / f"{chapter}.ipynb"


def execute(
    chapter: str, profile: str, parameters: Mapping[str, Any], folder: Path, source: Path | None = None
) -> None:
    """Run a chapter at a profile into ``folder``: NAME.ipynb, results/NAME.outcomes.safetensors and, with claims,
    results/NAME.json.

    They are written only if all went well; a notebook that failed is left as NAME.failed.ipynb. ``source`` is the
    notebook to run, by default the chapter's own.

    Raises:
        PipelineError: an unknown chapter or parameter, or an error in the notebook.
    """
    source = source or notebook_path(chapter)
    declared = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in declared:
            raise PipelineError(unknown(f"parameter of {chapter}", name, declared))
    with alone(f"{chapter} ({folder.name})"):
        _execute(chapter, profile, parameters, folder, source)


def _execute(chapter: str, profile: str, parameters: Mapping[str, Any], folder: Path, source: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    failed = folder / f"{chapter}.failed.ipynb"
    found = partial_path(outcomes_path(chapter, folder))
    draft = nbformat.read(source, as_version=4)
    export = f"outcomes_files.export({str(found)!r}, study.run.provenance(), study.measured)"
    draft.cells.append(nbformat.v4.new_code_cell(f"from robustutils.book import outcomes_files\n{export}"))
    try:
        notebook = papermill.execute_notebook(
            draft,
            str(failed),
            parameters={"profile": profile, **parameters},
            kernel_name="python3",
            kernel_manager_class=Kernel,
            cwd=str(folder),
            progress_bar={"desc": f"{chapter} ({profile})", "unit": "cell", "mininterval": 1},
            # The kernel keeps to itself that local sockets are unencrypted, and its traceback on Ctrl-C.
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as error:
        raise PipelineError(
            f"{chapter}: {error.ename}: {error.evalue}\n(cell {error.exec_count}; the notebook up to there is {failed})"
        ) from error
    except DeadKernelError as error:
        raise PipelineError(
            f"{chapter}: the kernel died, perhaps for want of memory\n(the notebook up to there is {failed})"
        ) from error
    failed.unlink()
    notebook.cells.pop()  # the export
    results = stored_results(notebook) if has_claims(chapter) else None
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)  # it holds paths of this machine
    write_notebook(folder / f"{chapter}.ipynb", notebook)
    if results is not None:
        results_files.write(folder / "results" / f"{chapter}.json", results)
    found.replace(outcomes_path(chapter, folder))


def outcomes_path(chapter: str, folder: Path) -> Path:
    """The outcomes of a chapter in a folder of pages: the published edition's, or a run's."""
    return folder / "results" / f"{chapter}.outcomes.safetensors"


def has_claims(chapter: str) -> bool:
    """Whether a chapter reproduces a paper."""
    return bool(Claims.of(chapter).rows)


def stored_results(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """The results that an executed notebook carries in its last cell's output.

    Raises:
        PipelineError: there are none.
    """
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    carried = [data[results_files.MIME] for data in outputs if results_files.MIME in data]
    if not carried:
        raise PipelineError("the notebook ran through but carries no results")
    return json.loads(json.dumps(carried[-1]))


def write_notebook(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook atomically."""
    write_atomically(path, lambda partial: nbformat.write(notebook, str(partial)))


def run(chapter: str, profile: str, parameters: Mapping[str, Any]) -> None:
    """Execute one chapter strictly into ``_build/<profile>/``.

    Raises:
        PipelineError: see :func:`execute`; also when evidence is to be made while the claims file has
            uncommitted changes, because criteria come before results.
    """
    if "profile" in parameters:
        raise PipelineError("the profile is chosen with --profile, not with -p profile")
    claims = notebook_path(chapter).with_suffix(".toml")
    if profile not in NO_EVIDENCE and provenance.git("status", "--porcelain", "--", str(claims)):
        raise PipelineError(
            f"{claims.name} has uncommitted changes: commit the criteria before a {profile} run measures them"
        )
    folder = build_folder() / profile
    execute(chapter, profile, parameters, folder)
    stamp_path(chapter, folder).unlink(missing_ok=True)  # not the page of the book


def build_folder() -> Path:
    """Where everything that can be made again goes."""
    return provenance.repository() / "_build"


def book() -> Path:
    """Execute what has changed at ``quick`` and render the book with those pages; returns the page to open.

    There is a chapter on each core, at most :data:`MOST_CHAPTERS`, the longest first. When one fails, those that run
    are finished and most of those that wait are not begun.

    Raises:
        PipelineError: see :func:`execute` and :func:`render`.
    """
    with alone("the book"):
        return _book()


def _book() -> Path:
    folder, cores = build_folder() / "quick", os.cpu_count() or 1

    def length(chapter: str) -> int:
        return notebook_path(chapter).stat().st_size  # which says roughly how long it runs

    made_from = {chapter: content_hash(chapter) for chapter in chapters()}
    stamps = {chapter: stamp_path(chapter, folder) for chapter in made_from}

    def is_made(chapter: str) -> bool:
        stamp = stamps[chapter]
        return stamp.exists() and stamp.read_text(encoding="utf-8") == made_from[chapter]

    changed = [chapter for chapter in stamps if not is_made(chapter)]

    def make(chapter: str) -> None:
        try:
            execute(chapter, "quick", {}, folder)
        finally:
            ensure_event_loop().close()  # that this thread talked to the kernel with; nobody else closes it
        stamps[chapter].write_text(made_from[chapter], encoding="utf-8")

    with patch.dict(os.environ, OMP_NUM_THREADS="1"), ThreadPoolExecutor(min(cores, MOST_CHAPTERS)) as pool:
        futures = [pool.submit(make, chapter) for chapter in sorted(changed, key=length, reverse=True)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, PipelineError):  # Ctrl-C does not reach the kernels
                for kernel in psutil.Process().children():
                    kernel.terminate()
            raise
    return render(stage(folder))


def stamp_path(chapter: str, folder: Path) -> Path:
    """The file that says what the book's page of a chapter was made from."""
    return folder / f"{chapter}.made-from"


def content_hash(chapter: str) -> str:
    """What the page of a chapter is made from: its text, its claims and the code of the modules it imports."""
    text, claims = (notebook_path(chapter).with_suffix(kind) for kind in (".py", ".toml"))
    parts = [provenance.source_hash(text), *(path.read_text(encoding="utf-8") for path in (text, claims))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stage(executed: Path) -> Path:
    """A copy of the book's sources with the pages and results of a run in place of the published pages."""
    source = executed / "source"
    if source.exists():
        shutil.rmtree(source)
    source.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(provenance.repository() / name, source)
    shutil.copytree(
        provenance.repository() / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__")
    )
    for chapter in chapters():
        shutil.copy2(executed / f"{chapter}.ipynb", source / "book")
    shutil.copytree(executed / "results", source / "book" / "this_run")
    write_scoreboard(source / "book", read_all(executed / "results"))
    return source


def render(source: Path) -> Path:
    """Render a source tree to ``_build/html`` with warnings as errors; returns the index page.

    Raises:
        PipelineError: Jupyter Book failed or warned; its output has gone to the terminal.
    """
    log, html = build_folder() / "render.log", build_folder() / "html"
    aside = partial_path(html)
    command = [sys.executable, "-c", RENDERER, "build", str(source), "--path-output", str(aside)]
    with alone("the pages"), contextlib.ExitStack() as stack:
        sweep(build_folder())
        stack.callback(shutil.rmtree, aside, ignore_errors=True)
        with log.open("w", encoding="utf-8") as output:
            book = subprocess.Popen(
                [*command, "--all", "-W", "-n", "--keep-going", "-q"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            )
            stack.enter_context(book)
            stack.callback(book.kill)
            status = book.wait()
        if status:
            raise PipelineError(f"{log.read_text(encoding='utf-8')}\nJupyter Book failed ({log})")
        if html.exists():
            html.rename(aside / "before")
        (aside / "_build" / "html").rename(html)
    return html / "index.html"


def publish(chapter: str, profile: str, parameters: Mapping[str, Any]) -> Path:
    """Run a chapter and publish it: outcomes, and page, results, scoreboard and README; returns what has been renewed.

    What the published outcomes hold is taken from them, so that only what is new is measured. A run of a part, which
    lacks rows that the published edition has, adds its outcomes to the edition and leaves the page as it is.
    """
    executed, edition = build_folder() / profile, provenance.repository() / "book"
    if profile in NO_EVIDENCE and has_claims(chapter):
        raise PipelineError(f"a {profile} run is not evidence and cannot become the published edition")
    scoreboard_pages(edition)  # a page that has lost its markers is an error now, not after the run
    path = outcomes_path(chapter, edition)
    with patch.dict(os.environ, {outcomes_files.VARIABLE: str(path)}):
        run(chapter, profile, parameters)
    (piece,) = outcomes_files.read(outcomes_path(chapter, executed))
    with renewed(edition) as draft:
        earlier = outcomes_files.read(path)
        if (pieces := outcomes_files.merged(earlier, piece)) != earlier:
            outcomes_files.write(outcomes_path(chapter, draft), pieces)
        if has_claims(chapter):
            results = results_files.read(executed / "results" / f"{chapter}.json")
            before = results_files.published(chapter, edition / "results")
            if before is not None and results_files.rows_measured(before) - results_files.rows_measured(
                results
            ):
                return path  # the page has rows that this run lacks
            results_files.write(draft / "results" / f"{chapter}.json", results)
        page = edition / f"{chapter}.ipynb"
        write_notebook(draft / page.name, nbformat.read(executed / page.name, as_version=4))
        judge(draft)
    return page


@contextlib.contextmanager
def renewed(edition: Path) -> Iterator[Path]:
    """A copy of an edition's results, pages and README; what is changed in it takes its place, all in one sequence."""
    with alone("the edition", wait=600), tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / edition.name
        shutil.copytree(edition, draft, ignore=shutil.ignore_patterns("weights", "_*", "*.part"))
        shutil.copy2(edition.parent / "README.md", draft.parent)
        yield draft
        places = {
            file: edition.parent / file.relative_to(folder)
            for file in draft.parent.rglob("*")
            if file.is_file()
        }
        changed = {
            place: functools.partial(shutil.copyfile, file)
            for file, place in places.items()
            if not (place.exists() and filecmp.cmp(file, place, shallow=False))
        }
        write_together(changed)


def judge(edition: Path) -> None:
    """Judge an edition by the claims as they stand: results files, pages, scoreboard and README.

    A results file also gets the hash of what judging leaves of its page, by which a page changed by hand is told.
    """
    for found in read_all(edition / "results"):
        page = edition / f"{found['chapter']}.ipynb"
        notebook = nbformat.read(page, as_version=4)
        found["page_sha256"] = scoreboard.page_hash(notebook)
        scoreboard.renew(notebook, Claims.of(found["chapter"]), found)
        results_files.write(edition / "results" / f"{found['chapter']}.json", found)
        write_notebook(page, notebook)
    write_scoreboard(edition)


def check_pages(edition: Path) -> None:
    """Whether every page of an edition is the one that its results were published with.

    Raises:
        PipelineError: one was changed by hand, or a publish was killed half-way.
    """
    for found in read_all(edition / "results"):
        page = edition / f"{found['chapter']}.ipynb"
        known = found.get("page_sha256")
        if known and known != scoreboard.page_hash(nbformat.read(page, as_version=4)):
            raise PipelineError(
                f"{page} is not the page that its results were published with: changed by hand, or published half; "
                f"git restores it, or make publish CHAPTER={found['chapter']} makes it anew"
            )


def checkable() -> list[str]:
    """The chapters that have published outcomes."""
    edition = provenance.repository() / "book"
    return [chapter for chapter in chapters() if outcomes_path(chapter, edition).exists()]


def check(chapter: str) -> checks.Report:
    """Measure the published rows of a chapter again, with today's code on a few hundred images, and compare.

    Every piece of the published outcomes is run at the profile ``check`` with its own parameters, on published networks
    and with an empty cache. The report is kept beside the outcomes, and the page's label comes from it.

    Raises:
        PipelineError: the chapter has no published outcomes, a published file is damaged, nothing could be compared, or an
            error in the notebook. The report before it stays then.
    """
    edition, folder = provenance.repository() / "book", build_folder() / "check"
    check_pages(edition)
    if damaged := checks.damaged(edition):
        raise PipelineError(f"damaged, so that nothing was checked (git restores them): {'; '.join(damaged)}")
    published = outcomes_files.read(outcomes_path(chapter, edition))
    if not published:
        raise PipelineError(f"{chapter} has no published outcomes; make publish CHAPTER={chapter} makes them")
    found: list[checks.Agreement] = []
    used: set[str] = set()
    for piece in published:
        parameters = {name: value for name, value in piece.parameters.items() if name != "profile"}
        clean = {outcomes_files.VARIABLE: ""}  # nothing at hand, so that all is measured
        with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, clean, ROBUSTUTILS_CACHE=cache):
            execute(chapter, "check", parameters, folder)
        (today,) = outcomes_files.read(outcomes_path(chapter, folder))
        found += checks.compare(piece, today)
        used |= today.certificates.keys()
    if not found:
        raise PipelineError(f"{chapter}: no published row was measured again, so that nothing was compared")
    networks = [path for path, header in models.published_headers().items() if header["key"] in used]
    report = checks.Report.of(chapter, edition, published, found, networks)
    report.write(checks.path(chapter, edition))
    return report


def read_all(folder: Path) -> list[dict[str, Any]]:
    """The results of a folder, judged by the claims as they stand, in the order of the chapters."""
    found = (results_files.published(chapter, folder) for chapter in chapters())
    return [results for results in found if results]


def write_scoreboard(edition: Path, this_run: Iterable[dict[str, Any]] = ()) -> None:
    """Renew the generated blocks of the scoreboard page and the intro; for the repository's own book also the README's."""
    for path, text in scoreboard_pages(edition, this_run).items():
        write_atomically(path, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))  # type: ignore[misc]


def scoreboard_pages(edition: Path, this_run: Iterable[dict[str, Any]] = ()) -> dict[Path, str]:
    """The pages with generated blocks and the text that each should have."""
    published = read_all(edition / "results")
    blocks = {
        edition / "scoreboard.md": scoreboard.scoreboard_markdown(published, list(this_run) or None),
        edition / "intro.md": scoreboard.readme_table(published, page="{chapter}.ipynb"),
    }
    if (readme := edition.parent / "README.md").exists():
        blocks[readme] = scoreboard.readme_table(published)
    return {
        path: scoreboard.replace_between_markers(path.read_text(encoding="utf-8"), "scoreboard", block)
        for path, block in blocks.items()
    }


def renew_references() -> list[str]:
    """Bring each chapter's notebook in step with its text and store the outputs of its checked cells, run at quick."""
    folder = build_folder() / "references"
    for chapter in chapters_from_text():
        text = provenance.repository() / "chapters" / f"{chapter}.py"
        write_parameters(text)
        notebook = jupytext.read(text)
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number}"  # jupytext draws them at random
        draft = folder / "text" / f"{chapter}.ipynb"
        write_notebook(draft, notebook)
        execute(chapter, "quick", {}, folder, draft)
        executed = nbformat.read(folder / f"{chapter}.ipynb", as_version=4)
        done = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        for cell, finished in zip(notebook.cells, done, strict=True):
            if REFERENCE_TAG in cell.metadata.get("tags", []):
                cell.outputs = finished.outputs
                cell.execution_count = 1  # nbval wants one where there are outputs; any will do
                for output in cell.outputs:
                    if output.output_type == "execute_result":
                        output.execution_count = 1
        write_notebook(text.with_suffix(".ipynb"), notebook)
    return chapters()


def write_parameters(text: Path) -> None:
    """Write the parameters cell of a chapter's text from its declaration."""
    cell = f'\n# %% tags=["parameters", "hide-input"]\n{parameters_cell(Claims.of(text.stem).parameters)}\n\n# %%'
    written = PARAMETERS_CELL.sub(lambda _: cell, text.read_text(encoding="utf-8"), count=1)
    write_atomically(text, lambda partial: partial.write_text(written, encoding="utf-8"))


def chapters_from_text() -> list[str]:
    """The chapters that have a text, whether or not their notebook exists yet."""
    return sorted(path.stem for path in (provenance.repository() / "chapters").glob("*.py"))


def new(name: str) -> list[Path]:
    """Write the text and the declaration of a new chapter that runs, and enter it in the table of contents.

    Raises:
        PipelineError: the name is taken, or not of lower-case letters, digits and underscores.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise PipelineError(f"{name!r} is no name for a chapter: lower-case letters, digits and _")
    folder, toc = provenance.repository() / "chapters", provenance.repository() / "_toc.yml"
    made = {folder / f"{name}.py": "skeleton_text.txt", folder / f"{name}.toml": "skeleton_claims.txt"}
    if taken := [path for path in made if path.exists()]:
        raise PipelineError(f"{taken[0]} is there already")
    for path, skeleton in made.items():
        text = Path(__file__).with_name(skeleton).read_text(encoding="utf-8")
        path.write_text(text.replace("KEY", name.upper()).replace("NAME", name), encoding="utf-8")
    others = [chapter for chapter in chapters() if chapter != name]
    last = f"      - file: book/{([chapter for chapter in others if has_claims(chapter)] or others)[-1]}\n"
    entered = toc.read_text(encoding="utf-8").replace(last, f"{last}      - file: book/{name}\n")
    toc.write_text(entered, encoding="utf-8")
    return [*made, toc]
