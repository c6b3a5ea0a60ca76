"""The command line: which command does what, one message for each mistake, and honest exit codes."""

import runpy
import sys
from pathlib import Path

import pytest

from robustutils import __main__ as cli
from robustutils import data, provenance
from robustutils.book import catalogue, pipeline, results, scoreboard


@pytest.fixture
def repo(tmp_path, monkeypatch) -> Path:
    """A repository with one empty chapter."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "book").mkdir()
    for page in ("README.md", "book/intro.md", "book/scoreboard.md"):
        (tmp_path / page).write_text("<!-- scoreboard:start -->\n<!-- scoreboard:end -->\n")
    (tmp_path / "_toc.yml").write_text("- file: book/spots\n")
    notebook = (
        '{"cells": [{"cell_type": "code", "id": "a", "execution_count": null, "outputs": [], '
        '"metadata": {"tags": ["parameters"]}, "source": "profile = 0\\nepsilon = 0.3"}], "nbformat": 4, '
        '"nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "language": "python", '
        '"display_name": "Python 3"}}}'
    )
    (tmp_path / "chapters" / "spots.ipynb").write_text(notebook)
    (tmp_path / "chapters" / "spots.toml").write_text("")
    monkeypatch.setattr(provenance, "repository", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Which steps of the pipeline were asked for; none is done."""
    made: list[tuple] = []

    def record(name, answer):
        def step(*arguments):
            made.append((name, *arguments))
            return answer

        return step

    for name, answer in {
        "run": None,
        "publish": Path("book/spots.ipynb"),
        "book": Path("_build/html/index.html"),
        "render": Path("_build/html/index.html"),
        "renew_references": ["spots", "stripes"],
        "read_all": [],
    }.items():
        monkeypatch.setattr(pipeline, name, record(name, answer))
    monkeypatch.setattr(results, "read", record("read_results", {}))
    monkeypatch.setattr(data, "fetch", record("fetch", None))
    monkeypatch.setattr(scoreboard, "terminal_scoreboard", lambda results: f"scoreboard of {len(results)}")
    return made


@pytest.mark.parametrize(("arguments", "first", "said"), [
    ("run spots", ("run", "spots", "quick", {}), "spots.ipynb"),
    ("run spots --profile standard -p seed 3 -p dataset mnist", ("run", "spots", "standard",
     {"seed": 3, "dataset": "mnist"}), "_build/standard/spots.ipynb"),
    ("run spots -p epsilon 1e-1 -p epsilon 0.2", ("run", "spots", "quick", {"epsilon": 0.2}), "spots.ipynb"),
    ("publish spots", ("publish", "spots", "standard", {}), "published: book/spots.ipynb"),
    ("publish spots --profile paper", ("publish", "spots", "paper", {}), "published: book/spots.ipynb"),
    ("build", ("book",), "open _build/html/index.html"),
    ("references", ("renew_references",), "renewed: spots, stripes"),
    ("data", ("fetch", list(data.PUBLIC), None), ""),
    ("data mnist --root there", ("fetch", ["mnist"], "there"), ""),
])  # fmt: skip
def test_a_command_does_its_step_and_says_so(repo, calls, capsys, arguments, first, said):
    assert cli.main(arguments.split()) == 0
    assert calls[0] == first
    captured = capsys.readouterr()
    assert said in captured.out
    assert captured.err == ""


def test_the_site_is_the_published_edition(repo, calls, capsys):
    assert cli.main(["site"]) == 0
    assert calls == [("read_all", repo / "book" / "results"), ("render", repo)]
    assert capsys.readouterr().out == "open _build/html/index.html\n"


def test_the_networks_are_a_table_with_a_dash_for_what_has_no_accuracy(capsys, monkeypatch):
    about = {"dataset": "mnist", "radius": "none", "certificate": {"seconds": 90.0}, "bytes": 3 << 19}
    found = [about | {"network": name, "accuracy": value} for name, value in (("a", 98.5), ("b", None))]
    monkeypatch.setattr(catalogue, "table", lambda: found)
    assert cli.main(["networks"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["98.50%", "-"]
    assert {line.index("none") for line in lines} == {heading.index("trained against")}
    assert all(line.endswith("1.5   1.5") for line in lines)


def test_a_run_with_claims_ends_with_its_own_scoreboard(repo, calls, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "has_claims", lambda chapter: True)
    assert cli.main(["run", "spots"]) == 0
    assert "scoreboard of 1\n" in capsys.readouterr().out
    assert ("read_results", repo / "_build" / "quick" / "results" / "spots.json") in calls


@pytest.mark.parametrize(("arguments", "message"), [
    ("run spost", "error: unknown chapter 'spost' (did you mean 'spots'?); there are spots\n"),
    ("publish stripes", "error: unknown chapter 'stripes'; there are spots\n"),
    ("run spots -p epsilom 0.1",
     "error: unknown parameter of spots 'epsilom' (did you mean 'epsilon'?); there are profile, epsilon\n"),
    ("data mnits", "error: unknown public data set 'mnits' (did you mean 'mnist'?); there are mnist, "),
])  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_one(repo, capsys, arguments, message):
    assert cli.main(arguments.split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(("arguments", "named"), [
    ("run spots --profile fast", ("'fast'", "quick", "standard", "paper")),
    ("publish spots --profile Standard", ("'Standard'", "standard")),
    ("run", ("chapter",)),
    ("run spots -p seed", ("-p",)),
    ("run spots --seed 3", ("--seed",)),
    ("sell", ("'sell'", "run", "publish", "build", "site", "references", "data")),
    ("", ("command",)),
])  # fmt: skip
def test_bad_usage_is_exit_code_two_and_says_what_is_allowed(calls, capsys, arguments, named):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments.split())
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert all(word in error for word in named), error
    assert calls == []


def raising(error: BaseException):
    def command(**options):
        raise error

    return command


@pytest.mark.parametrize(("error", "code", "message"), [
    (pipeline.PipelineError("the notebook failed"), 1, "error: the notebook failed\n"),
    (data.DataError("mnist is absent"), 1, "error: mnist is absent\n"),
    (ValueError("seed=-1: must be"), 1, "error: seed=-1: must be\n"),
    (PermissionError(13, "Permission denied", "_build"), 1, "error: [Errno 13] Permission denied: '_build': "
     "free some space or permit writing there, then call again\n"),
    (OSError(28, "No space left on device", "_build"), 1, "error: [Errno 28] No space left on device: '_build': "
     "free some space or permit writing there, then call again\n"),
    (OSError("the cache is full"), 1, "error: the cache is full\n"),
    (KeyboardInterrupt(), 130, "interrupted: nothing was replaced; the next run goes on from the last checkpoint\n"),
])  # fmt: skip
def test_a_failure_is_one_message_and_an_honest_exit_code(monkeypatch, capsys, error, code, message):
    monkeypatch.setitem(cli.COMMANDS, "site", raising(error))
    assert cli.main(["site"]) == code
    captured = capsys.readouterr()
    assert captured.err == message
    assert captured.out == ""


def test_an_error_in_the_program_itself_is_not_dressed_up(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "site", raising(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        cli.main(["site"])


def test_every_command_of_the_parser_is_in_the_table(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert all(command in listed for command in cli.COMMANDS)
    names = [
        "run",
        "publish",
        "check",
        "train",
        "new",
        "networks",
        "build",
        "site",
        "references",
        "data",
        "fonts",
        "examine",
    ]
    assert "{" + ",".join(names) + "}" in listed
    assert set(cli.COMMANDS) == set(names)


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3),
    ("-1", -1),
    ("0.1", 0.1),
    ("1e-3", 0.001),
    ("None", None),
    ("True", True),
    ("[1, 2]", [1, 2]),
    ("['B*', 'C']", ["B*", "C"]),
    ("'3'", "3"),
    ("mnist", "mnist"),
    ("B*,C", "B*,C"),
    ("package.module:function", "package.module:function"),
    ("weights/file.safetensors", "weights/file.safetensors"),
    ("", ""),
    (" x", " x"),
    ("08", "08"),
    ("a\0b", "a\0b"),
])  # fmt: skip
def test_parameters_are_typed_where_they_look_like_a_value(text, value):
    typed = cli._typed(text)
    assert typed == value
    assert type(typed) is type(value)


def test_the_package_is_a_command_and_its_exit_code_reaches_the_shell(repo, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["robustutils", "run", "spost"])
    monkeypatch.delitem(sys.modules, "robustutils.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("robustutils", run_name="__main__")
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: unknown chapter 'spost'")
