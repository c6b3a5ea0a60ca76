"""Command line of the book: ``python -m robustutils COMMAND``; without one it lists them."""

import argparse
import ast
import functools
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from robustutils import data, models, provenance, storage, training
from robustutils.book import catalogue, pipeline, results, scoreboard
from robustutils.book.parameters import PROFILES
from robustutils.papers.disentangling import fonts
from robustutils.tools import examine, own_data


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 for a failure, 2 for bad usage and 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m robustutils", description="Run, render and publish the book."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "execute one chapter into _build/<profile>/"),
        (
            "publish",
            "make a run the published edition in book/; what is published already is not measured again",
        ),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter")
        command.add_argument("--profile", default="quick" if name == "run" else "standard", choices=PROFILES)
        command.add_argument(
            "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
        )
    check = commands.add_parser(
        "check", help="do today's code and the published outcomes agree, image by image?"
    )
    check.add_argument(
        "chapters", nargs="*", metavar="CHAPTER", help="default: all that have published outcomes"
    )
    train = commands.add_parser(
        "train", help="train networks in the background, resumably, and put them into book/weights"
    )
    train.add_argument("names", nargs="+", metavar="NAME", choices=catalogue.CATALOGUE)
    train.add_argument(
        "--workers", type=int, default=None, help="processes of one thread each; default: one a core"
    )
    commands.add_parser("new", help="write a new chapter that runs, to begin from").add_argument("name")
    commands.add_parser("networks", help="list the published networks")
    commands.add_parser("build", help="execute what has changed at quick and render the book")
    commands.add_parser("site", help="render the published edition")
    commands.add_parser("references", help="renew the notebooks and the outputs that nbval compares")
    fetch = commands.add_parser("data", help="download the public data sets with their checksums")
    fetch.add_argument("names", nargs="*", default=list(data.PUBLIC), metavar="NAME")
    fetch.add_argument("--root", default=None)
    own = commands.add_parser("fonts", help="make the data set fonts of the TTF and OTF files in a folder")
    own.add_argument("folder", metavar="FOLDER")
    own.add_argument(
        "--out", metavar="FILE", default=None, help="default: fonts/prototypes.npz in the data root"
    )
    look = commands.add_parser(
        "examine",
        help="a model of your own: accuracy, attack, masking, blind spots, as a page and a JSON file",
    )
    look.add_argument("model", metavar="MODEL", help="package.module:function, or a published network's name")
    look.add_argument(
        "--weights", metavar="FILE", default=None, help="safetensors file for the function's model"
    )
    look.add_argument("--data", required=True, help="a data set's name, a folder of folders, or an .npz file")
    look.add_argument("--eps", type=float, default=0.3, help="linf radius, default 0.3")
    look.add_argument("--n", type=int, default=1000, help="images attacked, default 1000")
    look.add_argument("--seed", type=int, default=0)
    look.add_argument("--out", metavar="FOLDER", default=".", help="where the page and the JSON file go")
    look.add_argument("--force", action="store_true", help="write over what is there")
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command](options)
    except (
        pipeline.PipelineError,
        data.DataError,
        training.TrainingError,
        storage.CacheError,
        ValueError,
        OSError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: nothing was replaced; the next run goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    pipeline.run(options.chapter, options.profile, _parameters(options))
    folder = pipeline.build_folder() / options.profile
    if pipeline.has_claims(options.chapter):
        print(scoreboard.terminal_scoreboard([results.read(folder / "results" / f"{options.chapter}.json")]))
    print(f"executed notebook: {folder / options.chapter}.ipynb")


def _publish(options: argparse.Namespace) -> None:
    renewed = pipeline.publish(options.chapter, options.profile, _parameters(options))
    print(f"published: {renewed}")
    if renewed.suffix == ".safetensors":
        print("the page stays as it is: it has rows that this run did not measure")


def _check(options: argparse.Namespace) -> None:
    failed = []
    for chapter in options.chapters or pipeline.checkable():
        report = pipeline.check(chapter)
        print(report.text())
        failed += [chapter] * bool(report.disagreeing)
    if failed:
        raise pipeline.PipelineError(f"published outcomes disagree in {', '.join(failed)}")


def _train(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    catalogue.train(options.names, workers=options.workers)


def _networks(options: argparse.Namespace) -> None:
    print(f"{'name':26} {'data':14} {'accuracy':>8}  {'trained against':22} {'minutes':>7} {'MiB':>5}")
    for found in catalogue.table():
        minutes = found["certificate"]["seconds"] / 60
        accuracy = "-" if found["accuracy"] is None else f"{found['accuracy']:.2f}%"
        print(
            f"{found['network']:26} {found['dataset']:14} {accuracy:>8}  {found['radius']:22} "
            f"{minutes:7.1f} {found['bytes'] / 2**20:5.1f}"
        )


def _new(options: argparse.Namespace) -> None:
    for path in pipeline.new(options.name):
        print(f"written: {path}")
    print("next: make references, which makes its notebook")


def _build(options: argparse.Namespace) -> None:
    page = pipeline.book()
    print(scoreboard.terminal_scoreboard(pipeline.read_all(pipeline.build_folder() / "quick" / "results")))
    print(f"open {page}")


def _site(options: argparse.Namespace) -> None:
    print(f"open {pipeline.render(provenance.repository())}")


def _references(options: argparse.Namespace) -> None:
    print(f"renewed: {', '.join(pipeline.renew_references())}")


def _data(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data.fetch(options.names, options.root)


def _fonts(options: argparse.Namespace) -> None:
    out = Path(options.out or data.find_root() / "fonts" / "prototypes.npz")
    if out.exists():
        raise FileExistsError(
            f"{out} exists and was left as it is; delete it, or write another one with --out"
        )
    prototypes, names, skipped = fonts.prototypes_of(options.folder)
    for reason in skipped.values():
        print(f"skipped: {reason}")
    fonts.write_prototypes(prototypes, names, out)
    print(f"{len(names)} fonts used, {len(skipped)} skipped: {out}")
    print("data.load('fonts') reads it where it is fonts/prototypes.npz below the data root")


def _examine(options: argparse.Namespace) -> None:
    name = re.sub(r"[^\w.-]+", "_", options.model)
    page, numbers = (Path(options.out) / f"{name}.{kind}" for kind in ("html", "json"))
    for path in (page, numbers):
        if path.exists() and not options.force:
            raise FileExistsError(
                f"{path} exists and was left as it is; --force writes over it, --out elsewhere"
            )
    sys.path.insert(0, "")  # where a module in the current folder is found
    model = models.find(options.model, options.weights)
    test = own_data.test_images(options.data)
    found = examine.examine(
        model,
        test,
        eps=options.eps,
        n=options.n,
        seed=options.seed,
        label=options.model,
        report=functools.partial(print, flush=True),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    storage.write_atomically(numbers, lambda partial: partial.write_text(text, encoding="utf-8"))
    storage.write_atomically(page, lambda partial: partial.write_text(found.page(), encoding="utf-8"))
    print(found.answer())
    for flag in found.flags:
        print(f"flag: {flag}")
    print(f"written: {page} and {numbers}")


COMMANDS = {
    "examine": _examine,
    "run": _run,
    "check": _check,
    "train": _train,
    "networks": _networks,
    "new": _new,
    "publish": _publish,
    "build": _build,
    "site": _site,
    "references": _references,
    "data": _data,
    "fonts": _fonts,
}


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    return {name: _typed(value) for name, value in options.parameters}


def _typed(text: str) -> Any:
    """A number, list, None or truth value where the text is one, else the text itself: so with commas alone."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return text if isinstance(value, tuple) else value


if __name__ == "__main__":
    sys.exit(main())
