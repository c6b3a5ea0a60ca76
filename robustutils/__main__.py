"""Command line of the book: ``python -m robustutils COMMAND``; without one it lists them."""

import os
import signal
import sys

INTERRUPTED = "interrupted: nothing was replaced; the next run goes on from the last checkpoint"


def _leave(*_: object) -> None:
    """On Ctrl-C while the modules below are imported, which takes seconds."""
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

import argparse
import ast
import errno
import functools
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from robustutils import data, models, provenance, storage, training
from robustutils.book import catalogue, pipeline, results, scoreboard
from robustutils.book.parameters import PROFILES
from robustutils.papers.disentangling import fonts
from robustutils.tools import examine, own_data

MISTAKES = (
    pipeline.PipelineError, data.DataError, training.TrainingError, storage.CacheError, ValueError, OSError
)  # fmt: skip
"""What is one line of text and exit code 1."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a disk or a folder that takes nothing more."""
PARSER = argparse.ArgumentParser(
    prog="python -m robustutils", description="Run, render and publish the book."
)
COMMANDS: dict[str, Callable[..., None]] = {}
"""What the commands do; each gets its options as keywords."""
_parsers = PARSER.add_subparsers(dest="command", required=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 for a failure, 2 for bad usage and 130 for Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = vars(PARSER.parse_args(arguments))
    try:
        COMMANDS[options.pop("command")](**options)
    except MISTAKES as error:
        full = isinstance(error, OSError) and error.errno in FULL
        remedy = ": free some space or permit writing there, then call again" if full else ""
        print(f"error: {error}{remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    return 0


def _command(options: Mapping[str, Mapping[str, Any]]) -> Callable[..., None]:
    """Make a function the command of its name, its docstring the help; it gets the options as argparse has them."""

    def enter(function: Callable[..., None]) -> None:
        name = function.__name__.strip("_")
        parser = _parsers.add_parser(name, help=function.__doc__)
        for option, settings in options.items():
            parser.add_argument(option, **settings)
        COMMANDS[name] = function

    return enter


_PAIRS = {"dest": "parameters", "nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}


@_command({"chapter": {}, "--profile": {"default": "quick", "choices": PROFILES}, "-p": _PAIRS})
def _run(chapter: str, profile: str, parameters: Iterable[Sequence[str]]) -> None:
    """execute one chapter into _build/<profile>/"""
    pipeline.run(chapter, profile, _typed_all(parameters))
    folder = pipeline.build_folder() / profile
    if pipeline.has_claims(chapter):
        print(scoreboard.terminal_scoreboard([results.read(folder / "results" / f"{chapter}.json")]))
    print(f"executed notebook: {folder / chapter}.ipynb")


@_command({"chapter": {}, "--profile": {"default": "standard", "choices": PROFILES}, "-p": _PAIRS})
def _publish(chapter: str, profile: str, parameters: Iterable[Sequence[str]]) -> None:
    """make a run the published edition in book/; what is published already is not measured again"""
    renewed = pipeline.publish(chapter, profile, _typed_all(parameters))
    print(f"published: {renewed}")
    if renewed.suffix == ".safetensors":
        print("the page stays as it is: it has rows that this run did not measure")


@_command(
    {"chapters": {"nargs": "*", "metavar": "CHAPTER", "help": "default: all that have published outcomes"}}
)
def _check(chapters: Sequence[str]) -> None:
    """do today's code and the published outcomes agree, image by image?"""
    failed = []
    for chapter in chapters or pipeline.checkable():
        report = pipeline.check(chapter)
        print(report.text())
        failed += [chapter] * bool(report.disagreeing)
    if failed:
        raise pipeline.PipelineError(f"published outcomes disagree in {', '.join(failed)}")


@_command(
    {
        "names": {"nargs": "+", "metavar": "NAME", "choices": catalogue.CATALOGUE},
        "--workers": {"type": int, "help": "processes of one thread each; default: one a core"},
    }
)
def _train(names: Sequence[str], workers: int | None) -> None:
    """train networks in the background, resumably, and put them into book/weights"""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    catalogue.train(names, workers=workers)


@_command({"name": {}})
def _new(name: str) -> None:
    """write a new chapter that runs, to begin from"""
    for path in pipeline.new(name):
        print(f"written: {path}")
    print("next: make references, which makes its notebook")


@_command({})
def _networks() -> None:
    """list the published networks"""
    print(f"{'name':26} {'data':14} {'accuracy':>8}  {'trained against':22} {'minutes':>7} {'MiB':>5}")
    for found in catalogue.table():
        minutes = found["certificate"]["seconds"] / 60
        accuracy = "-" if found["accuracy"] is None else f"{found['accuracy']:.2f}%"
        print(
            f"{found['network']:26} {found['dataset']:14} {accuracy:>8}  {found['radius']:22} "
            f"{minutes:7.1f} {found['bytes'] / 2**20:5.1f}"
        )


@_command({})
def _build() -> None:
    """execute what has changed at quick and render the book"""
    page = pipeline.book()
    print(scoreboard.terminal_scoreboard(pipeline.read_all(pipeline.build_folder() / "quick" / "results")))
    print(f"open {page}")


@_command({})
def _site() -> None:
    """render the published edition"""
    pipeline.check_pages(provenance.repository() / "book")
    print(f"open {pipeline.render(provenance.repository())}")


@_command({})
def _references() -> None:
    """renew the notebooks and the outputs that nbval compares"""
    print(f"renewed: {', '.join(pipeline.renew_references())}")


@_command({"names": {"nargs": "*", "default": [*data.PUBLIC], "metavar": "NAME"}, "--root": {}})
def _data(names: Sequence[str], root: str | None) -> None:
    """download the public data sets with their checksums"""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data.fetch(names, root)


@_command(
    {
        "folder": {"metavar": "FOLDER"},
        "--out": {"metavar": "FILE", "help": "default: fonts/prototypes.npz in the data root"},
    }
)
def _fonts(folder: str, out: str | None) -> None:
    """make the data set fonts of the TTF and OTF files in a folder"""
    file = Path(out or data.find_root() / "fonts" / "prototypes.npz")
    if file.exists():
        raise FileExistsError(
            f"{file} exists and was left as it is; delete it, or write another one with --out"
        )
    prototypes, names, skipped = fonts.prototypes_of(folder)
    for reason in skipped.values():
        print(f"skipped: {reason}")
    fonts.write_prototypes(prototypes, names, file)
    print(f"{len(names)} fonts used, {len(skipped)} skipped: {file}")
    print("data.load('fonts') reads it where it is fonts/prototypes.npz below the data root")


@_command(
    {
        "model": {"metavar": "MODEL", "help": "package.module:function, or a published network's name"},
        "--weights": {"metavar": "FILE", "help": "safetensors file for the function's model"},
        "--data": {"required": True, "help": "a data set's name, a folder of folders, or an .npz file"},
        "--eps": {"type": float, "default": 0.3, "help": "linf radius, default 0.3"},
        "--n": {"type": int, "default": 1000, "help": "images attacked, default 1000"},
        "--seed": {"type": int, "default": 0},
        "--out": {"metavar": "FOLDER", "default": ".", "help": "where the page and the JSON file go"},
        "--force": {"action": "store_true", "help": "write over what is there"},
    }
)
def _examine(
    model: str, weights: str | None, data: str, eps: float, n: int, seed: int, out: str, force: bool
) -> None:
    """a model of your own: accuracy, attack, masking, blind spots, as a page and a JSON file"""
    name = re.sub(r"[^\w.-]+", "_", model)
    page, numbers = (Path(out) / f"{name}.{kind}" for kind in ("html", "json"))
    for path in (page, numbers):
        if path.exists() and not force:
            raise FileExistsError(
                f"{path} exists and was left as it is; --force writes over it, --out elsewhere"
            )
    sys.path.insert(0, "")  # where a module in the current folder is found
    report = functools.partial(print, flush=True)
    matplotlib.use("agg")  # pages are drawn without a window, whatever the session has
    net, test = models.find(model, weights), own_data.test_images(data)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=page.parent).close()
    except OSError as error:
        raise ValueError(f"--out {out}: no files can be written there ({error.strerror})") from error
    found = examine.examine(net, test, eps=eps, n=n, seed=seed, label=model, report=report)
    shown = found.page()
    text = json.dumps(found.json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for path, content in ((numbers, text), (page, shown)):
        write = functools.partial(Path.write_text, data=content, encoding="utf-8")
        storage.write_atomically(path, write, new=not force)
    print(found.answer())
    for flag in found.flags:
        print(f"flag: {flag}")
    print(f"written: {page} and {numbers}")


def _typed_all(parameters: Iterable[Sequence[str]]) -> dict[str, Any]:
    return {name: _typed(value) for name, value in parameters}


def _typed(text: str) -> Any:
    """A number, list, None or truth value where the text is one, else the text itself: so with commas alone."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return text if isinstance(value, tuple) else value


if __name__ == "__main__":
    sys.exit(main())
