"""A model of one's own: what an examination finds, what it refuses, and the data it is given."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from robustutils import __main__, data, models
from robustutils.statistics import Rate
from robustutils.tools import own_data
from robustutils.tools.examine import _against, examine


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", "test").first(30)


def quiet(line: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def found(digits):
    lines: list[str] = []
    return examine(
        models.published("small_cnn"), digits, eps=0.1, n=30, label="a <b>", report=lines.append
    ), lines


class Behind(nn.Module):
    """The small network with something done to its logits or its pixels."""

    def __init__(self, *, pixels=lambda x: x, logits=lambda z: z) -> None:
        super().__init__()
        self.net, self.pixels, self.logits = models.published("small_cnn"), pixels, logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.net(self.pixels(x)))


# ---- what it finds ----


def test_every_number_names_its_images_and_interval(found):
    numbers = json.loads(json.dumps(found[0].json(), allow_nan=False))
    assert numbers["flags"] == []
    rates = [numbers["accuracy"], numbers["robust_accuracy"]]
    rates += [cell[key] for cell in numbers["blind_spots"] for key in ("accuracy", "success_at_eps")]
    rates += [point["robust_accuracy"] for point in numbers["over_radius"]]
    for rate in rates:
        low, high = rate["interval"]
        assert low <= rate["percent"] <= high
        assert rate["percent"] == pytest.approx(100 * rate["count"] / rate["n"], abs=1e-3)
    assert numbers["accuracy"]["n"] == numbers["n"] == 30
    assert {"model", "fingerprint", "eps", "seed", "environment", "seconds", "date"} <= numbers.keys()


def test_the_curve_begins_at_the_accuracy_and_falls_to_nothing(found):
    examination, _ = found
    assert examination.radii[0] == 0
    assert examination.curve[0].count == examination.clean.count
    assert examination.curve[-1].count == 0, "a network without a defence stands in the whole box"


def test_progress_is_said_part_by_part(found):
    parts = [line for line in found[1] if line.endswith(" ...")]
    assert len(parts) == len(found[0].seconds) == 6


def test_the_page_needs_no_other_file_and_escapes_names(found):
    page = found[0].page()
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == page.count("alt=") == 2
    assert "http" not in page
    assert 'class="flags"' not in page
    assert found[0].answer().endswith("no flag was raised.")


@pytest.fixture(scope="module")
def doubtful(digits):
    """Of a model without gradients that is also random."""
    model = Behind(pixels=lambda x: (4 * x).round() / 4, logits=lambda z: z + torch.randn_like(z))
    return examine(model, digits, eps=0.1, n=10, report=quiet)


def test_flags_stand_first_on_the_page_and_in_the_answer(doubtful):
    assert any("exactly zero at 100%" in flag for flag in doubtful.flags)
    assert "do not trust this number" in doubtful.answer()
    page = doubtful.page()
    assert page.index('class="flags"') < page.index("<h2>")


def test_a_curve_that_rises_or_does_not_end_is_a_flag():
    rates = [Rate(90, 100), Rate(10, 100), Rate(60, 100)]
    risen, left = _against([0.0, 0.5, 1.0], rates)
    assert "rises with the radius, from 10.0% at 0.5 to 60.0% at 1" in risen
    assert "60.0% stand where every pixel may take every value" in left
    assert _against([0.0, 0.5], [Rate(90, 100), Rate(0, 100)]) == []


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Behind(logits=lambda z: z * float("nan")), "not finite"),
        (Behind(logits=lambda z: z[:, :5]), "5 classes.*labels.* 9"),
        (Behind(logits=lambda z: (z, z)), "tuple"),
        (Behind(logits=lambda z: z.roll(1, 1)), "nothing to attack"),
        (Behind(pixels=lambda x: x[..., :8, :8]), r"fails on images.*\[8, 1, 28, 28\].*RuntimeError"),
        (Behind(pixels=lambda x: x.double()), "fails on images torch.float32"),
    ],
    ids=["NaN", "five classes", "tuple", "classes in another order", "other shape", "other type"],
)
def test_a_model_that_does_not_fit_is_refused_before_any_rate(digits, model, message):
    with pytest.raises(ValueError, match=message):
        examine(model, digits, eps=0.1, n=30, report=quiet)


def test_what_is_seen_in_several_parts_is_said_once_and_names_its_cell(digits, doubtful):
    assert sum("two passes differ" in flag for flag in doubtful.flags) == 1, doubtful.flags
    dim = Behind(pixels=lambda x: torch.where(x.amax((1, 2, 3), keepdim=True) > 0.97, x, x * 0))
    flags = [
        flag for flag in examine(dim, digits, eps=0.1, n=30, report=quiet).flags if "not above chance" in flag
    ]
    (flag,) = flags
    assert flag.startswith("at scale")


@pytest.mark.parametrize("settings", [{"eps": 0.0}, {"eps": 1.5}, {"n": 3}])
def test_settings_out_of_range_are_refused(digits, settings):
    with pytest.raises(ValueError, match="eps"):
        examine(models.published("small_cnn"), digits, **{"eps": 0.1, "report": quiet} | settings)


# ---- data of one's own ----


def folder(path, sizes=((5, 4), (5, 4)), mode="L"):
    """Two classes with two images each."""
    for name in ("cat", "ant"):
        (path / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new(mode, size, 50 * number if mode == "L" else (50 * number, 0, 0)).save(
                path / name / f"{number}.png"
            )
    return path


def test_a_folder_of_folders_is_a_data_set_with_all_classes_first(tmp_path):
    read = own_data.test_images(str(folder(tmp_path / "mine")))
    assert read.classes == ("ant", "cat")
    assert read.images.shape == (4, 1, 4, 5)
    assert read.labels.tolist() == [0, 1, 0, 1]
    assert read.images[2, 0, 0, 0] == 50 / 255
    assert own_data.from_folder(folder(tmp_path / "colour", mode="RGB")).images.shape == (4, 3, 4, 5)


def test_folders_that_hold_no_data_set_are_refused(tmp_path):
    with pytest.raises(data.DataError, match=r"1\.png .*3 x 3.*0\.png .*4 x 5"):
        own_data.from_folder(folder(tmp_path / "sizes", sizes=((5, 4), (3, 3))))
    with pytest.raises(data.DataError, match="0 folders"):
        own_data.from_folder(tmp_path / "sizes" / "cat")
    (folder(tmp_path / "broken") / "cat" / "1.png").write_text("no image")
    with pytest.raises(data.DataError, match=r"1\.png.*read"):
        own_data.from_folder(tmp_path / "broken")
    for file in (tmp_path / "broken").glob("*/*"):
        file.unlink()
    with pytest.raises(data.DataError, match="no images"):
        own_data.from_folder(tmp_path / "broken")


def test_pixels_of_16_bits_are_refused_and_not_clipped(tmp_path):
    file = folder(tmp_path / "mine") / "cat" / "1.png"
    Image.fromarray(np.full((4, 5), 128 * 257, dtype=np.uint16)).save(file)
    with pytest.raises(data.DataError, match=r"1\.png.*'I;16'"):
        own_data.from_folder(tmp_path / "mine")


def test_grey_with_transparency_is_grey_and_hidden_folders_are_no_classes(tmp_path):
    Image.new("LA", (5, 4), (51, 255)).save(folder(tmp_path / "mine") / "cat" / "1.png")
    (tmp_path / "mine" / ".ipynb_checkpoints").mkdir()
    read = own_data.from_folder(tmp_path / "mine")
    assert (read.classes, read.images.shape) == (("ant", "cat"), (4, 1, 4, 5))
    assert read.images[3, 0, 0, 0] == 51 / 255


def test_sorted_arrays_come_in_rounds_over_the_classes(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=[0, 0, 0, 1, 1])
    read = own_data.from_npz(tmp_path / "mine.npz")
    assert read.labels.tolist() == [0, 1, 0, 1, 0], "the first images of a sorted file are not of one class"
    assert (read.images[:, 0, 0, 0] * 255).round().tolist() == [0, 3, 1, 4, 2]


GREY = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (GREY, (2, 1, 4, 4)),
        (np.stack([GREY] * 3, -1), (2, 3, 4, 4)),
        (np.float64(GREY)[:, None] / 255, (2, 1, 4, 4)),
    ],
    ids=["grey", "colour", "floats"],
)
def test_arrays_are_a_data_set(tmp_path, images, shape):
    np.savez(tmp_path / "mine.npz", images=images, labels=[0, 2])
    read = own_data.test_images(str(tmp_path / "mine.npz"))
    assert read.images.shape == shape
    assert (len(read.classes), read.labels.tolist()) == (3, [0, 2])
    torch.testing.assert_close(read.images[1, 0], torch.from_numpy(GREY[1]).float() / 255)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY}, "lacks.* labels"),
        ({"images": GREY, "labels": [0.5, 1.0]}, "labels.*float64"),
        ({"images": GREY, "labels": [0]}, r"labels.*\[2\].*int64 \[1\]"),
        ({"images": GREY, "labels": [0, -1]}, "labels.* 0 or more"),
        ({"images": GREY, "labels": [0, 2], "classes": ["a", "b"]}, "label.* 2 .* 2 classes"),
        ({"images": GREY[:, None] * 1.0, "labels": [0, 1]}, r"floats.*\[0, 31\]"),
        ({"images": np.int64(GREY), "labels": [0, 1]}, "images.*uint8"),
    ],
)
def test_arrays_that_are_none_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(data.DataError, match=message):
        own_data.from_npz(tmp_path / "mine.npz")


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data='nothing'.*digits"):
        own_data.test_images("nothing")
    (tmp_path / "mine.npz").write_text("no arrays")
    with pytest.raises(data.DataError, match=r"\.npz"):
        own_data.test_images(str(tmp_path / "mine.npz"))


# ---- the command ----


def test_the_command_writes_a_page_and_numbers_and_overwrites_nothing(tmp_path, capsys):
    asked = ["examine", "small_cnn", "--data", "digits", "--eps", "0.1", "--n", "10", "--out", str(tmp_path)]
    assert __main__.main(asked) == 0
    numbers = json.loads((tmp_path / "small_cnn.json").read_text())
    assert (numbers["model"], numbers["n"]) == ("small_cnn", 10)
    page = (tmp_path / "small_cnn.html").read_text()
    assert numbers["answer"] in page
    assert numbers["answer"] in capsys.readouterr().out
    assert __main__.main(asked) == 1
    assert "exists and was left as it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["no_such_network", "--data", "digits"], "unknown published network 'no_such_network'"),
        (["small_cnn", "--weights", "w.safetensors", "--data", "digits"], "has its own"),
        (["nowhere:build", "--data", "digits"], "ModuleNotFoundError"),
        (["small_cnn", "--data", "nothing"], "data='nothing'"),
    ],
)
def test_the_command_says_what_does_not_fit(tmp_path, capsys, asked, message):
    assert __main__.main(["examine", *asked, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
