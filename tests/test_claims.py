"""Claims files: every row they state, and every mistake in them."""

from dataclasses import FrozenInstanceError

import pytest

from robustutils.claims import Claims

BLOCK = '[[claims]]\nid = "X"\nstatement = "s"\n'
CRITERION = "criterion = { kind = 'within', points = 5 }\n"
PAPER = '[paper]\nkey = "EAT"\ntitle = "Ensembles"\nurl = "https://example.org"\n'
CLAIMS = (
    PAPER
    + """
[[claims]]
id = "EAT-T7"
statement = "Training on FGSM lowers the white-box error."
unit = "%"
criterion = { kind = "within", points = 5, relative = 0.25, direction = "below" }
min_n = 100
min_seeds = 2
columns = ["FGSM", "R+FGSM"]
table = { "C" = [81.8, nan], "C_adv" = [3.7, 17.1] }
[[claims.rows]]
row = "transferred minus white-box"
paper = 25.6
criterion = { kind = "greater", null = 0.0 }
statement = "Transfer is stronger."

[[claims]]
id = "EAT-L7"
statement = "The construction attains the bound."
criterion = { kind = "exact", tolerance = 1e-9 }
paper = [0.5, 0.25]

[[claims]]
id = "EAT-T1"
statement = "Step-LL transfers between large networks."
unit = "%"
needs = "ImageNet"
"""
)


def _claims(folder, text=CLAIMS, name="eat.claims.toml"):
    path = folder / name
    path.write_text(text)
    return Claims.load(path)


def test_every_cell_and_every_explicit_row_is_a_row(tmp_path):
    claims = _claims(tmp_path)
    assert [(row.id, row.row, row.paper) for row in claims.rows] == [
        ("EAT-T7", "C | FGSM", 81.8),
        ("EAT-T7", "C_adv | FGSM", 3.7),
        ("EAT-T7", "C_adv | R+FGSM", 17.1),
        ("EAT-T7", "transferred minus white-box", 25.6),
        ("EAT-L7", "EAT-L7", (0.5, 0.25)),
        ("EAT-T1", "EAT-T1", None),
    ]
    assert claims.chapter == "eat"
    assert claims.paper["key"] == "EAT"
    cell, explicit = claims.rows[1], claims.rows[3]
    assert (cell.criterion.kind, cell.min_n, cell.min_seeds, cell.unit) == ("within", 100, 2, "%")
    assert (explicit.criterion.kind, explicit.statement) == ("greater", "Transfer is stronger.")
    assert claims.rows[-1].needs == "ImageNet"


def test_the_hash_is_that_of_the_content(tmp_path):
    first = _claims(tmp_path)
    assert len(first.sha256) == 64
    assert _claims(tmp_path, name="other.claims.toml").sha256 == first.sha256
    assert _claims(tmp_path, CLAIMS + "# later\n").sha256 != first.sha256


def test_a_claim_may_have_several_blocks_and_what_is_not_run_needs_no_number(tmp_path):
    blocks = (BLOCK + f"rows = [{{ row = '{name}' }}]\nneeds = 'ImageNet'\n{CRITERION}" for name in "ab")
    claims = _claims(tmp_path, PAPER + "".join(blocks))
    assert [(row.id, row.row, row.paper) for row in claims.rows] == [("X", "a", None), ("X", "b", None)]


@pytest.mark.parametrize(("text", "expected"), [
    ("[paper", "Expected ']' at the end of a table"),
    (PAPER, "key 'claims' is missing"),
    (CLAIMS.replace('url = "https://example.org"', ""), "key 'url' is missing"),
    (CLAIMS + "[extra]\n", "unknown key 'extra'; allowed: paper, claims"),
    (PAPER + "[[claims]]\nstatement = 's'\n", "claim None: key 'id' is missing"),
    (PAPER + BLOCK + "criteria = 1\n", "claim 'X': unknown key 'criteria'; allowed: id, columns"),
    (PAPER + BLOCK + "min_n = -1\n", "claim 'X': 'min_n' has the wrong type or range: -1"),
    (PAPER + BLOCK + "min_n = true\n", "claim 'X': 'min_n' has the wrong type or range: True"),
    (PAPER + BLOCK + "unit = 1\n", "claim 'X': 'unit' has the wrong type or range: 1"),
    (PAPER + BLOCK, "claim 'X': row 'X': key 'criterion' is missing"),
    (PAPER + BLOCK + CRITERION, "claim 'X': row 'X': criterion 'within' needs 'paper' as a number, got None"),
    (PAPER + BLOCK + CRITERION + "paper = [1, 2]\n", "needs 'paper' as a number, got"),
    (PAPER + BLOCK + CRITERION + "paper = nan\n", "'paper' must be a finite number or a list of them, got nan"),
    (PAPER + BLOCK + CRITERION + "paper = 'five'\n", "'paper' must be a finite number"),
    (PAPER + BLOCK + "criterion = { kind = 'near' }\n", "claim 'X': row 'X': unknown criterion kind 'near'"),
    (PAPER + BLOCK + "criterion = { kind = 'rank', least = 1, most = 2 }\n", "'rank' has unknown key 'most'"),
    (PAPER + BLOCK + "columns = ['a', 'b']\ntable = { 'C' = [1] }\n", "'C' needs one number for each of the 2"),
    (PAPER + BLOCK + "paper = 1\n" + CRITERION + "rows = [{ row = 'a', paper = 1 }]\n", "'paper' stands with each row"),
    (PAPER + BLOCK + CRITERION + "rows = [{ row = 'a', papper = 1 }]\n", "row 'a': unknown key 'papper'"),
    (PAPER + BLOCK + CRITERION + "rows = [{ paper = 1 }]\n", "row None: key 'row' is missing"),
    (PAPER + BLOCK + CRITERION + "rows = ['a']\n", "row None: expected a table of keys, got 'a'"),
    (PAPER + BLOCK + CRITERION + "rows = [" + "{ row = 'a', paper = 1 }, " * 2 + "]\n", "row 'a' appears twice"),
    (PAPER + (BLOCK + "needs = 'time'\n") * 2, "claim 'X': row 'X' appears twice"),
])  # fmt: skip
def test_a_wrong_claims_file_is_an_error_that_says_where(tmp_path, text, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        _claims(tmp_path, text)
    assert "eat.claims.toml" in str(caught.value)


def test_a_claims_file_has_its_own_ending(tmp_path):
    with pytest.raises(ValueError, match=r"is called NAME\.claims\.toml"):
        _claims(tmp_path, name="eat.toml")


def test_rows_cannot_be_changed(tmp_path):
    with pytest.raises(FrozenInstanceError):
        _claims(tmp_path).rows[0].paper = 1.0
