"""A chapter's text as cells, parameters set; the commit of the tree that travelled without its .git."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("TREE") or HERE.parent)  # a copy of the tree, robustutils beside chapters
sys.path[:0] = [str(ROOT), str(HERE), str(HERE / "stubs")]


def commit_of_the_tree():
    """Certificates get the commit that .gpu/commit names, where there is no .git."""
    from robustutils import provenance

    note = HERE / "commit"
    if note.exists() and not (provenance.repository() / ".git").exists():
        said = note.read_text().strip()
        provenance.git_commit = lambda: said


def cells(chapter):
    """The code cells of a chapter in order: (number of the line, tags, text)."""
    lines = (ROOT / "chapters" / f"{chapter}.py").read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("# %%")] + [len(lines)]
    found = []
    for first, last in zip(starts, starts[1:]):
        if "[markdown]" not in lines[first]:
            found.append((first + 2, lines[first], "\n".join(lines[first + 1 : last])))
    return found


def with_parameters(text, parameters):
    """The parameters cell with other values; all names must be there."""
    for name, value in parameters.items():
        text, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value!r}  ", text, flags=re.M)
        assert count == 1, f"no parameter {name}"
    return text


def parsed(pairs):
    """Values as papermill reads them: integers, numbers, else text."""
    found = {}
    for name, text in pairs:
        for kind in (int, float, str):
            try:
                found[name] = kind(text)
            except ValueError:
                continue
            break
    return found


def prepare(chapter, namespace, texts):
    """Execute some texts (line, text) of a chapter in a namespace."""
    for line, text in texts:
        code = compile("\n" * (line - 1) + text, str(ROOT / "chapters" / f"{chapter}.py"), "exec")
        exec(code, namespace)
