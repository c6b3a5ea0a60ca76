"""The plots show what they are given: one mark for each value, labels on every axis, the house's colours."""

from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure

from robustutils import figures
from robustutils.statistics import Rate

NAN = float("nan")
SERIES = {"FGSM": [[10.0, 14.0, 12.0], [20.0]], "PGD": [[50.0, 55.0], []]}
PAPER = {"FGSM": [11.0, 22.0], "PGD": [NAN, 60.0]}


@pytest.fixture(autouse=True)
def style():
    backend, before = matplotlib.get_backend(), matplotlib.rcParams.copy()
    plt.switch_backend("agg")
    figures.use_style()
    yield
    plt.close("all")
    matplotlib.rcParams.update(before)
    plt.switch_backend(backend)


def images(n: int, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, 6, 6, generator=torch.Generator().manual_seed(n))


def gallery() -> Figure:
    return figures.gallery({"clean": images(4), "FGSM": images(3)}, ["3", "5", "7", "9"])


def dots() -> Figure:
    return figures.dots(["B*", "C"], SERIES, PAPER, xlabel="error (%)")


def matrices() -> Figure:
    panels = {"paper": np.array([[1.0, NAN, 3.0], [4.0, 5.0, 6.0]]), "this run": np.full((2, 3), 50.0)}
    return figures.matrices(panels, ["C", "D"], ["B*", "C", "D"], xlabel="source", ylabel="target")


def curves() -> Figure:
    line = [Rate(5, 100), Rate(50, 100), Rate(100, 100)]
    panels = {"C": {"FGSM": line, "PGD": line[::-1]}, "C_adv": {"FGSM": line}}
    return figures.lines([0.0, 0.1, 0.2], panels, xlabel="radius", ylabel="error (%)")


def scatter() -> Figure:
    panels = {"on": {"C": ([1.0, 2.0], [30.0, 40.0])}, "off": {"C": ([1.0], [99.0]), "D": ([2.0], [98.0])}}
    return figures.scatter(panels, xlabel="error (%)", ylabel="success (%)")


def test_a_scatter_has_a_point_for_each_pair():
    left, right = scatter().axes
    assert marks(left, "o") == [(1, 30), (2, 40)]
    assert (marks(right, "o"), marks(right, "s")) == ([(1, 99)], [(2, 98)])


def test_fewer_rates_belong_to_the_first_values_and_a_log_scale_has_a_tick_at_each():
    panels = {"C": {"FGSM": [Rate(5, 100), Rate(50, 100)]}}
    (axis,) = figures.lines([250, 1000, 4000], panels, xlabel="n", ylabel="%", log=True).axes
    assert [x for x, _ in marks(axis, "o")] == [250, 1000]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["250", "1k", "4k"]


def test_differences_stand_beside_a_line_at_zero():
    (axis,) = figures.dots(["a"], {"x": [[-5.0, 3.0]]}, xlabel="points", xlim=None).axes
    assert any(set(line.get_xdata()) == {0} for line in axis.lines)
    assert axis.get_xlim()[0] < -5


def marks(axis: plt.Axes, marker: str) -> list[tuple[float, float]]:
    """The points drawn with a marker, those of the legend's empty lines and NaN left out."""
    lines = [line for line in axis.lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata() if not np.isnan(x)]


@pytest.mark.parametrize(
    ("draw", "axes"), [(gallery, 8), (dots, 1), (matrices, 2), (curves, 2), (scatter, 2)]
)
def test_a_figure_has_its_panels_and_can_be_drawn_without_a_warning(draw, axes, tmp_path):
    figure = draw()
    assert isinstance(figure, Figure)
    assert len(figure.axes) == axes
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("draw", [gallery, dots, matrices, curves, scatter])
def test_a_figure_is_handed_over_and_not_shown_a_second_time(draw):
    draw()
    assert plt.get_fignums() == [], (
        "Jupyter shows what a cell returns and also every figure that is still open"
    )


def test_a_gallery_shows_every_image_under_its_title_beside_its_label():
    figure = gallery()
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 7, "4 clean and 3 attacked images; the eighth place stays empty"
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), images(3)[1, 0].numpy())
    assert all(axis.images[0].get_clim() == (0, 1) for axis in shown), "one grey scale for all images"
    assert [axis.get_title() for axis in figure.axes[:4]] == ["3", "5", "7", "9"]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["clean", "FGSM"]


def test_a_gallery_puts_a_note_below_each_image_of_a_row():
    figure = figures.gallery({"clean": images(2), "FGSM": images(2)}, notes={"FGSM": ["0.1", "0.2"]})
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [
        ["clean"],
        [],
        ["0.1", "FGSM"],
        ["0.2"],
    ]


def test_few_images_are_drawn_no_larger_than_eight_are():
    def width(count: int) -> float:
        return figures.gallery({"clean": images(count)}).axes[0].get_window_extent().width

    assert width(2) == pytest.approx(width(8), rel=0.1)
    assert width(12) < width(8)


def test_a_gallery_shows_colours_and_a_single_image():
    figure = figures.gallery({"colour": images(1, channels=3)})
    assert figure.axes[0].images[0].get_array().shape == (6, 6, 3)


def test_dots_show_one_mark_a_seed_and_one_diamond_a_number_of_the_paper():
    figure = dots()
    axis = figure.axes[0]
    assert sorted(x for x, _ in marks(axis, "o")) == [10, 12, 14, 20, 50, 55]
    assert sorted(x for x, _ in marks(axis, "D")) == [11, 22, 60]
    ranges = [
        tuple(line.get_xdata()) for line in axis.lines if line.get_marker() == "None" and line.get_alpha()
    ]
    assert (10, 14) in ranges, "the bar spans the seeds"
    assert (50, 55) in ranges
    heights = {x: y for marker in "oD" for x, y in marks(axis, marker)}
    assert heights[10] == heights[11] < heights[50], "the paper's mark is level with its series"
    assert heights[20] == heights[22] == heights[10] + 1, "the second line lies one below"


def test_dots_name_lines_axis_and_series_and_keep_the_colours_of_the_house():
    axis = dots().axes[0]
    assert axis.get_xlabel() == "error (%)"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["B*", "C"]
    left, right = axis.get_xlim()
    assert left <= 0 < 100 <= right, "percentages"
    assert axis.yaxis_inverted(), "the first line is on top"
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["FGSM", "PGD", "paper"]
    for handle, name in zip(legend.get_lines(), SERIES, strict=False):
        assert same_color(handle.get_color(), figures.COLOURS[name])


def test_dots_do_without_a_paper_and_leave_nan_out():
    axis = figures.dots(["C"], {"FGSM": [[NAN, 30.0, 40.0]]}, xlabel="x", xlim=(0, 50)).axes[0]
    assert [x for x, _ in marks(axis, "o")] == [30, 40]
    assert marks(axis, "D") == []
    assert axis.get_xlim() == (0, 50)
    bars = [tuple(line.get_xdata()) for line in axis.lines if line.get_alpha()]
    assert bars == [(30, 40)], "the bar spans the values that are there"


def test_matrices_print_every_number_once_and_leave_nan_empty():
    figure = matrices()
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["1.0", "3.0", "4.0", "5.0", "6.0"]
    assert [text.get_text() for text in right.texts] == ["50.0"] * 6
    assert [axis.get_title() for axis in figure.axes] == ["paper", "this run"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["source", "source"]
    assert left.get_ylabel() == "target"
    assert [label.get_text() for label in left.get_xticklabels()] == ["B*", "C", "D"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["C", "D"]
    assert {axis.collections[0].get_clim() for axis in figure.axes} == {(0, 100)}, "one colour scale"


def test_curves_show_every_rate_with_its_interval():
    figure = curves()
    left, right = figure.axes
    assert [len(axis.lines) for axis in figure.axes] == [2, 1]
    assert left.lines[0].get_xydata().tolist() == [[0, 5], [0.1, 50], [0.2, 100]]
    band = next(part for part in left.collections if isinstance(part, PolyCollection))
    corners = band.get_paths()[0].vertices
    for x, rate in zip([0.0, 0.1, 0.2], [Rate(5, 100), Rate(50, 100), Rate(100, 100)], strict=True):
        heights = corners[np.isclose(corners[:, 0], x), 1]
        assert (heights.min(), heights.max()) == pytest.approx(rate.interval)
    assert [axis.get_title() for axis in figure.axes] == ["C", "C_adv"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["radius", "radius"]
    assert left.get_ylabel() == "error (%)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(
        dict.fromkeys(line.get_label() for axis in (left, right) for line in axis.lines)
    )


def test_curves_take_any_rate_with_a_percentage_and_an_interval():
    rate = SimpleNamespace(percent=10.0, interval=(5.0, 20.0))
    assert len(figures.lines([1], {"a": {"PGD": [rate]}}, xlabel="x", ylabel="y").axes[0].lines) == 1


def test_everything_that_is_compared_has_a_colour_of_its_own():
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    from_palette = {name: colour for name, colour in figures.COLOURS.items() if name != "at alpha eps"}
    assert set(from_palette.values()) <= set(figures._PALETTE), "it is safe for colour-blind readers"


def test_the_two_thresholds_are_told_apart_by_lightness_alone():
    lightness = [
        float(np.dot(to_rgb(figures.COLOURS[name]), (0.2126, 0.7152, 0.0722)))
        for name in ("at eps", "at alpha eps")
    ]
    assert lightness[0] - lightness[1] > 0.2


def test_contours_have_a_panel_and_a_scale_for_each_surface():
    steps = np.linspace(0, 1, 5)
    figure = figures.contours(
        {"near": (steps, np.add.outer(steps, steps)), "far": (2 * steps, np.outer(steps, steps))},
        xlabel="along",
        ylabel="across",
        value="loss",
    )
    assert [axis.get_title() for axis in figure.axes[:2]] == ["near", "far"]
    assert [axis.get_ylabel() for axis in figure.axes[2:]] == ["loss", "loss"]
    assert figure.axes[1].get_xlim() == (0, 2)


def test_survival_draws_the_share_of_at_least_k():
    figure = figures.survival({"A": [0, 1, 1, 4]}, xlabel="k", ylabel="%")
    (line,) = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert list(line.get_ydata()) == [75, 25, 25, 25]


def rate(percent: float, low: float, high: float) -> SimpleNamespace:
    return SimpleNamespace(percent=percent, interval=(low, high))


def test_trends_draw_each_bin_at_its_middle_with_its_interval_and_the_counts_below():
    bins = [
        SimpleNamespace(low=0.0, high=1.0, count=10, rate=rate(20.0, 10.0, 40.0)),
        SimpleNamespace(low=1.0, high=3.0, count=5, rate=rate(60.0, 30.0, 80.0)),
    ]
    figure = figures.trends({"MNIST": {"at eps": bins}, "other": {"at eps": bins[:1]}}, xlabel="distance")
    left, right = figure.axes
    (container,) = [part for part in left.containers if hasattr(part, "has_yerr")]
    line, _, (bars,) = container
    assert list(line.get_xdata()) == [0.5, 2.0]
    assert list(line.get_ydata()) == [20.0, 60.0]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[10.0, 40.0], [30.0, 80.0]]
    patches: Any = left.patches
    heights = [(patch.get_x(), patch.get_width(), patch.get_height()) for patch in patches]
    assert heights == [(0.0, 1.0, 30.0), (1.0, 2.0, 15.0)], "counts, the fullest bin at 30"
    assert [axis.get_title() for axis in (left, right)] == ["MNIST", "other"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("distance", "success (%)")


def test_histograms_share_their_bins_within_a_panel():
    figure = figures.histograms({"a": {"one": np.array([0.0, 1.0]), "two": np.array([1.0, 2.0])}}, xlabel="x")
    (axis,) = figure.axes
    patches: Any = axis.patches
    widths = {np.ptp(patch.get_xy()[:, 0]).round(6) for patch in patches}
    assert len(widths) == 1, "the outlines span the same bins"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "two"]


@pytest.mark.parametrize("draw", [
    lambda: figures.gallery({}),
    lambda: figures.dots([], {}, xlabel="x"),
    lambda: figures.matrices({}, [], [], xlabel="x", ylabel="y"),
    lambda: figures.lines([], {}, xlabel="x", ylabel="y"),
    lambda: figures.contours({}, xlabel="x", ylabel="y", value="v"),
    lambda: figures.survival({}, xlabel="x", ylabel="y"),
    lambda: figures.trends({}, xlabel="x"),
    lambda: figures.histograms({}, xlabel="x"),
])  # fmt: skip
def test_where_there_is_nothing_to_draw_the_figure_says_so(draw):
    (axis,) = draw().axes
    assert [text.get_text() for text in axis.texts] == ["not part of this run"]
