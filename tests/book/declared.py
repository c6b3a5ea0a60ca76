"""Declarations of claims with one head and two claims in common, for the tests of claims, studies and scoreboards."""

from pathlib import Path

from robustutils.book.claims import Claims

HEAD = """
[paper]
key = "EAT"
title = "Ensembles <1>"
url = "https://example.org"

[titles]
EAT-T1 = "ImageNet (Table 1)"
EAT-T7 = "Single steps <b> (Table 7)"
EAT-L7 = "The bound (Lemma 7)"
"""

OTHERS = """
[[claims]]
id = "EAT-L7"
statement = "The construction attains the bound."
depends_on = []
criterion = { kind = "exact", tolerance = 0.01 }
rows = [{ row = "k = 4", paper = [0.5, 0.25] }]

[[claims]]
id = "EAT-T1"
statement = "Step-LL transfers between large networks."
unit = "%"
needs = "ImageNet"
rows = [{ row = "v3" }]
"""


def declared(claims: str, top: str = "") -> str:
    """A declaration that adds parameters, a picture and claims to the shared ones, and keys at its top."""
    return f"{top}\n{HEAD}{claims}{OTHERS}"


def load(folder: Path, text: str, chapter: str = "eat") -> Claims:
    """The claims of a declaration, from a file of that chapter's name."""
    path = folder / f"{chapter}.toml"
    path.write_text(text)
    return Claims.load(path)
