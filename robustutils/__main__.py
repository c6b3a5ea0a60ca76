"""Command line of the book: ``python -m robustutils run | build | site | publish | references | data``."""

import argparse
import ast
import logging
import sys
from typing import Any

from robustutils import data, evidence, pipeline, runs, scoreboard


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 for a failure, 2 for bad usage and 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m robustutils", description="Run, render and publish the book."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "execute one chapter into _build/<profile>/"),
        ("publish", "execute one chapter and make it the published edition in book/"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter")
        command.add_argument(
            "--profile", default="quick" if name == "run" else "standard", choices=runs.PROFILES
        )
        command.add_argument(
            "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
        )
    commands.add_parser("build", help="execute what has changed at quick and render the book")
    commands.add_parser("site", help="render the published edition")
    commands.add_parser("references", help="renew the notebooks and the outputs that nbval compares")
    fetch = commands.add_parser("data", help="download the public data sets with their checksums")
    fetch.add_argument("names", nargs="*", default=list(data.PUBLIC), metavar="NAME")
    fetch.add_argument("--root", default=None)
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command](options)
    except (pipeline.PipelineError, data.DataError, ValueError, OSError) as error:
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
    if pipeline.claims_path(options.chapter).exists():
        print(
            scoreboard.terminal_scoreboard(
                [evidence.read_results(folder / "results" / f"{options.chapter}.json")]
            )
        )
    print(f"executed notebook: {folder / options.chapter}.ipynb")


def _publish(options: argparse.Namespace) -> None:
    page = pipeline.publish(options.chapter, options.profile, _parameters(options))
    print(f"published: {page}")


def _build(options: argparse.Namespace) -> None:
    page = pipeline.book()
    print(scoreboard.terminal_scoreboard(pipeline.read_all(pipeline.build_folder() / "quick" / "results")))
    print(f"open {page}")


def _site(options: argparse.Namespace) -> None:
    print(f"open {pipeline.render(runs.repository())}")


def _references(options: argparse.Namespace) -> None:
    print(f"renewed: {', '.join(pipeline.renew_references())}")


def _data(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data.fetch(options.names, options.root)


COMMANDS = {
    "run": _run,
    "publish": _publish,
    "build": _build,
    "site": _site,
    "references": _references,
    "data": _data,
}


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    return {name: _typed(value) for name, value in options.parameters}


def _typed(text: str) -> Any:
    """A number, list, None or truth value where the text is one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    sys.exit(main())
