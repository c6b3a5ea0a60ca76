"""The book is of one piece: text and notebook, claims and paper, results and every page that quotes them."""

import ast
import functools
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import numpy as np
import papermill
import pytest
import torch
import yaml

from robustutils import data, evaluation, figures, models, provenance
from robustutils.book import catalogue, checks, criteria, outcomes_files, pipeline, results, scoreboard
from robustutils.book.claims import Claims
from robustutils.outcomes import SCALES

ROOT = provenance.repository()
BOOK = ROOT / "book"
CHAPTERS = pipeline.chapters_from_text()
PAPERS = [name for name in CHAPTERS if pipeline.has_claims(name)]
DRAWING = {"gallery", "dots", "matrices", "lines", "contours", "survival", "trends", "histograms", "scatter"}

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)
each_paper = pytest.mark.parametrize("chapter", PAPERS)


def text_of(chapter: str) -> nbformat.NotebookNode:
    """The chapter as its text file has it."""
    return jupytext.read(ROOT / "chapters" / f"{chapter}.py")


def notebook_of(chapter: str) -> nbformat.NotebookNode:
    """The chapter as its notebook has it."""
    return nbformat.read(ROOT / "chapters" / f"{chapter}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def declared(chapter: str) -> list[str]:
    """The names assigned in the parameters cell."""
    (cell,) = (cell for cell in code_cells(text_of(chapter)) if "parameters" in tags(cell))
    return [target.id for line in ast.parse(cell.source).body for target in line.targets]


# ---- text and notebook ----


@each_chapter
def test_text_and_notebook_are_in_step(chapter):
    def content(notebook):
        keep = ("tags", "mystnb")
        return [
            (cell.cell_type, cell.source, {key: cell.metadata[key] for key in keep if cell.metadata.get(key)})
            for cell in notebook.cells
        ]

    text, notebook = text_of(chapter), notebook_of(chapter)
    nbformat.validate(notebook)
    assert content(notebook) == content(text), "run `jupytext --sync` or `make references`"
    assert notebook.metadata.kernelspec == text.metadata.kernelspec
    assert notebook.metadata.kernelspec.language == "python", "papermill asks for it"


@each_chapter
def test_outputs_are_kept_in_checked_cells_and_nowhere_else(chapter):
    for cell in code_cells(notebook_of(chapter)):
        if pipeline.REFERENCE_TAG in tags(cell):
            assert cell.outputs, f"`make references` has not stored the output of:\n{cell.source}"
        else:
            assert not cell.outputs, f"an output that nothing checks:\n{cell.source}"
        assert cell.execution_count == (1 if cell.outputs else None), "the same at every renewal"
        for output in cell.outputs:
            assert output.output_type in ("stream", "execute_result", "display_data"), output
            assert output.get("name", "stdout") == "stdout", "what goes to stderr is not for comparison"
            assert "image/svg+xml" not in output.get("data", {}), "nbval would compare it byte by byte"


@each_chapter
def test_papermill_sees_every_parameter_and_each_is_explained(chapter):
    (cell,) = (cell for cell in code_cells(notebook_of(chapter)) if "parameters" in tags(cell))
    seen = papermill.inspect_notebook(str(ROOT / "chapters" / f"{chapter}.ipynb"))
    assert list(seen) == declared(chapter)
    assert {"profile", "device"} <= set(seen)
    assert seen["profile"]["default"] == '"quick"', "a notebook opened by hand runs anywhere"
    assert all(line.count("  # ") == 1 for line in cell.source.splitlines()), "a comment for each"


@each_paper
def test_no_chapter_writes_a_verdict(chapter):
    for cell in code_cells(text_of(chapter)):
        words = {node.value for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Constant)}
        assert not words & set(criteria.VERDICTS)


# ---- a chapter is read ----


@each_chapter
def test_a_chapter_is_at_most_a_thousand_lines_and_less_than_a_third_of_its_code_is_folded(chapter):
    assert len((ROOT / "chapters" / f"{chapter}.py").read_text().splitlines()) <= 1000
    sizes = [(len(cell.source.splitlines()), tags(cell)) for cell in code_cells(text_of(chapter))]
    assert max(size for size, _ in sizes) <= 40, "a cell is one idea"
    folded = sum(size for size, found in sizes if {"hide-input", "remove-input", "remove-cell"} & set(found))
    assert chapter not in PAPERS or 3 * folded < sum(size for size, _ in sizes)


@each_chapter
def test_no_import_overwrites_a_parameter(chapter):
    """The parameters stand above the imports, so that an import of the same name would take their place."""
    imported = {
        alias.asname or alias.name.split(".")[0]
        for cell in code_cells(text_of(chapter))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported & {"profile", "device", *declared(chapter)} == set()


@each_chapter
def test_no_chapter_prints(chapter):
    calls = [
        ast.unparse(node.func)
        for cell in code_cells(text_of(chapter))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
    ]
    assert "print" not in calls, "tables are HTML tables, never aligned text"


@each_paper
def test_a_chapter_begins_with_question_answer_picture_and_verdicts(chapter):
    first, front = text_of(chapter).cells[:2]
    title, answer = first.source.split("\n\n", 1)
    assert title.startswith("# ")
    assert title.endswith("?"), "the paper's question"
    assert answer.startswith("**")
    assert "{glue:text}" in answer, "the numbers of the answer are quoted from the results"
    assert f'front("{chapter}")' in front.source


@each_paper
def test_a_chapter_ends_with_what_was_learned(chapter):
    headings = [
        cell.source.splitlines()[0] for cell in text_of(chapter).cells if cell.source.startswith("## ")
    ]
    assert headings[-3:] == ["## What we learned", headings[-2], "## Try it yourself"]


# ---- figures ----


def draws(cell: nbformat.NotebookNode, own: set[str]) -> bool:
    """Whether the value of a cell is a plot: of the house, study or an examination, or of a function of the chapter."""
    last = ast.parse(cell.source).body[-1]
    if not isinstance(last, ast.Expr) or not isinstance(last.value, ast.Call):
        return False
    plots = {
        "study.dots",
        "found.radius_curve",
        "found.gallery",
        *(f"figures.{name}" for name in DRAWING),
        *own,
    }
    return ast.unparse(last.value.func) in plots


def drawing_functions(chapter: str) -> set[str]:
    """The functions of a chapter that return a plot of the house."""
    found = set()
    for cell in code_cells(text_of(chapter)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                returned = [
                    ast.unparse(part.value)
                    for part in ast.walk(node)
                    if isinstance(part, ast.Return) and part.value
                ]
                if any(value.startswith("figures.") for value in returned):
                    found.add(node.name)
    return found


def test_every_plot_of_the_house_is_known_here():
    source = ast.parse(Path(figures.__file__).read_text())
    functions = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.returns]
    plots = {node.name for node in functions if ast.unparse(node.returns) == "Figure"}
    assert plots - {"_empty"} == DRAWING


@each_chapter
def test_every_figure_has_a_name_a_caption_and_a_text_for_those_who_do_not_see_it(chapter):
    names, own = [], drawing_functions(chapter)
    for cell in code_cells(text_of(chapter)):
        settings = cell.metadata.get("mystnb", {})
        assert draws(cell, own) == ("figure" in settings), (
            f"a plot without a caption, or one without a plot:\n{cell.source}"
        )
        if "figure" in settings:
            figure, alt = settings["figure"], settings.get("image", {}).get("alt", "")
            names.append(figure["name"])
            assert len(figure["caption"]) > 40, f"{figure['name']}: say what is seen"
            assert figure["caption"].rstrip().endswith("."), (
                f"{figure['name']}: a caption is made of sentences"
            )
            assert len(alt) > 20, f"{figure['name']} has no alt text"
            assert alt != figure["caption"]
    assert len(set(names)) == len(names)


def test_names_of_figures_are_unique_in_the_book():
    settings = [cell.metadata.get("mystnb", {}) for name in CHAPTERS for cell in text_of(name).cells]
    names = [each["figure"]["name"] for each in settings if "figure" in each]
    assert len(names) > 4
    assert sorted(set(names)) == sorted(names)


# ---- claims ----


@each_paper
def test_every_claim_has_a_title_and_a_statement(chapter):
    stated = Claims.of(chapter)
    assert stated.chapter == chapter
    assert set(stated.titles) == {row.id for row in stated.rows}
    for title in stated.titles.values():
        assert len(re.sub(r"\(.*\)", "", title).split()) <= 8, f"{title}: at most eight words and the place"
    assert all(row.statement.endswith(".") for row in stated.rows), "a statement is a sentence"
    assert all(row.criterion or row.needs for row in stated.rows)


# ---- the table of contents ----


def listed_pages() -> list[str]:
    """Every file of the table of contents, the root included."""

    def walk(node: Any) -> list[str]:
        if isinstance(node, list):
            return [page for part in node for page in walk(part)]
        if isinstance(node, dict):
            own = [node[key] for key in ("root", "file") if key in node]
            return own + [page for part in node.values() for page in walk(part)]
        return []

    return walk(yaml.safe_load((ROOT / "_toc.yml").read_text()))


def test_the_table_of_contents_lists_every_page_and_chapter_once():
    pages = listed_pages()
    assert len(set(pages)) == len(pages)
    written = [f"book/{path.relative_to(BOOK).with_suffix('')}" for path in BOOK.rglob("*.md")]
    assert sorted(pages) == sorted([*written, *(f"book/{name}" for name in CHAPTERS)])


def test_every_chapter_has_both_forms():
    for suffix in (".py", ".ipynb"):
        assert sorted(path.stem for path in (ROOT / "chapters").glob(f"*{suffix}")) == CHAPTERS


# ---- the published edition ----


def results_of(chapter: str) -> dict[str, Any]:
    """The published results of a chapter; without any the test is skipped."""
    found = results.published(chapter)
    if found is None:
        pytest.skip(f"{chapter} has not been published yet")
    return found


@functools.cache
def pieces_of(chapter: str) -> list[outcomes_files.Piece]:
    """The published outcomes of a chapter."""
    return outcomes_files.read(pipeline.outcomes_path(chapter, BOOK))


def page_of(chapter: str) -> nbformat.NotebookNode:
    """The published page of a chapter; without one the test is skipped."""
    path = BOOK / f"{chapter}.ipynb"
    if not path.exists():
        pytest.skip(f"{chapter} has not been published yet")
    return nbformat.read(path, as_version=4)


def glued(notebook: nbformat.NotebookNode) -> dict[str, dict[str, Any]]:
    """What a page glues: by name the data of its kinds of content."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    named = [(output.get("metadata", {}).get("scrapbook", {}).get("name"), output) for output in outputs]
    return {
        name: {kind.removeprefix("application/papermill.record/"): data for kind, data in output.data.items()}
        for name, output in named
        if name
    }


@each_chapter
def test_a_page_and_its_results_are_published_together(chapter):
    page = page_of(chapter)
    assert "papermill" not in page.metadata, "it holds paths of a machine"
    assert (BOOK / "results" / f"{chapter}.json").exists() == (chapter in PAPERS)
    errors = [output for cell in code_cells(page) for output in cell.outputs if output.output_type == "error"]
    assert errors == []
    assert all(cell.execution_count for cell in code_cells(page)), "executed from the first cell to the last"


@each_paper
def test_published_results_are_evidence_of_every_claim(chapter):
    found = results_of(chapter)
    assert found["profile"] in ("standard", "paper")
    assert {entry["id"] for entry in found["claims"]} == set(Claims.of(chapter).titles)
    assert all(entry["note"] for entry in found["claims"] if entry["verdict"] == "not_run"), "not run: why?"
    assert re.fullmatch(r"[0-9a-f]{12}\+?", found["git_commit"])
    assert re.fullmatch(r"[0-9a-f]{64}", found["source_hash"])
    assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in found["datasets"].values())
    assert found["seconds"] > 0


@each_paper
def test_every_published_row_is_what_todays_criteria_make_of_its_measurement(chapter):
    stored = results.read(BOOK / "results" / f"{chapter}.json")
    judged = results_of(chapter)
    for before, now in zip(stored["claims"], judged["claims"], strict=True):
        assert before == now, "`pipeline.judge` renews results, pages, scoreboard and README"
    assert stored == judged
    for row in judged["claims"]:
        low, high = SCALES.get(row["unit"], (-math.inf, math.inf))
        ends = np.ravel(row["seed_ci95"] or [low, high])
        assert low <= ends.min() <= ends.max() <= high, (row["id"], row["row"])


@each_paper
def test_the_published_outcomes_give_the_published_values(chapter):
    rows = {(row["id"], row["row"]): row for row in results_of(chapter)["claims"]}
    found = {name: row for piece in pieces_of(chapter) for name, row in piece.rows.items()}
    measured = {name for name, row in rows.items() if row["measured"] is not None}
    assert measured <= found.keys()
    for name in measured:
        unit, value = rows[name]["unit"], rows[name]["measured"]
        assert np.allclose(value, found[name].value, atol=0.006 if unit in results.PERCENT else 6e-5), name
        assert (rows[name]["n"], rows[name]["seeds"]) == (found[name].n, list(found[name].seeds)), name


@each_paper
def test_the_criteria_of_published_results_were_committed_before_the_run(chapter):
    found = results_of(chapter)
    commit = found["git_commit"].rstrip("+")
    for path in (
        f"chapters/{chapter}.toml",
        f"chapters/{chapter}.claims.toml",
    ):  # its name until November 2026
        shown = subprocess.run(["git", "-C", str(ROOT), "show", f"{commit}:{path}"], capture_output=True)
        if shown.returncode == 0:
            break
    else:
        pytest.skip(f"commit {commit} is not in this copy of the history")
    assert hashlib.sha256(shown.stdout).hexdigest() == found["claims_sha256"]


@each_paper
def test_a_published_page_carries_its_results_and_quotes_them_rightly(chapter):
    found, page = results_of(chapter), page_of(chapter)
    assert pipeline.stored_results(page) == found
    values = scoreboard.glue_values(found)
    texts = {name: kinds["text/plain"] for name, kinds in glued(page).items() if len(kinds) == 1}
    quoted = {name: ast.literal_eval(text) for name, text in texts.items()}
    assert quoted == {name: values[name] for name in quoted}


def test_scoreboard_front_page_and_readme_agree_with_the_published_results():
    published = pipeline.read_all(BOOK / "results")
    if not published:
        pytest.skip("nothing has been published yet")
    files = [path for path in (BOOK / "results").glob("*.json") if not path.stem.endswith(".check")]
    assert {path.stem for path in files} == {each["chapter"] for each in published}
    for page, block in {
        BOOK / "scoreboard.md": scoreboard.scoreboard_markdown(published),
        BOOK / "intro.md": scoreboard.readme_table(published, page="{chapter}.ipynb"),
        ROOT / "README.md": scoreboard.readme_table(published),
    }.items():
        text = page.read_text()
        assert text == scoreboard.replace_between_markers(text, "scoreboard", block), (
            f"{page.name} does not show what the results files say; `make publish` writes it"
        )


def test_a_published_book_has_no_number_left_open():
    if not pipeline.read_all(BOOK / "results"):
        pytest.skip("nothing has been published yet")
    assert [path.name for path in BOOK.rglob("*.md") if "@@" in path.read_text()] == []


# ---- glue ----

GLUED = re.compile(r"\{glue(?::\w*)?\}`([^`:]+)|```\{glue(?::\w*)?\} *(\S+)")


@each_chapter
def test_whatever_the_prose_quotes_is_glued(chapter):
    prose = [cell.source for cell in text_of(chapter).cells if cell.cell_type == "markdown"]
    used = {role or directive for source in prose for role, directive in GLUED.findall(source)}
    page = BOOK / f"{chapter}.ipynb"
    if page.exists():
        known = set(glued(nbformat.read(page, as_version=4)))
    else:  # what any run of these claims can quote
        rows = [results.entry(row, "next") for row in Claims.of(chapter).rows]
        known = set(scoreboard.glue_values(results.head(Claims.of(chapter), "quick", rows)))
    code = "\n".join(cell.source for cell in code_cells(text_of(chapter)))
    known |= set(re.findall(r'^glue\("([^"]+)", ', code, re.MULTILINE))
    assert used <= known, f"not glued: {sorted(used - known)}"


# ---- what is committed ----

PRIVATE = re.compile(
    r"(?<![\w.~<*])/(?:work|root|home|tmp|Users|mnt|private|workspace)/[\w.-]"  # a folder of somebody's machine
    r"|[A-Z]:\\\\?Users"
    r"|//(?:\d{1,3}\.){3}\d{1,3}|//localhos[t]|//[\w.-]+\.(?:internal|local|corp|lan)\b"  # a host nobody else has
    r"|(?i:index[-_]url)['\"]? *[=: ] *['\"]?http"  # a package registry
)


def committed() -> list[Path]:
    """The files of the repository, those about to be added included."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(("text", "found"), [
    ("/" + "home/somebody/data", True),
    ("see '/" + "tmp/x.json'", True),
    ("C:" + r"\Users\somebody", True),
    ("http:/" + "/10.0.0.1:8080/simple", True),
    ("https:/" + "/pip.corp/simple", True),
    ("--index" + "-url https://example.org/simple", True),
    ("PIP_EXTRA_INDEX" + "_URL: ${{ vars.PIP_EXTRA_INDEX" + "_URL }}", False),
    ("https://github.com/home/page", False),
    ("export ROBUSTUTILS_DATA=/path/to/data", False),
    ("book/tmp/x", False),
])  # fmt: skip
def test_the_search_for_private_places_knows_them(text, found):
    assert bool(PRIVATE.search(text)) is found


def test_no_committed_file_names_a_place_on_a_machine_or_a_private_host():
    found = []
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in PRIVATE.finditer(text)]
    assert found == []


def test_no_data_weights_or_failed_run_is_committed():
    endings = (
        ".safetensors",
        ".pt",
        ".pth",
        ".npy",
        ".npz",
        ".gz",
        ".zip",
        ".pkl",
        ".ubyte",
        ".failed.ipynb",
        ".checkpoint",
    )
    weights, outcome = BOOK / "weights", ".outcomes.safetensors"
    others = [path for path in committed() if path.parent != weights and not path.name.endswith(outcome)]
    assert [str(path) for path in others if path.name.endswith(endings)] == []
    assert [str(path) for path in others if path.stat().st_size > 5_000_000] == []


def test_every_published_network_is_whole_and_all_together_fit():
    files = sorted((BOOK / "weights").iterdir())
    assert {path.stem for path in files} <= catalogue.CATALOGUE.keys()
    for path in files:
        model = models.published(path.stem)
        weights = [w for w in model.state_dict().values() if w.is_floating_point()]
        assert all(torch.equal(w, w.half().float()) for w in weights), path.stem
    assert sum(path.stat().st_size for path in files) <= catalogue.LIMIT


def test_a_published_network_is_as_accurate_as_its_file_says():
    described = {found["network"]: found for found in catalogue.table()}
    test = data.load("digits", "test")
    hits = evaluation.correct(models.published("small_cnn"), test.images, test.labels)
    assert described["small_cnn"]["accuracy"] == pytest.approx(100 * hits.float().mean().item(), abs=0.3)
    for found in described.values():
        if catalogue.entry(found["network"]).classifier:
            least = 20 if found["dataset"] == "fonts" else 70  # some have seen 250 letters, 25 of each class
            assert found["accuracy"] > least, found["network"]
        assert {"commit", "date", "torch", "precision", "seconds"} <= found["certificate"].keys()


@pytest.mark.parametrize("chapter", pipeline.checkable())
def test_published_outcomes_are_whole_and_small(chapter):
    path = pipeline.outcomes_path(chapter, BOOK)
    assert path.stat().st_size <= outcomes_files.LIMIT + 100_000
    for piece in pieces_of(chapter):
        assert all(row.arrays or row.value is not None for row in piece.rows.values())
        assert all(
            values.shape == (len(row.seeds), len(row.images))
            for row in piece.rows.values()
            for values in row.arrays.values()
        )


# ---- what the pages tell a reader to do ----

PAGES = ["README.md", "CONTRIBUTING.md", *(f"book/{path.name}" for path in sorted(BOOK.glob("*.md")))]


def code_of(text: str) -> list[str]:
    """The lines of fenced blocks, continued ones joined, and the inline code of a page."""
    fences = re.findall(r"^ *```(?:bash|sh|text)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(fences).replace("\\\n", " ").splitlines()
    return [*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [re.match(r"make ([a-z]+)", line) for line in code_of((ROOT / page).read_text())]
    assert {match.group(1) for match in named if match} <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_command_names_a_chapter_and_parameters_that_it_has(page):
    for line in code_of((ROOT / page).read_text()):
        chapter = re.search(
            r"chapters/([a-z_]+)\.ipynb|CHAPTER=([a-z_]+)|robustutils (?:run|publish) ([a-z_]+)", line
        )
        if chapter:
            name = next(filter(None, chapter.groups()))
            assert name in CHAPTERS, line
            assert set(re.findall(r"-p (\w+)", line)) <= set(declared(name)), line


@each_paper
def test_the_rerun_page_lists_parameters_that_every_paper_has(chapter):
    (table,) = re.findall(r"\* - Parameter\n(.*?)```", (BOOK / "rerun.md").read_text(), re.DOTALL)
    promised = set(re.findall(r"-p (\w+)", table))
    assert promised >= {"profile", "seed"}
    assert promised <= set(declared(chapter))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_the_front_pages_name_exists(page):
    text = (ROOT / page).read_text()
    links = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith("http")]
    paths = re.findall(r"(?<![\w/.])(?:book|chapters|robustutils|tests|benchmarks)/[\w./-]*", text)
    named = {target.split("#")[0] for target in [*links, *paths] if "NAME" not in target} - {""}
    assert named
    assert [target for target in sorted(named) if not (ROOT / target).exists()] == []


def test_the_example_of_the_readme_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    try:
        data.load("mnist", "test")
    except data.DataError as absent:
        pytest.skip(str(absent))
    few = example.replace("first(500)", "first(2)")
    assert few != example
    exec(compile(few, "README.md", "exec"), {})
    assert "%" in capsys.readouterr().out


# ---- the rendered book ----


class Page(HTMLParser):
    """The addresses of a page: what it loads, where it links, which anchors it has, images without a text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.silent: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "shortcut icon", "icon"):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img" and not found.get("alt", "").strip():
            self.silent.append(found.get("src", ""))


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """The published edition, rendered with warnings as errors; this takes most of a minute."""
    missing = [page for page in listed_pages() if not list(ROOT.glob(f"{page}.*"))]
    if missing:
        pytest.skip(f"not published yet: {', '.join(missing)}")
    root = tmp_path_factory.mktemp("site")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(ROOT / name, root)
    shutil.copytree(BOOK, root / "book", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "repository", lambda: root)
        patch.setenv("OMP_NUM_THREADS", "1")
        return pipeline.render(root).parent


def test_the_published_edition_renders_without_a_warning(html):
    assert (html / "index.html").exists()
    for page in listed_pages():
        assert (html / f"{page}.html").exists(), page


def test_the_rendered_book_needs_no_network_and_no_link_is_dead(html):
    pages = {path: Page(path) for path in html.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) >= len(listed_pages())
    problems = []
    for path, page in pages.items():
        where = str(path.relative_to(html))
        problems += [f"{where} loads {url}" for url in page.loads if re.match(r"(https?:)?//", url)]
        problems += [f"{where}: an image without alt text, {url[:60]}" for url in page.silent]
        for url in [*page.loads, *page.links]:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            if not target.exists():
                problems.append(f"{where} names {url}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                problems.append(f"{where}: no anchor {url}")
    assert sorted(set(problems)) == []


@each_paper
def test_a_rendered_chapter_says_which_run_it_shows_and_quotes_the_results(html, chapter):
    text = (html / "book" / f"{chapter}.html").read_text()
    found = results_of(chapter)
    assert f"Published edition: made at {found['git_commit'][:7]} on {found['date']}" in text
    report = checks.read(checks.path(chapter, BOOK))
    assert ("Not checked" if report is None else report.summary()) in text
    assert scoreboard.badge("not_run") in text
    assert "application/vnd.robustutils" not in text
    assert any("mathjax" in url.lower() for url in Page(html / "book" / f"{chapter}.html").loads), "formulas"
    pictures = [
        cell
        for cell in code_cells(page_of(chapter))
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
    shown = len(pictures) + sum("{glue:figure}" in cell.source for cell in page_of(chapter).cells)
    assert text.count("<figcaption>") == shown + 1, "a figure of the published page has no caption"
    for title in found["titles"].values():
        assert escape(title) in text, "the strip of verdicts has a line for each claim"


def test_the_readme_states_the_speed_that_was_measured():
    measured = json.loads((ROOT / "benchmarks" / "results" / "attack_speed.json").read_text())["speed"]
    factors = {
        row["name"]: row["times_faster"] for row in measured["speed_ups"] if "to the end" not in row["name"]
    }
    text = " ".join((ROOT / "README.md").read_text().split())
    number = r"([\d.]+)"
    stated = re.search(
        rf"PGD runs {number} times as fast per step .* \({number} times in bfloat16.*"
        rf" {number} and {number} times as fast to a",
        text,
    )
    per_step, to_equal = ([row for row in factors if part in row] for part in ("40 steps", "5 steps"))
    assert [float(found) for found in stated.groups()] == [factors[name] for name in (*per_step, *to_equal)]
    assert all(
        row["points_above_strongest_peer"] <= 0 for row in measured["speed_ups"] if "5 steps" in row["name"]
    )
