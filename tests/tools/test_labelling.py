"""Label it yourself, without a browser: a scripted labeller, files that are not what they should be, the static strip."""

import base64
import io
import re
from collections import Counter
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustutils.figures import png
from robustutils.tools import labelling
from robustutils.tools.labelling import HEADER, NO_CONSENSUS, NO_DIGIT, Session

SETS = ["clean"] * 5 + ["l0"] * 7
IMAGES = (torch.arange(12) / 255).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
"""Image i is grey i, so that the scripted labeller knows which one it sees."""
CLEAN = torch.tensor([3, 1, 4, 1, 5])
ORIGINALS = torch.tensor([0, 1, 2, 3, 4, 5, 6])
SEEN = torch.tensor([7, 1, 2, 8, 9, NO_DIGIT, 6])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "answers.csv"


def index(image: Tensor) -> int:
    return int((image * 255).round().max())


def work(session: Session, says: Tensor, limit: int = 100) -> list[int]:
    """The scripted labeller: says the label of each image that it is shown; returns which it saw."""
    shown = []
    while not session.done and len(shown) < limit:
        shown.append(index(session.current()))
        session.answer(int(says[shown[-1]]))
    return shown


ALL = torch.cat([CLEAN, SEEN])


# ---- one labeller ----


def test_every_image_is_shown_once_and_each_answer_is_saved_under_its_set_and_place(path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(labelling.time, "monotonic", lambda: now)
    session = Session(IMAGES, SETS, path)
    assert not path.exists(), "a file before there is an answer"
    shown = []
    while not session.done:
        shown.append(index(session.current()))
        now += 1.5
        session.answer(int(ALL[shown[-1]]))
        assert len(path.read_text().splitlines()) == 1 + len(shown), "an answer was not saved at once"
    assert sorted(shown) == list(range(12))
    assert session.progress == (12, 12)
    lines = path.read_text().splitlines()
    places = [("clean", i) for i in range(5)] + [("l0", i) for i in range(7)]
    expected = [f"{places[i][0]},{places[i][1]},{ALL[i]},1.500,{order}" for order, i in enumerate(shown)]
    assert lines == [HEADER, *expected]


def test_the_order_is_random_mixes_the_sets_and_comes_from_the_seed(tmp_path):
    orders = [work(Session(IMAGES, SETS, tmp_path / f"{i}", seed), ALL) for i, seed in enumerate((0, 0, 1))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != sorted(orders[0])
    assert {SETS[i] for i in orders[0][:6]} == {"clean", "l0"}


def test_a_session_goes_on_where_another_stopped(path, tmp_path):
    whole = work(Session(IMAGES, SETS, tmp_path / "whole"), ALL)
    before = work(Session(IMAGES, SETS, path), ALL, limit=5)
    session = Session(IMAGES, SETS, path)
    assert session.progress == (5, 12)
    assert before + work(session, ALL) == whole
    assert session.done
    assert Session(IMAGES, SETS, path).done, "a finished file"
    assert {answer[:3] for answer in labelling.answers(path)} == {
        answer[:3] for answer in labelling.answers(tmp_path / "whole")
    }


@pytest.mark.parametrize("anew", [False, True], ids=["same session", "resumed"])
def test_undo_takes_back_the_last_answer_and_no_more(path, anew):
    session = Session(IMAGES, SETS, path)
    work(session, ALL, limit=2)
    kept, shown = path.read_bytes(), index(session.current())
    session.answer(9)
    if anew:
        session = Session(IMAGES, SETS, path)
    session.undo()
    assert path.read_bytes() == kept
    assert index(session.current()) == shown
    session.answer(NO_DIGIT)
    assert labelling.answers(path)[-1].label == NO_DIGIT
    for _ in range(3):
        session.undo()
    assert path.read_text() == f"{HEADER}\n"
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo()
    work(session, ALL)
    assert path.read_text().count(HEADER) == 1, "a second header"


def test_what_is_no_answer_is_refused_and_nothing_saved(path):
    session = Session(IMAGES, SETS, path)
    for label in (10, -2, 2.5):
        with pytest.raises(ValueError, match=f"label={label}"):
            session.answer(label)
    assert not path.exists()
    work(session, ALL)
    for refused in (session.current, lambda: session.answer(1)):
        with pytest.raises(ValueError, match="all 12"):
            refused()
    assert len(labelling.answers(path)) == 12


def test_two_sessions_on_one_file_do_not_mix(path):
    first, second = (Session(IMAGES, SETS, path) for _ in range(2))
    first.answer(1)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match="something else has changed it"):
        second.answer(2)
    first.answer(3)
    first.undo()
    assert path.read_bytes() == kept
    Session(IMAGES, SETS, path).answer(4)
    with pytest.raises(ValueError, match="changed"):
        first.undo()


ROWS = f"{HEADER}\nclean,0,3,1.000,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("name,price\nbread,3\n", "begins with 'name,price'"),
        (b"\x89PNG\r\n\xff\xfe", "begins with"),
        (ROWS + "l0,1,2", "cut off"),
        (HEADER, "cut off"),
        (ROWS + "l0,1,12,1.000,1\n", "line 3 is 'l0,1,12,1.000,1'"),
        (ROWS + "l0,1,seven,1.000,1\n", "l0,1,seven"),
        (ROWS + "l0,1,7,1.000,2\n", "order 1"),
        (ROWS + "\n", "line 3 is ''"),
        (ROWS + "clean,0,7,1.000,1\n", "clean 0 again"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_and_left_alone(tmp_path, text, message):
    path = tmp_path / "file.csv"
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    for use in (lambda: Session(IMAGES, SETS, path), lambda: labelling.consensus([path])):
        with pytest.raises(ValueError, match=re.escape(message)) as told:
            use()
        assert str(path) in str(told.value)
    assert path.read_bytes() == content


def test_a_file_of_another_session_is_refused(path):
    work(Session(IMAGES, SETS, path, seed=3), ALL)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"seed=4.*another session"):
        Session(IMAGES, SETS, path, seed=4)
    with pytest.raises(ValueError, match="another session"):
        Session(IMAGES, ["linf"] * 12, path, seed=3)
    with pytest.raises(ValueError, match=r"12 answers.* 11 images"):
        Session(IMAGES[:11], SETS[:11], path, seed=3)
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("images", "sets", "message"),
    [
        (IMAGES, SETS[:-1], "11 names.* 12 images"),
        (IMAGES, [*SETS[:-1], "l0, new"], "set 'l0, new'"),
        (IMAGES, [*SETS[:-1], ""], "set ''"),
        (IMAGES[:0], [], r"images.*\(0, 1, 28, 28\)"),
        (IMAGES[:, 0], SETS, r"images.*\(12, 28, 28\)"),
        (IMAGES * 255, SETS, "pixels from 0 to 11"),
        (IMAGES / 0, SETS, "pixels from nan"),
    ],
)
def test_images_and_sets_that_do_not_fit_are_refused(path, images, sets, message):
    with pytest.raises(ValueError, match=message):
        Session(images, sets, path)


# ---- the widget, without a browser ----


class Shown:
    """A widget by its parts."""

    def __init__(self, session: Session) -> None:
        self.picture, self.status, self.field, row = labelling.widget(session).children
        self.buttons = {button.description: button for button in row.children}

    def type(self, text: str) -> None:
        """As the browser does it."""
        self.field.set_state({"value": text})


def test_buttons_label_undo_and_move_on(path):
    session = Session(IMAGES, SETS, path)
    shown = Shown(session)
    assert list(shown.buttons) == [*map(str, range(10)), "no digit", "undo"]
    assert shown.status.value == "Image 1 of 12."
    assert shown.buttons["undo"].disabled
    seen = []
    while not session.done:
        seen.append(shown.picture.value)
        label = int(ALL[index(session.current())])
        shown.buttons["no digit" if label == NO_DIGIT else str(label)].click()
    assert Counter(seen) == Counter(png(image) for image in IMAGES)
    assert shown.status.value == "All 12 images are labelled."
    assert shown.picture.layout.display == "none"
    assert all(button.disabled == (name != "undo") for name, button in shown.buttons.items())
    assert torch.equal(labelling.consensus([path])["l0"].labels, SEEN)
    shown.buttons["undo"].click()
    assert session.progress == (11, 12)
    assert shown.picture.value == seen[-1]
    assert shown.picture.layout.display is None


def test_keys_label_and_empty_the_field(path, monkeypatch):
    session = Session(IMAGES, SETS, path)
    shown = Shown(session)
    sent: list[str] = []
    monkeypatch.setattr(ipywidgets.Text, "send_state", lambda self, key=None: sent.append(getattr(self, key)))
    for key in "7xX0":
        shown.type(key)
        assert shown.field.value == ""
        assert sent.pop() == "", "the field in the browser keeps its text"
    assert [answer.label for answer in labelling.answers(path)] == [7, NO_DIGIT, NO_DIGIT, 0]
    shown.type("u")
    assert shown.status.value == "Image 4 of 12."
    assert session.progress == (3, 12)


@pytest.mark.parametrize("text", ["77", "q", "²", " "])
def test_other_keys_and_two_at_once_are_refused_and_told(path, text):
    session = Session(IMAGES, SETS, path)
    shown = Shown(session)
    shown.type(text)
    assert session.progress == (0, 12)
    assert shown.status.value.startswith(f"Image 1 of 12. {text!r} is no answer: one key an image")
    assert shown.field.value == ""
    shown.type("7")
    assert shown.status.value == "Image 2 of 12."


def test_the_widget_tells_what_the_session_refuses(path):
    session = Session(IMAGES, SETS, path)
    shown = Shown(session)
    shown.type("u")
    assert "nothing to undo" in shown.status.value
    path.parent.mkdir()
    path.write_text("mine\n")
    shown.buttons["3"].click()
    assert "changed" in shown.status.value
    assert path.read_text() == "mine\n"


def test_the_picture_is_the_image_in_large_pixels():
    image = torch.linspace(0, 1, 28 * 28).view(1, 28, 28)
    picture = np.asarray(Image.open(io.BytesIO(png(image))))
    assert picture.shape == (224, 224)
    small = image[0].mul(255).round().numpy()
    assert (picture == np.kron(small, np.ones((8, 8)))).all()


# ---- what the answers say ----


def labellers(folder: Path, *says: Tensor) -> list[Path]:
    paths = [folder / f"{number}.csv" for number in range(len(says))]
    for seed, (path, labels) in enumerate(zip(paths, says, strict=True)):
        work(Session(IMAGES, SETS, path, seed), labels)
    return paths


def test_one_labeller_gives_the_rows_of_the_figure_and_the_table(tmp_path):
    (path,) = labellers(tmp_path, ALL)
    found = labelling.consensus([path])
    assert found.keys() == {"clean", "l0"}
    assert torch.equal(found["l0"].places, torch.arange(7))
    assert labelling.right(found["clean"].labels, CLEAN).all()
    assert not labelling.success(found["clean"].labels, CLEAN).any()
    human = found["l0"].labels
    # "No digit" for image 5 is no new label.
    assert labelling.success(human, ORIGINALS).tolist() == [True, False, False, True, True, False, False]
    predictions = torch.tensor([7, 1, 2, 3, 9, 5, 6])
    assert labelling.agreement(predictions, human, ORIGINALS).tolist() == [True, False, True]
    assert not labelling.agreement(ORIGINALS, human, ORIGINALS).any(), "the floor of Table 1 is 0"


def test_consensus_needs_its_share(tmp_path):
    """Seven, six and five of ten say the new label for images 0, 3 and 4 of l0; the others the original one."""
    says = []
    for person in range(10):
        labels = torch.cat([CLEAN, ORIGINALS])
        labels[5] = 7 if person < 7 else 0
        labels[8] = 8 if person < 6 else 3
        labels[9] = 9 if person < 5 else 4
        says.append(labels)
    paths = labellers(tmp_path, *says)
    decided = labelling.consensus(paths)["l0"].labels
    assert decided.tolist() == [7, 1, 2, NO_CONSENSUS, NO_CONSENSUS, 5, 6]
    assert labelling.success(decided, ORIGINALS).tolist() == [True] + 6 * [False]
    assert labelling.consensus(paths, 0.6)["l0"].labels.tolist() == [7, 1, 2, 8, NO_CONSENSUS, 5, 6]
    unanimous = labelling.consensus(paths, 1.0)
    assert unanimous["l0"].labels.tolist() == [NO_CONSENSUS, 1, 2, NO_CONSENSUS, NO_CONSENSUS, 5, 6]
    assert labelling.right(unanimous["clean"].labels, CLEAN).all()


def test_an_unfinished_session_is_evaluated_over_what_it_holds(tmp_path):
    path = tmp_path / "early.csv"
    shown = work(Session(IMAGES, SETS, path), ALL, limit=6)
    found = labelling.consensus([path])
    expected = sorted(i - 5 for i in shown if SETS[i] == "l0")
    assert found["l0"].places.tolist() == expected
    assert torch.equal(found["l0"].labels, SEEN[found["l0"].places])
    assert labelling.success(found["l0"].labels, ORIGINALS[found["l0"].places]).shape == (len(expected),)


def test_wrong_shares_lengths_and_labels_are_refused(tmp_path):
    paths = labellers(tmp_path, ALL)
    for share in (0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"share={share}"):
            labelling.consensus(paths, share)
    with pytest.raises(ValueError, match="one file"):
        labelling.consensus([])
    with pytest.raises(ValueError, match=r"labels \(7,\), originals \(5,\)"):
        labelling.success(SEEN, CLEAN)
    with pytest.raises(ValueError, match=r"predictions \(1,\), labels \(7,\)"):
        labelling.agreement(SEEN[:1], SEEN, ORIGINALS)
    with pytest.raises(ValueError, match=r"originals.* -1 "):
        labelling.right(ORIGINALS, SEEN)
    with pytest.raises(ValueError, match=r"predictions.* 10 "):
        labelling.agreement(ORIGINALS + 4, SEEN, ORIGINALS)
    with pytest.raises(ValueError, match=r"labels.* -3 "):
        labelling.success(SEEN - 2, ORIGINALS)


# ---- the strip ----

HUMAN = [*range(10), NO_DIGIT, NO_CONSENSUS]
BEFORE = [3] * 12
MODELS = {"CNN": [3] * 12, "ABS <b>&": torch.tensor([4] * 12)}


def test_the_strip_shows_every_example_with_its_answers_behind_a_click():
    html = labelling.strip(IMAGES, HUMAN, BEFORE, MODELS).data
    items = re.findall("<li.*?</li>", html, re.DOTALL)
    assert len(items) == 12
    assert html.count("<details>") == html.count("</details>") == 12
    for number, (item, human) in enumerate(zip(items, [*range(10), "no digit", "no consensus"], strict=True)):
        rows = re.findall(r"<dt[^>]*>(.*?)</dt><dd[^>]*>(.*?)</dd>", item.split("<details>")[1])
        assert rows == [
            ("people", str(human)), ("original", "3"), ("CNN", "3"), ("ABS &lt;b&gt;&amp;", "4"),
        ]  # fmt: skip
        assert f'alt="Example {number + 1}: which digit is it?"' in item
        source = re.findall(r'src="data:image/png;base64,([^"]+)"', item)
        assert [base64.b64decode(text) for text in source] == [png(IMAGES[number])]
        assert "<dd" not in item.split("<details>")[0], "an answer before the click"


def test_the_strip_escapes_captions():
    html = labelling.strip(IMAGES[:1], [7], [2], {}, ['<script>"&']).data
    assert "<script>" not in html
    assert html.count("&lt;script&gt;&quot;&amp;") == 2, "alt text and summary"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"human": HUMAN[:11]}, r"people \(11,\), original \(12,\)"),
        ({"answers": {"CNN": [3] * 11}}, r"CNN \(11,\)"),
        ({"images": IMAGES[:11]}, "11 images, 12 labels, 11 captions"),
        ({"captions": ["one"]}, "12 images, 12 labels, 1 captions"),
        ({"originals": HUMAN}, "original: -1 "),
        ({"answers": {"CNN": [10] * 12}}, "CNN.* 10 "),
        ({"answers": {"people": [1] * 12}}, "taken"),
        ({"images": IMAGES * 255}, "pixels"),
    ],
)
def test_a_strip_that_does_not_fit_is_refused(change, message):
    arguments = {"images": IMAGES, "human": HUMAN, "originals": BEFORE, "answers": MODELS, **change}
    with pytest.raises(ValueError, match=message):
        labelling.strip(**arguments)
