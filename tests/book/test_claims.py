"""Declarations of chapters: every row they state, where it stands, and every mistake in them."""

from dataclasses import FrozenInstanceError

import pytest
from declared import declared, load

PAPER = '[paper]\nkey = "EAT"\ntitle = "Ensembles"\nurl = "https://example.org"\n[titles]\nX = "A claim"\n'
BLOCK = '[[claims]]\nid = "X"\nstatement = "s"\n'
CRITERION = "criterion = { kind = 'within', points = 5 }\n"
ROW = "rows = [{ row = 'a', paper = 1 }]\n"
CLAIMS = declared(
    """
[parameters]
epochs = { range = [1, 9], values = 6, protocol = 6 }

[[claims]]
id = "EAT-T7"
statement = "Training on FGSM lowers the white-box error."
unit = "%"
criterion = { kind = "within", points = 5, relative = 0.25, direction = "below" }
min_n = 100
min_seeds = 2
at = { training = "adv" }
reference = { training = "standard" }
line = "{architecture}_{training} eps={eps:g}"
keys = ["architecture", "eps"]
columns = ["FGSM", "R+FGSM"]
cells = [
  ["C", 0.3, 81.8, nan],
  ["D", 0.1, 3.7, 17.1],
]
except = [{ at = { architecture = "D" }, fidelity = "code_variant" }]
[[claims.rows]]
row = "transferred"
paper = 25.6
statement = "Transfer is stronger."
criterion = { kind = "greater", null = 0.0 }
at = { architecture = "C" }
minus = { training = "standard" }
""",
    top='depends_on = ["epochs"]',
).replace("0.25]", "0.25], at = { k = [4, 16] }")


def _claims(folder, text=CLAIMS, chapter="eat"):
    return load(folder, text, chapter)


def test_every_cell_and_every_explicit_row_is_a_row(tmp_path):
    claims = _claims(tmp_path)
    assert [(row.id, row.row, row.paper) for row in claims.rows] == [
        ("EAT-T7", "C_adv eps=0.3 | FGSM", 81.8),
        ("EAT-T7", "D_adv eps=0.1 | FGSM", 3.7),
        ("EAT-T7", "D_adv eps=0.1 | R+FGSM", 17.1),
        ("EAT-T7", "transferred", 25.6),
        ("EAT-L7", "k = 4", (0.5, 0.25)),
        ("EAT-T1", "v3", None),
    ]
    assert (claims.chapter, claims.paper["key"]) == ("eat", "EAT")
    cell, explicit = claims.rows[1], claims.rows[3]
    assert (cell.criterion.kind, cell.min_n, cell.min_seeds, cell.unit) == ("within", 100, 2, "%")
    assert (explicit.criterion.kind, explicit.statement) == ("greater", "Transfer is stronger.")
    assert claims.rows[-1].needs == "ImageNet"
    assert [row.title for row in claims.rows][3:5] == ["Single steps <b> (Table 7)", "The bound (Lemma 7)"]
    assert list(claims.titles) == ["EAT-T1", "EAT-T7", "EAT-L7"], "in the order of the file's [titles]"


def test_rows_have_coordinates_a_reference_and_a_fidelity(tmp_path):
    first, cell, _, explicit, lemma, _ = _claims(tmp_path).rows
    assert cell.at == {"training": "adv", "architecture": "D", "eps": 0.1, "quantity": "FGSM"}
    assert cell.reference == {"training": "standard"}
    assert explicit.minus == {"training": "standard"}
    assert (first.fidelity, cell.fidelity, explicit.fidelity) == ("exact", "code_variant", "exact")
    assert (cell.depends_on, lemma.depends_on) == (("epochs",), ())


def test_a_row_is_found_by_its_coordinates(tmp_path):
    claims = _claims(tmp_path)
    assert claims.find(["EAT-T7"], {"architecture": "D", "quantity": "FGSM"}).row == "D_adv eps=0.1 | FGSM"
    assert claims.find(["EAT-L7", "EAT-T7"], {"eps": 0.3}).row == "C_adv eps=0.3 | FGSM"
    assert claims.find(["EAT-T7"], {"architecture": "E"}) is None
    with pytest.raises(ValueError, match=r"'D_adv eps=0.1 \| FGSM', 'D_adv eps=0.1 \| R"):
        claims.find(["EAT-T7"], {"architecture": "D"})
    assert claims.coordinates(["EAT-T7"], ("architecture", "eps")) == [("C", 0.3), ("D", 0.1)]
    assert claims.coordinates(["EAT-T7"], ("eps",), architecture="D") == [(0.1,)]
    assert claims.coordinates(["EAT-L7"], ("k",)) == [], "a sequence is no single place"


def test_the_hash_is_that_of_the_content(tmp_path):
    first = _claims(tmp_path)
    assert len(first.sha256) == 64
    assert _claims(tmp_path, chapter="other").sha256 == first.sha256
    assert _claims(tmp_path, CLAIMS + "# later\n").sha256 != first.sha256


def test_a_page_without_a_paper_has_parameters_alone(tmp_path):
    claims = _claims(tmp_path, "[parameters]\nepochs = { range = [1, 9], values = 6 }\n")
    assert (list(claims.parameters), claims.rows, claims.titles) == (["epochs"], (), {})


def test_a_claim_may_have_several_blocks_and_what_is_not_run_needs_no_number(tmp_path):
    blocks = (BLOCK + f"rows = [{{ row = '{name}' }}]\nneeds = 'ImageNet'\n{CRITERION}" for name in "ab")
    claims = _claims(tmp_path, PAPER + "".join(blocks))
    assert [(row.id, row.row, row.paper) for row in claims.rows] == [("X", "a", None), ("X", "b", None)]


TABLE = "line = '{a}'\nkeys = ['a']\ncolumns = ['x', 'y']\n"


@pytest.mark.parametrize(("text", "expected"), [
    ("[paper", "table"),
    (CLAIMS.replace('url = "https://example.org"', ""), "key 'url' is missing"),
    (CLAIMS + "[extra]\n", "'extra'.*paper, parameters"),
    (PAPER + "[[claims]]\nstatement = 's'\n", "'id' is missing"),
    (PAPER + BLOCK + "criteria = 1\n", "'X': unknown key 'criteria'.*'criterion'"),
    (PAPER + BLOCK + "min_n = -1\n", "'X': 'min_n'.* -1"),
    (PAPER + BLOCK + "min_n = true\n", "'X': 'min_n'.* True"),
    (PAPER + BLOCK + "unit = 1\n", "'X': 'unit'.* 1"),
    (PAPER + BLOCK + CRITERION, "'X'.*no rows"),
    (PAPER + BLOCK.replace("X", "Y") + ROW, "'Y'.*no title"),
    (PAPER.replace("X =", "Y =") + BLOCK.replace("X", "X") + ROW, "'X'.*no title"),
    (PAPER + "Y = 'unused'\n" + BLOCK + CRITERION + ROW, "title.*'Y'.* X"),
    (PAPER + BLOCK + ROW, "'X'.*'a'.*'criterion' is missing"),
    (PAPER + BLOCK + CRITERION + "rows = [{ row = 'a' }]\n", "'a'.*'within'.*'paper'"),
    (PAPER + BLOCK + CRITERION + ROW.replace("1", "[1, 2]"), "'paper' as a number"),
    (PAPER + BLOCK + CRITERION + ROW.replace("1", "nan"), "'paper'.* nan"),
    (PAPER + BLOCK + CRITERION + ROW.replace("1", "'five'"), "'paper'.*finite"),
    (PAPER + BLOCK + "criterion = { kind = 'near' }\n" + ROW, "'X'.*'a'.*kind 'near'"),
    (PAPER + BLOCK + "criterion = { kind = 'rank', least = 1, most = 2 }\n" + ROW, "'rank'.*'most'"),
    (PAPER + BLOCK + CRITERION + "fidelity = 'close'\n" + ROW, "'a'.*fidelity 'close'"),
    (PAPER + BLOCK + CRITERION + "otherwise = 'close'\n" + ROW, "'a'.*fidelity 'close'"),
    (PAPER + BLOCK + CRITERION + "depends_on = ['epoch']\n" + ROW, "'X': depends_on.*'epoch'"),
    (PAPER + BLOCK + CRITERION + "except = [{ fidelity = 'exact' }]\n" + ROW, "'a'.*'at' is missing"),
    (PAPER + BLOCK + CRITERION + TABLE, "cells; .*line, keys, columns"),
    (PAPER + BLOCK + CRITERION + TABLE + "cells = [['C', 1]]\n", "1 coord.* 2 numbers"),
    (PAPER + BLOCK + CRITERION + "rows = [{ row = 'a', papper = 1 }]\n", "'a'.*'papper'"),
    (PAPER + BLOCK + CRITERION + "rows = [{ paper = 1 }]\n", "'row' is missing"),
    (PAPER + BLOCK + CRITERION + "rows = ['a']\n", "table of keys.*'a'"),
    (PAPER + BLOCK + CRITERION + "rows = [" + "{ row = 'a', paper = 1 }, " * 2 + "]\n", "'a'.* twice"),
    (PAPER + "[picture]\nids = ['X']\n", "key 'lines' is missing"),
    ("[parameters]\nx = { values = 1 }\n", "'x' needs"),
])  # fmt: skip
def test_a_wrong_declaration_is_an_error_that_says_where(tmp_path, text, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        _claims(tmp_path, text)
    assert "eat.toml" in str(caught.value)


def test_rows_cannot_be_changed(tmp_path):
    with pytest.raises(FrozenInstanceError):
        _claims(tmp_path).rows[0].paper = 1.0
