"""Label it yourself: one unknown image after the other, answers in a CSV file, and what they say (INV, section 5).

A labeller sees clean images and examples in random order without being told which is which. The answers of several
labellers make a consensus, and that the ground truth of the paper's figure 5a and Table 1. An answer is a digit or
``NO_DIGIT``; where too few agree the consensus is ``NO_CONSENSUS``.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import torch
from IPython.display import HTML
from torch import Tensor

from robustutils.figures import data_uri, png
from robustutils.storage import write_atomically

NO_DIGIT = -1
NO_CONSENSUS = -2
HEADER = "set,place,answer,seconds,order"
"""The first line of a file of answers."""
KEYS: Mapping[str, int] = {**{str(digit): digit for digit in range(10)}, "x": NO_DIGIT}
"""What a labeller types, and the answer that it gives."""
_NAME = r'[^,"\r\n]+'
_ROW = re.compile(rf"({_NAME}),([0-9]+),(-1|[0-9]),([0-9]+\.[0-9]+),([0-9]+)")


# ---- one labeller ----


class Answer(NamedTuple):
    """One answer: for which set and which place in it, the label, the seconds it took, and the how-manieth it was."""

    set: str
    place: int
    label: int
    seconds: float
    order: int


def answers(path: str | Path) -> list[Answer]:
    """All answers of a file, in the order in which they were given.

    Raises:
        ValueError: the file is damaged or something else than answers; names the line and what is allowed.
    """
    head, *rows = Path(path).read_bytes().decode(errors="replace").split("\n")
    if head != HEADER:
        raise ValueError(
            f"{path} begins with {head[:80]!r}: a file of answers begins with the line {HEADER!r}"
        )
    if not rows or rows.pop():
        raise ValueError(f"{path} is damaged: its last line is cut off; remove that line to go on")
    found: dict[tuple[str, int], Answer] = {}
    for order, line in enumerate(rows):
        row = _ROW.fullmatch(line)
        if row is None or int(row[5]) != order:
            raise ValueError(
                f"{path} is damaged: line {order + 2} is {line[:80]!r}; allowed are a set, a place from 0, "
                f"a label from 0 to 9 or {NO_DIGIT}, seconds and, here, the order {order}"
            )
        answer = Answer(row[1], int(row[2]), int(row[3]), float(row[4]), order)
        if answer[:2] in found:
            raise ValueError(
                f"{path} is damaged: line {order + 2} answers {row[1]} {row[2]} again; an image has one answer"
            )
        found[answer[:2]] = answer
    return list(found.values())


class Session:
    """A labeller at work: images [N, 1, H, W] of named sets in random order; each answer is saved at once.

    A file that exists is gone on with. The file is made by the first answer and belongs to this session alone.

    Args:
        images: float [N, 1, H, W] in [0, 1], clean ones among them.
        sets: the set of each image, N names; images of a set are told apart by their place in it, from 0.
        path: the CSV file; its parent folder is made.
        seed: of the order; another one for each labeller.

    Raises:
        ValueError: images, names or the file do not fit; nothing is written then.
    """

    def __init__(self, images: Tensor, sets: Sequence[str], path: str | Path, seed: int = 0) -> None:
        _check_images(images)
        if len(sets) != len(images):
            raise ValueError(f"{len(sets)} names of sets for {len(images)} images: as many are allowed")
        for name in sets:
            if not re.fullmatch(_NAME, name):
                raise ValueError(
                    f"set {name!r}: a name must not be empty and has no comma, quote or line break"
                )
        ids = [(name, sets[:index].count(name)) for index, name in enumerate(sets)]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        self.path = Path(path)
        self._images = images[order]
        self._ids = [ids[index] for index in order]
        self._content = self._stored()
        self._given = answers(self.path) if self._content is not None else []
        if len(self._given) > len(images):
            raise ValueError(f"{path} holds {len(self._given)} answers, more than the {len(images)} images")
        for given, expected in zip(self._given, self._ids, strict=False):
            if given[:2] != expected:
                raise ValueError(
                    f"{path}, line {given.order + 2}, is about {given.set} {given.place}, but with seed={seed} image "
                    f"{given.order} of this session is {expected[0]} {expected[1]}: another session made this file"
                )
        self._since = time.monotonic()

    @property
    def done(self) -> bool:
        """Has every image an answer?"""
        return len(self._given) == len(self._ids)

    @property
    def progress(self) -> tuple[int, int]:
        """How many images have an answer, and how many there are."""
        return len(self._given), len(self._ids)

    def current(self) -> Tensor:
        """The image to be labelled, [1, H, W].

        Raises:
            ValueError: all images are labelled.
        """
        if self.done:
            raise ValueError(f"all {len(self._ids)} images are labelled: only the last answer can be undone")
        return self._images[len(self._given)]

    def answer(self, label: int) -> None:
        """Label the current image and save it.

        Raises:
            ValueError: no digit and not ``NO_DIGIT``, all images are labelled, or something else has changed the file.
        """
        if label not in range(NO_DIGIT, 10):
            raise ValueError(f"label={label!r}: allowed are 0 to 9, and {NO_DIGIT} for no digit")
        self.current()
        seconds = round(time.monotonic() - self._since, 3)
        name, place = self._ids[len(self._given)]
        self._save([*self._given, Answer(name, place, int(label), seconds, len(self._given))])

    def undo(self) -> None:
        """Take the last answer back, also in the file; its image is the current one again.

        Raises:
            ValueError: there is no answer, or something else has changed the file.
        """
        if not self._given:
            raise ValueError("no image is labelled yet: there is nothing to undo")
        self._save(self._given[:-1])

    def _stored(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def _save(self, given: list[Answer]) -> None:
        """Write the file anew, whole or not at all, unless it is not as this session has left it."""
        if self._stored() != self._content:
            raise ValueError(
                f"{self.path} is not as this session left it: something else has changed it, and a file belongs to one "
                "session; make a new session to go on from there"
            )
        rows = (f"{a.set},{a.place},{a.label},{a.seconds:.3f},{a.order}\n" for a in given)
        content = "".join([f"{HEADER}\n", *rows]).encode()
        write_atomically(self.path, lambda partial: partial.write_bytes(content))
        self._content, self._given, self._since = content, given, time.monotonic()


def widget(session: Session) -> ipywidgets.VBox:
    """A session in the notebook: a button for each answer, and a field that takes it as a key, ``u`` to undo.

    What is typed before the next picture is there is refused, since it would label an image that nobody has seen.
    """
    # A column stretches what is in it to its own width.
    picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(align_self="flex-start"))
    status = ipywidgets.Label()
    field = ipywidgets.Text(placeholder="0-9, x for no digit, u to undo", continuous_update=True)

    def show(message: str = "") -> None:
        answered, count = session.progress
        picture.layout.display = "none" if session.done else None
        if not session.done:
            picture.value = png(session.current())
        for choice in choices:
            choice.disabled = session.done
        back.disabled = answered == 0
        place = f"All {count} images are labelled." if session.done else f"Image {answered + 1} of {count}."
        status.value = f"{place} {message}".strip()

    def press(key: str) -> None:
        try:
            if key == "u":
                session.undo()
            elif key in KEYS:
                session.answer(KEYS[key])
            else:
                raise ValueError(
                    f"{key!r} is no answer: one key an image, 0 to 9, x for no digit, u to undo."
                )
        except (OSError, ValueError) as error:
            show(str(error))
        else:
            show()

    def typed(change: Mapping[str, Any]) -> None:
        if change["new"]:
            press(change["new"].lower())
            field.value = ""

    def button(key: str, text: str) -> ipywidgets.Button:
        def click(_: ipywidgets.Button) -> None:
            press(key)
            field.focus()

        made = ipywidgets.Button(description=text, layout=ipywidgets.Layout(width="auto"))
        made.on_click(click)
        return made

    choices = [button(key, "no digit" if key == "x" else key) for key in KEYS]
    back = button("u", "undo")
    field.observe(typed, "value")
    show()
    row = ipywidgets.HBox([*choices, back], layout=ipywidgets.Layout(flex_flow="row wrap"))
    return ipywidgets.VBox([picture, status, field, row])


# ---- what the answers say ----


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one set: ``places`` in it, int64 [n], ascending, and ``labels``, int64 [n].

    Images without an answer are absent, so that a session that was left early can be evaluated.
    """

    places: Tensor
    labels: Tensor


def consensus(paths: Sequence[str | Path], share: float = 0.7) -> dict[str, Labels]:
    """The label that at least ``share`` of the labellers who saw an image agree on, by set; else ``NO_CONSENSUS``.

    Raises:
        ValueError: no file, a share that two labels could both reach, or a file that is damaged or something else.
    """
    if not 0.5 < share <= 1:
        raise ValueError(f"share={share}: allowed is more than 0.5, so that one label wins, and at most 1")
    if not paths:
        raise ValueError(f"paths={paths!r}: at least one file of answers is needed")
    votes: defaultdict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for path in paths:
        for answer in answers(path):
            votes[answer.set, answer.place][answer.label] += 1
    decided = defaultdict(list)
    for (name, place), counts in sorted(votes.items()):
        label, most = counts.most_common(1)[0]
        decided[name].append((place, label if most / counts.total() >= share else NO_CONSENSUS))
    return {name: Labels(*torch.tensor(pairs).unbind(1)) for name, pairs in decided.items()}


def right(labels: Tensor, originals: Tensor) -> Tensor:
    """Where people see the original class: bool [N]; over the clean images how far a labeller can be relied on."""
    _check_labels(labels=(labels, NO_CONSENSUS), originals=(originals, 0))
    return labels == originals


def success(labels: Tensor, originals: Tensor) -> Tensor:
    """Where people agree on another digit than the original one: bool [N] (INV, figure 5a).

    No consensus is no success, and neither is the agreement that there is no digit: no model could share it.

    Raises:
        ValueError: the lengths differ or a label is out of range.
    """
    return ~right(labels, originals) & (labels >= 0)


def agreement(predictions: Tensor, labels: Tensor, originals: Tensor) -> Tensor:
    """Where a model says what people see, over the M examples that :func:`success` holds for: bool [M] (INV, Table 1).

    Raises:
        ValueError: the lengths differ or a label is out of range.
    """
    changed = success(labels, originals)
    _check_labels(predictions=(predictions, 0), labels=(labels, NO_CONSENSUS))
    return (predictions == labels)[changed]


# ---- on the rendered page ----


def strip(
    images: Tensor,
    human: Sequence[int] | Tensor,
    originals: Sequence[int] | Tensor,
    answers: Mapping[str, Sequence[int] | Tensor],
    captions: Sequence[str] = (),
) -> HTML:
    """Examples side by side; behind a click on each, what people see, what it was, and what each model says.

    Args:
        images: float [N, 1, H, W] in [0, 1].
        human: what people see, N labels, ``NO_DIGIT`` and ``NO_CONSENSUS`` among them.
        originals: the labels of the images that the examples were made from.
        answers: N labels by the name of a model.
        captions: N texts that are always seen; without them the examples are numbered.

    Raises:
        ValueError: the lengths differ or a label or pixel is out of range.
    """
    _check_images(images)
    captions = captions or [f"Example {number + 1}" for number in range(len(images))]
    rows = {"people": human, "original": originals, **answers}
    if len(rows) != 2 + len(answers):
        raise ValueError("a model is named 'people' or 'original': these names are taken")
    labels = {name: torch.as_tensor(values) for name, values in rows.items()}
    _check_labels(
        **{name: (values, NO_CONSENSUS if name == "people" else 0) for name, values in labels.items()}
    )
    if not len(captions) == len(labels["people"]) == len(images):
        raise ValueError(
            f"{len(images)} images, {len(labels['people'])} labels, {len(captions)} captions: as many are allowed"
        )
    # Styles stand at the elements: they hold in a notebook too, and over the theme's card for plots.
    words = {NO_DIGIT: "no digit", NO_CONSENSUS: "no consensus"}
    items = ""
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        told = "".join(
            f'<div style="display:flex;flex-wrap:wrap"><dt style="font-weight:400">{escape(name)}</dt>'
            f'<dd style="margin:0 0 0 auto">{words.get(int(values[place]), int(values[place]))}</dd></div>'
            for name, values in labels.items()
        )
        items += (
            f'\n<li style="margin:0"><img src="{data_uri(png(image))}" alt="{escape(caption)}: which digit is it?"'
            ' style="width:100%;padding:0;display:block">'
            f'<details><summary style="cursor:pointer">{escape(caption)}</summary>'
            f'<dl style="margin:0.2rem 0">{told}</dl></details></li>'
        )
    columns = "grid-template-columns:repeat(auto-fill,minmax(6.5rem,1fr))"
    style = f"display:grid;{columns};gap:0.8rem;align-items:start;list-style:none;margin:0;padding:0"
    return HTML(f'<ul class="examples" style="{style};font-size:0.9rem">{items}\n</ul>')


# ---- checks ----


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 1 or len(images) == 0:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: [N, 1, H, W] with N of at least 1 is allowed"
        )
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"pixels from {low:.3g} to {high:.3g}: allowed is [0, 1]")


def _check_labels(**labels: tuple[Tensor, int]) -> None:
    """Labels of one length, by name and with the lowest that is allowed."""
    shapes = {name: tuple(values.shape) for name, (values, _) in labels.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes differ or are not [N]: {told}")
    for name, (values, low) in labels.items():
        wrong = [value for value in values.tolist() if value not in range(low, 10)]
        if wrong:
            raise ValueError(f"{name}: {wrong[0]} is no label; allowed are {low} to 9")
