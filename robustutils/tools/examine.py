"""A model of one's own, looked at as a careful reviewer would: :func:`examine`, and ``python -m robustutils examine``."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from robustutils import figures, flags, masking, provenance, tables
from robustutils.artifacts import Absent, kept, later, value_of
from robustutils.attacks import PGD, decaying, evaluation_mode, gradient_of, logits_of, margin, try_out
from robustutils.data import Dataset
from robustutils.default_attack import DefaultAttack
from robustutils.evaluation import (
    Model,
    adversarial,
    check_arguments,
    correct,
    evaluate,
    predicted,
    robust_accuracy,
)
from robustutils.papers.blind_spot import blind_spots
from robustutils.papers.blind_spot.blind_spots import Cell, FixedRadius, attack_cell
from robustutils.speed import device_of, said
from robustutils.statistics import Rate
from robustutils.storage import CacheError
from robustutils.threats import Linf

CELLS = ((1.0, 0.0), (0.9, 0.0), (0.9, 0.05), (0.8, 0.1), (0.7, 0.15))
"""Scale and shift in which blind spots are looked for (BS, section 4.3)."""
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)
"""Radii of the curve, as multiples of eps; the last one is the whole box, 1."""
FEW = 250
"""At most so many images, the first ones, for everything but accuracy and the default attack."""


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found out about a model; shown by :meth:`page`, kept by :meth:`json`.

    Attributes:
        about: where the numbers come from, JSON-able.
        flags: what speaks against the numbers, each said once.
        clean, robust: accuracy as it is and under the default attack, over the same images.
        diagnosis: whether the gradients can be trusted.
        cells: accuracy and success in the blind spots.
        radii, curve: robust accuracy of a short attack over the radius.
        pictures: images before and after the attack [8, C, H, W], and what the model says of them.
        seconds: of each part.
    """

    about: Mapping[str, Any]
    flags: Sequence[str]
    clean: Rate
    robust: Rate
    diagnosis: masking.Diagnosis
    cells: Sequence[Cell]
    radii: Sequence[float]
    curve: Sequence[Rate]
    pictures: Mapping[str, tuple[Tensor, list[str]]]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def answer(self) -> str:
        """The answer in a sentence."""
        raised = f"{len(self.flags)} flags were raised" if len(self.flags) > 1 else "one flag was raised"
        trust = f"{raised}: do not trust this number" if self.flags else "no flag was raised"
        return (
            f"Of {self.clean.n} images the model classifies {self.clean.percent:.1f}% correctly, and "
            f"{self.robust.text} under attack in linf at eps {self.about['eps']:g}; {trust}."
        )

    def _repr_html_(self) -> str:
        """The answer, the flags and the verdict on the gradients: what Jupyter shows."""
        items = "".join(f"<li>{escape(flag)}</li>" for flag in self.flags)
        raised = f'<ul class="flags">{items}</ul>' if items else ""
        verdict = self.diagnosis.sentence()
        return f'<p class="answer">{escape(self.answer())}</p>{raised}<p>Gradients: {escape(verdict)}.</p>'

    def rates(self) -> tables.Table:
        """Accuracy, robust accuracy and what the attacks of the diagnosis find."""
        seen = self.diagnosis
        tried = {
            "FGSM": seen.single_step,
            "R+FGSM": seen.random_step,
            "PGD, 40 steps": seen.iterated,
            "square, without gradients": seen.gradient_free,
        }
        rates = {"accuracy": self.clean, "robust accuracy, default attack": self.robust} | {
            f"robust accuracy, {name}": found.robust_accuracy() for name, found in tried.items()
        }
        rows = [(name, rate.text, rate.n) for name, rate in rates.items()]
        return tables.plain("rate, %  [95% interval], images", rows)

    def blind_spots(self) -> tables.Table:
        """Accuracy and success of the attack on scaled and shifted images."""
        rows = [
            (f"{c.alpha:g}", f"{c.beta:g}", c.accuracy().text, c.success().text, len(c.attacked))
            for c in self.cells
        ]
        return tables.plain("scale, shift, accuracy, success at eps, images attacked", rows)

    def radius_curve(self) -> Figure:
        """Robust accuracy over the radius."""
        series = {"robust accuracy": {"margin ascent, 20 steps": list(self.curve)}}
        return figures.lines(list(self.radii), series, xlabel=r"radius $\epsilon$", ylabel="accuracy (%)")

    def gallery(self) -> Figure:
        """Images before and after the attack."""
        return figures.gallery(
            {name: images for name, (images, _) in self.pictures.items()},
            notes={name: said for name, (_, said) in self.pictures.items()},
        )

    def json(self) -> dict[str, Any]:
        """Everything as JSON has it; rates with count, n and 95% interval, in percent."""
        seen = self.diagnosis
        return {
            **self.about,
            "answer": self.answer(),
            "flags": list(self.flags),
            "accuracy": _numbers(self.clean),
            "robust_accuracy": _numbers(self.robust),
            "diagnosis": {
                "verdict": seen.sentence(),
                "masked": seen.masked,
                **{
                    f"{name}_error": _numbers(getattr(seen, name).error_rate())
                    for name in ("single_step", "random_step", "iterated", "gradient_free")
                },
                "approximation_ratio": _finite(seen.ratio),
                "cosine": _finite(seen.cosine),
                "gradient_norm": _finite(seen.gradient_norm),
            },
            "blind_spots": [
                {
                    "alpha": cell.alpha,
                    "beta": cell.beta,
                    "accuracy": _numbers(cell.accuracy()),
                    "success_at_eps": _numbers(cell.success()),
                    "success_at_alpha_eps": _numbers(cell.success(strict=True)),
                }
                for cell in self.cells
            ],
            "over_radius": [
                {"eps": eps, "robust_accuracy": _numbers(rate)}
                for eps, rate in zip(self.radii, self.curve, strict=True)
            ],
            "seconds": dict(self.seconds),
        }

    def page(self) -> str:
        """One page of HTML that needs no other file."""
        title = escape(str(self.about["model"]))
        facts = {
            "data": f"{self.about['data']} ({self.about['split']}), the first {self.clean.n} images",
            "threat": f"linf, eps {self.about['eps']:g}, pixels in [0, 1]; the adversary knows the model",
            "parameters": f"{self.about['parameters']:,}",
            "measured": f"{self.about['date']} on {self.about['environment']['processor']}, "
            f"torch {self.about['environment']['torch']}, {sum(self.seconds.values()) / 60:.1f} minutes",
        }
        listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
        curve = figures.html(
            self.radius_curve(),
            "Robust accuracy of the first images over the radius of the attack, with 95% intervals. It must not rise, and "
            "where every pixel may take every value it must be zero.",
        )
        examples = figures.html(
            self.gallery(),
            "The first images, and the same after two runs of margin ascent; below each what the model says.",
        )
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}, examined</title><style>{STYLE}</style></head><body>
<h1>{title}, examined</h1>
{self._repr_html_()}
<dl>{listed}</dl>
<h2>Rates</h2>{self.rates()._repr_html_()}
<h2>Over the radius</h2>{curve}
<h2>Blind spots</h2>
<p>Each pixel x becomes scale (x - 1/2) + 1/2 + shift. Success is over the images that are still classified correctly.</p>
{self.blind_spots()._repr_html_()}
<h2>What it looks like</h2>{examples}
</body></html>
"""


STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
.answer { font-size: 1.2rem; } .flags { color: #a40000; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; } dt { color: #555; } dd { margin: 0; }
.table-scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #ddd; font-weight: 400; }
thead th { font-weight: 600; } figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; }
"""


def examine(
    model: Model,
    dataset: Dataset,
    *,
    eps: float = 0.3,
    n: int = 1000,
    seed: int = 0,
    label: str = "",
    report: Callable[[str], None] = print,
) -> Examination:
    """Accuracy, the default attack, masking, blind spots and a curve over the radius, with what speaks against them.

    Ten minutes at most on two cores for 1,000 images and a network of the size of Madry et al. (2018).

    Args:
        model: takes float32 [N, C, H, W] in [0, 1], returns logits [N, K].
        dataset: test images; the first ``n`` are attacked, the first 250 for all but accuracy and the default attack.
        eps: linf radius, above 0 and at most 1.
        n: at least 10; all images where there are fewer.
        seed: of the random starts.
        label: what the model is called on the page.
        report: gets a line for each part.

    Raises:
        ValueError: the model cannot be attacked on these data, or is right on fewer than 4 of the first images; the message
            says why.
    """
    check_arguments(model, dataset, seed)
    threat = Linf(eps=eps)
    if eps == 0 or not isinstance(n, int) or n < 10:
        raise ValueError(f"eps={eps}, n={n}: eps must lie in (0, 1] and n be an integer of at least 10")
    test = dataset.first(min(n, len(dataset)))
    few = test.first(min(FEW, len(test)))
    clock = _Clock(report)
    net: nn.Module = value_of(model)
    about = {
        "model": label or type(net).__name__,
        "parameters": sum(part.numel() for part in net.parameters()),
        "data": dataset.name,
        "split": dataset.split,
        "classes": len(dataset.classes),
        "fingerprint": test.fingerprint,
        "eps": eps,
        "n": len(test),
        "seed": seed,
        "environment": provenance.environment(device_of(net)),
        "date": datetime.now(UTC).date().isoformat(),
    }
    _take(net, test.first(8))
    hits = clock("accuracy", lambda: kept(correct, model, test.images, test.labels))
    right = int(hits[: len(few)].sum())
    if right < 4:
        raise ValueError(
            f"the model classifies {right} of the first {len(few)} images of {dataset.name} correctly: "
            "there is nothing to attack. It must take pixels in [0, 1] and know the classes in the data set's order"
            + "".join(f": {flag}" for flag in flags.scaled(net, test.images, test.labels))
        )
    robust = clock("the default attack", lambda: robust_accuracy(model, test, eps=eps, seed=seed))
    diagnosis = clock(
        "masked gradients",
        lambda: masking.diagnose(model, few, eps=eps, transferred={}, queries=500, dtype=torch.float32),
    )
    cells = clock("blind spots", lambda: _cells(model, few, threat, seed))
    radii, curve = clock("over the radius", lambda: _over_radius(model, few, eps, seed))
    pictures = clock("pictures", lambda: _pictures(model, test.first(min(8, len(test))), threat, seed))
    raised = {_kind(flag): flag for flag in robust.flags}
    for found, where in (
        *((seen, "") for seen in (diagnosis.single_step, diagnosis.random_step, diagnosis.iterated)),
        *((cell, f"at scale {cell.alpha:g} and shift {cell.beta:g} ") for cell in cells),
    ):
        for flag in found.flags:
            raised.setdefault(_kind(flag), f"{where}{flag}")
    said = [*raised.values(), *([diagnosis.sentence()] if diagnosis.masked else ()), *_against(radii, curve)]
    return Examination(
        about=about,
        flags=tuple(said),
        clean=Rate(int(hits.sum()), len(hits)),
        robust=Rate(robust.count, robust.n),
        diagnosis=diagnosis,
        cells=cells,
        radii=radii,
        curve=curve,
        pictures=pictures,
        seconds=clock.seconds,
    )


def _take(net: nn.Module, some: Dataset) -> None:
    """Raises: ValueError where the model cannot be attacked on some images of the data; the message says why."""
    leaf = some.images.to(device_of(net)).clone().requires_grad_(True)
    with evaluation_mode(net):
        try_out(net, leaf.detach())
        gradient_of(logits_of(net, leaf).float().sum(1), leaf)


def _kind(flag: str) -> str:
    """A flag without its numbers: the same thing, seen on other images, is said once."""
    return re.sub(r"[\d.]+", "", flag)


class _Clock:
    """Runs the parts one after the other, says what it does, how long each takes, and which one failed."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report, self.seconds = report, dict[str, float]()

    def __call__(self, part: str, run: Callable[[], Any]) -> Any:
        self.report(f"{part} ...")
        start = time.perf_counter()
        try:
            found = run()
        except (ValueError, OSError, CacheError, Absent):
            raise
        except (Exception, SystemExit) as error:  # whatever a module of one's own raises
            raise ValueError(f"{part} failed: {said(error)}") from error
        self.seconds[part] = round(time.perf_counter() - start, 1)
        self.report(f"{part}: {self.seconds[part]:.0f} s")
        return found


def _cells(model: Model, few: Dataset, threat: Linf, seed: int) -> list[Cell]:
    """The cells in which at least 4 images are classified correctly."""
    attack = FixedRadius(threat=threat, steps=40, restarts=0, seed=seed)
    found = []
    for alpha, beta in CELLS:
        moved = blind_spots.transformed(few, alpha, beta)
        if int(kept(correct, model, moved.images, moved.labels).sum()) >= 4:
            found.append(attack_cell(model, attack, few, alpha=alpha, beta=beta, n=len(few)))
    return found


def _over_radius(model: Model, few: Dataset, eps: float, seed: int) -> tuple[list[float], list[Rate]]:
    """Robust accuracy at growing radii until nothing is left, or in the whole box."""
    radii = sorted({round(factor * eps, 6) for factor in FACTORS if factor * eps < 1} | {1.0})
    rates: list[Rate] = []
    for radius in radii:
        attack = PGD(
            threat=Linf(eps=radius),
            steps=20,
            step_size=radius or 1.0,
            loss=margin,
            schedule=decaying,
            seed=seed,
        )
        rates.append(evaluate(model, attack, few, seed=seed).robust_accuracy())
        if rates[-1].count == 0:
            break
    return radii[: len(rates)], rates


def _against(radii: Sequence[float], curve: Sequence[Rate]) -> list[str]:
    """What no sound evaluation shows: accuracy that rises with the radius, or is left where every pixel is free."""
    found = []
    for place, rate in enumerate(curve):
        for before, other in zip(radii, curve[:place], strict=False):
            if other.interval[1] < rate.interval[0]:
                found.append(
                    f"robust accuracy rises with the radius, from {other.percent:.1f}% at {before:g} to {rate.percent:.1f}% "
                    f"at {radii[place]:g}: the attack fails"
                )
                break
    if radii[-1] == 1 and curve[-1].interval[0] > 1:
        found.append(
            f"{curve[-1].percent:.1f}% stand where every pixel may take every value: the attack fails, not the adversary"
        )
    return found


def _pictures(model: Model, shown: Dataset, threat: Linf, seed: int) -> dict[str, tuple[Tensor, list[str]]]:
    """Images and the classes that the model gives them, before and after the attack."""
    attacked = later(adversarial, model, DefaultAttack(threat=threat, rounds=1).ascent, shown, seed=seed)
    names = [*shown.classes, *map(str, range(len(shown.classes), 10_000))]
    return {
        part: (value_of(images), [names[answer] for answer in kept(predicted, model, images).tolist()])
        for part, images in {"clean": shown.images, "attacked": attacked}.items()
    }


def _numbers(rate: Rate) -> dict[str, Any]:
    return {
        "percent": round(rate.percent, 3),
        "interval": [round(end, 3) for end in rate.interval],
        "count": rate.count,
        "n": rate.n,
    }


def _finite(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
