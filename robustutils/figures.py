"""The book's plots in one house style: the same colour for the same thing throughout, labelled axes, intervals.

Colours are the colour-blind-safe palette of seaborn. Every function returns a matplotlib figure; captions and alt
texts belong to the page that shows it.
"""

import base64
import io
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

_PALETTE = sns.color_palette("colorblind").as_hex()
COLOURS: Mapping[str, str] = {
    "clean": _PALETTE[7],
    "FGSM": _PALETTE[0],
    "R+FGSM": _PALETTE[1],
    "transferred": _PALETTE[2],
    "PGD": _PALETTE[3],
    "standard": _PALETTE[9],
    "adversarial": _PALETTE[4],
    "ensemble": _PALETTE[8],
    "at eps": _PALETTE[5],
    "at alpha eps": "#a8327d",
}

WIDTH = 7.2
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "savefig.bbox": "tight",
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def use_style() -> None:
    """Switch matplotlib to the house style, for the rest of the session."""
    sns.set_theme(style="whitegrid", palette="colorblind", rc=_STYLE)


def _empty() -> Figure:
    """A figure for a run that has nothing to draw, which says so."""
    figure, axis = plt.subplots(figsize=(WIDTH, 0.5))
    axis.set_axis_off()
    axis.text(0.5, 0.5, "not part of this run", ha="center", va="center", color="0.4")
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def gallery(
    rows: Mapping[str, Tensor],
    titles: Sequence[str] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """A grid of images, one labelled row for each entry: float tensors [n, C, H, W] in [0, 1]; one title a column.

    ``notes`` puts a text below each image of a row. Fewer than eight columns make a narrower figure, not larger images.
    """
    if not rows:
        return _empty()
    columns = max(len(images) for images in rows.values())
    places = max(columns, 8)
    height = WIDTH / (places + 1.2) * (1.24 if notes else 1.12)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(WIDTH * columns / places, height * len(rows) + 0.3), squeeze=False
    )
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for column, axis in enumerate(line):
            axis.set_axis_off()
            if column < len(images):
                pixels = images[column].permute(1, 2, 0).numpy()
                axis.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1)
        for axis, note in zip(line, (notes or {}).get(label, ()), strict=False):
            place = {"transform": axis.transAxes, "ha": "center", "va": "top"}
            axis.text(0.5, -0.04, note, **place, fontsize=8, parse_math=False)  # a class may be called $a
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    for axis, title in zip(axes[0], titles or (), strict=False):
        axis.set_title(title, fontsize=9)
    figure.subplots_adjust(wspace=0.06, hspace=0.24 if notes else 0.12)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def dots(
    lines: Sequence[str],
    series: Mapping[str, Sequence[Sequence[float]]],
    paper: Mapping[str, Sequence[float]] | None = None,
    *,
    xlabel: str,
    xlim: tuple[float, float] | None = (-2, 102),
) -> Figure:
    """Dots on labelled lines: ``series[name][line]`` holds one value per training seed, ``paper[name][line]`` one.

    Ours are filled dots, one a seed, joined by a bar from the smallest to the largest; the paper's are hollow
    diamonds. A value that is NaN is left out. Without ``xlim`` the axis fits the values, with a line at zero.
    """
    if not lines:
        return _empty()
    figure, axis = plt.subplots(figsize=(WIDTH, 0.32 * len(lines) * max(1, len(series) * 0.55) + 1.1))
    offsets = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for offset, other, (name, values) in zip(offsets, _PALETTE, series.items(), strict=False):
        colour = COLOURS.get(name, other)
        for line, seeds in enumerate(values):
            each = [value for value in seeds if not np.isnan(value)]
            if each:
                axis.plot([min(each), max(each)], [line + offset] * 2, color=colour, lw=2, alpha=0.5)
                axis.plot(each, [line + offset] * len(each), "o", color=colour, ms=5)
        axis.plot([], [], "o-", color=colour, ms=5, label=name)
        if paper is not None:
            positions = np.arange(len(lines)) + offset
            axis.plot(
                paper[name], positions, "D", mfc="white", mec=colour, mew=1.4, ms=6, ls="none", zorder=4
            )
    if paper is not None:
        axis.plot([], [], "D", mfc="white", mec="0.3", mew=1.4, ms=6, ls="none", label="paper")
    axis.set_yticks(range(len(lines)), lines)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    if xlim is None:
        axis.axvline(0, color="0.5", lw=1.2, zorder=1)
    else:
        axis.set_xlim(*xlim)
    axis.set_xlabel(xlabel)
    axis.grid(axis="y", visible=False)
    for line in range(1, len(lines)):
        axis.axhline(line - 0.5, color="0.9", lw=0.8, zorder=0)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    plt.close(figure)  # shown once, as the value of its cell
    return figure


def _axes(
    panels: Collection[str], xlabel: str, ylabel: str, *, height: float, across: int = 0, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a labelled axis for each title in ``panels``, ``across`` of them in a row (all, where that is 0).

    Without panels it is empty, and there is no axis.
    """
    if not panels:
        return _empty(), []
    columns = min(across or len(panels), len(panels))
    figure, axes = plt.subplots(
        math.ceil(len(panels) / columns),
        columns,
        figsize=(WIDTH, height),
        squeeze=False,
        layout="constrained",
        **kwargs,
    )
    for axis, title in zip(axes.flat, panels, strict=False):
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    plt.close(figure)  # shown once, as the value of its cell
    return figure, list(axes.flat[: len(panels)])


def _legend(figure: Figure, ncols: int = 4) -> None:
    """One legend above all panels."""
    named = {str(line.get_label()): line for axis in figure.axes for line in axis.lines}
    if named:
        columns = min(len(named), ncols)
        figure.legend([*named.values()], [*named], loc="outside upper center", ncols=columns, frameon=False)


def matrices(
    panels: Mapping[str, np.ndarray],
    lines: Sequence[str],
    columns: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Annotated matrices of percentages side by side, on one colour scale; NaN cells stay empty."""
    figure, axes = _axes(panels, xlabel, ylabel, height=0.42 * len(lines) + 1.2, sharey=True)
    for axis, values in zip(axes, panels.values(), strict=True):
        sns.heatmap(
            values, ax=axis, vmin=0, vmax=100, cmap="rocket_r", annot=True, fmt=".1f", cbar=False,
            xticklabels=list(columns), yticklabels=list(lines), annot_kws={"size": 9}, linewidths=0.5,
        )  # fmt: skip
        axis.set(xlabel=xlabel, ylabel=ylabel if axis is axes[0] else "")  # the heat map has taken them away
        axis.grid(visible=False)
        axis.tick_params(axis="y", rotation=0)
    return figure


def lines(
    x: Sequence[float],
    series: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> Figure:
    """Percentages over a parameter in labelled panels: ``series[panel][name]`` is a sequence of rates.

    A rate has ``percent`` and ``interval``, see :class:`robustutils.statistics.Rate`; the interval is a band. Fewer rates
    than ``x`` belong to its first values. ``log`` draws x on a logarithmic scale with a tick at each value, thousands as k.
    Without series the figure is empty.
    """
    figure, axes = _axes(series, xlabel, ylabel, height=2.9, sharey=True)
    for axis, lines in zip(axes, series.values(), strict=True):
        for (name, rates), other in zip(lines.items(), itertools.cycle(_PALETTE), strict=False):
            colour = COLOURS.get(name, other)
            low, high = zip(*(rate.interval for rate in rates), strict=True)
            places = x[: len(rates)]
            axis.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
            axis.plot(places, [rate.percent for rate in rates], "o-", ms=3.5, color=colour, label=name)
        axis.set_ylim(-2, 102)
        if log:
            axis.set_xscale("log")
            axis.set_xticks(x, [f"{value / 1000:g}k" if value >= 1000 else f"{value:g}" for value in x])
            axis.minorticks_off()
    _legend(figure)
    return figure


def scatter(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], *, xlabel: str, ylabel: str
) -> Figure:
    """Points in labelled panels, two in a row: ``panels[title][name]`` are their places, x and y in percent."""
    height = 2.9 * math.ceil(len(panels) / 2) + 0.5
    figure, axes = _axes(panels, xlabel, ylabel, height=height, across=2, sharey=True)
    for axis, series in zip(axes, panels.values(), strict=True):
        for (name, (x, y)), mark, colour in zip(
            series.items(), itertools.cycle("osD^vP"), _PALETTE, strict=False
        ):
            axis.plot(x, y, mark, ms=5, alpha=0.75, mec="white", mew=0.5, color=colour, label=name)
        axis.set_ylim(-3, 103)
    _legend(figure, ncols=3)
    return figure


def contours(
    panels: Mapping[str, tuple[Sequence[float], np.ndarray]], *, xlabel: str, ylabel: str, value: str
) -> Figure:
    """Filled contours over two steps: ``panels[title]`` is the steps [P] of both axes and the values [P, P].

    ``values[i, j]`` belongs to step i of the vertical and step j of the horizontal axis. Each panel has its own scale.
    """
    figure, axes = _axes(panels, xlabel, ylabel, height=0.75 * WIDTH / max(len(panels), 1) + 0.5)
    for axis, (steps, values) in zip(axes, panels.values(), strict=True):
        filled = axis.contourf(steps, steps, values, levels=20, cmap="mako")
        figure.colorbar(filled, ax=axis, shrink=0.9).set_label(value)
        axis.set_aspect("equal")
        axis.grid(visible=False)
    return figure


def survival(lines: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str) -> Figure:
    """For each name the percentage of its values that are at least k, over k: steps."""
    if not lines:
        return _empty()
    figure, (axis,) = _axes([""], xlabel, ylabel, height=2.9)
    for name, values in lines.items():
        array = np.asarray(values)
        steps = np.arange(1, int(max(array.max(), 1)) + 1)
        axis.step(steps, [100 * (array >= k).mean() for k in steps], where="post", label=name)
    axis.set_ylim(-2, 102)
    axis.legend(frameon=False)
    return figure


def trends(
    panels: Mapping[str, Mapping[str, Sequence[Any]]], *, xlabel: str, ylabel: str = "success (%)"
) -> Figure:
    """Rates over bins of a number, in labelled panels: ``panels[title][name]`` is a sequence of bins.

    A bin has ``low`` and ``high`` (its edges), ``count`` and ``rate``, see
    :class:`robustutils.statistics.Bin`. The points stand at the middle of their bin, their intervals as bars; the counts of
    the first series are drawn below, in grey and on a scale of their own.
    """
    figure, axes = _axes(panels, xlabel, ylabel, height=3.1, sharey=True)
    for axis, series in zip(axes, panels.values(), strict=True):
        first = next(iter(series.values()))
        most = max((part.count for part in first), default=1)
        for part in first:
            axis.bar(
                part.low, 30 * part.count / most, width=part.high - part.low, align="edge", color="0.85", lw=0
            )
        for name, bins in series.items():
            centres = [(part.low + part.high) / 2 for part in bins]
            rates = np.array([part.rate.percent for part in bins])
            ends = np.array([part.rate.interval for part in bins]).reshape(-1, 2)
            bars, colour = np.abs(ends - rates[:, None]).T, COLOURS.get(name, _PALETTE[0])
            axis.errorbar(centres, rates, yerr=bars, fmt="o", ms=3.5, lw=1, color=colour, label=name)
        axis.set_ylim(-2, 102)
    return figure


def histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]], *, xlabel: str, ylabel: str = "test images"
) -> Figure:
    """Overlaid histograms of numbers in labelled panels: ``panels[title][name]`` is a vector."""
    figure, axes = _axes(panels, xlabel, ylabel, height=2.9)
    for axis, series in zip(axes, panels.values(), strict=True):
        edges = np.histogram_bin_edges(np.concatenate(list(series.values())), bins=40).tolist()
        for colour, (name, values) in zip(_PALETTE, series.items(), strict=False):
            axis.hist(values, bins=edges, histtype="stepfilled", alpha=0.35, color=colour, label=name)
            axis.hist(values, bins=edges, histtype="step", color=colour)
        axis.legend(frameon=False)
    return figure


def png(image: Tensor, scale: int = 8) -> bytes:
    """An image [1, H, W] in [0, 1] as a PNG file, each pixel a square of ``scale`` by ``scale``."""
    pixels = image[0].mul(255).round().to(torch.uint8).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)).save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(image: bytes) -> str:
    """A PNG file as the address of an image in a page that needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def html(figure: Figure, caption: str, dpi: int = 144) -> str:
    """A figure with its caption, which is its alternative text too, inside a page."""
    file, text = io.BytesIO(), escape(caption)
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    return f'<figure><img src="{data_uri(file.getvalue())}" alt="{text}"><figcaption>{text}</figcaption></figure>'
