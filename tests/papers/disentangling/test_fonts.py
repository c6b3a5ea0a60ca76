"""FONTS: the renderer against closed forms and finite differences, prototypes, and the order of the data set."""

import hashlib
import math
import os
import shutil
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from fontTools import subset

from robustutils import data
from robustutils.__main__ import main
from robustutils.papers.disentangling import fonts

FONT_FOLDER = Path(matplotlib.get_data_path(), "fonts", "ttf")
DEJAVU = FONT_FOLDER / "DejaVuSans.ttf"


@pytest.fixture(scope="module")
def embedded():
    return fonts.embedded_prototypes()


@pytest.fixture(scope="module")
def glyph(embedded):
    """The letter F of DejaVu Sans, [1, 1, 28, 28]: no symmetry."""
    return fonts.rasterise(DEJAVU)[5].view(1, 1, 28, 28).float() / 255


def theta(**changes: float) -> torch.Tensor:
    names = ("shift_x", "shift_y", "shear_x", "shear_y", "scale", "angle")
    return torch.tensor(
        [[changes.get(name, value) for name, value in zip(names, fonts.IDENTITY, strict=True)]]
    )


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Centre of mass: column and row."""
    weight = image[0, 0] / image.sum()
    position = torch.arange(28.0)
    return (weight.sum(0) @ position).item(), (weight.sum(1) @ position).item()


def extent(image: torch.Tensor) -> int:
    rows = (image[0, 0].amax(1) > 0.1).nonzero()
    return int(rows.max() - rows.min()) + 1


# theta of item 0 with seed 0
FIRST_THETA = [
    "0x1.3a021ap-3",
    "-0x1.c0bcf6p-6",
    "-0x1.e4ee8cp-2",
    "0x1.e22ee2p-2",
    "0x1.95c7a2p-1",
    "-0x1.15bee8p-1",
]


# --- the renderer


def test_identity_returns_the_prototypes(embedded):
    glyphs = embedded.flatten(0, 1).unsqueeze(1).float() / 255
    rendered = fonts.render(glyphs, torch.tensor([fonts.IDENTITY]).expand(len(glyphs), 6))
    assert torch.allclose(rendered, glyphs, atol=1e-5)


def test_matrix_is_the_published_formula():
    shift_x, shift_y, shear_x, shear_y, scale, angle = 0.1, -0.2, 0.3, -0.4, 1.1, 0.7
    cos, sin = math.cos(angle), math.sin(angle)
    expected = [
        [scale * (cos - sin * shear_x), scale * (-sin + cos * shear_x), shift_x],
        [scale * (cos * shear_y + sin), scale * (-sin * shear_y + cos), shift_y],
    ]
    found = fonts.affine_matrices(torch.tensor([[shift_x, shift_y, shear_x, shear_y, scale, angle]]))
    assert torch.allclose(found[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("change", "turned"),
    [
        ({"angle": math.pi / 2}, lambda image: image.rot90(1, (2, 3))),
        ({"angle": -math.pi / 2}, lambda image: image.rot90(-1, (2, 3))),
        ({"angle": math.pi}, lambda image: image.rot90(2, (2, 3))),
    ],
)
def test_quarter_turns_are_exact(glyph, change, turned):
    assert torch.allclose(fonts.render(glyph, theta(**change)), turned(glyph), atol=1e-4)


@pytest.mark.parametrize(("name", "axis"), [("shift_x", 0), ("shift_y", 1)])
def test_translation_moves_by_whole_pixels_against_its_sign(glyph, name, axis):
    step = 2 / 27  # one pixel: [-1, 1] spans the 27 steps between the centres of the 28 pixels
    moved = fonts.render(glyph, theta(**{name: 3 * step}))
    assert torch.allclose(moved, glyph.roll(-3, 3 - axis), atol=1e-4)
    assert centre(moved)[axis] == pytest.approx(centre(glyph)[axis] - 3, abs=0.01)


def test_scale_above_one_shrinks_the_glyph(glyph):
    small, large = fonts.render(glyph, theta(scale=1.4)), fonts.render(glyph, theta(scale=0.8))
    assert extent(small) < extent(glyph) < extent(large)
    assert small.sum() < glyph.sum() < large.sum()


def test_shear_moves_top_and_bottom_apart(glyph):
    sheared = fonts.render(glyph, theta(shear_x=0.5))
    top = torch.arange(28).view(28, 1) < 13
    assert centre(sheared * top)[0] > centre(glyph * top)[0] + 1, (
        "shear along x did not move the top to the right"
    )
    assert sheared.sum() == pytest.approx(glyph.sum().item(), rel=0.05), "shear keeps areas"


def test_rendering_is_differentiable_in_theta(glyph):
    generator = torch.Generator().manual_seed(3)
    # A smooth image in float64: bilinear interpolation itself has kinks, where differences mean nothing.
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    smooth = (0.5 + 0.2 * torch.sin(0.2 * row) * torch.cos(0.15 * column)).double().expand(4, 1, 28, 28)
    codes = fonts.sample_theta(torch.arange(4), "easy").double().requires_grad_()
    weight = torch.rand(1, 1, 28, 28, generator=generator).double()
    inside = torch.zeros_like(weight)
    inside[..., 8:20, 8:20] = 1  # away from the edge, where the black outside begins

    def total(values: torch.Tensor) -> torch.Tensor:
        return (fonts.render(smooth, values) * weight * inside).sum()

    (gradient,) = torch.autograd.grad(total(codes), codes)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()
    step = 1e-6
    for item in range(4):
        for parameter in range(6):
            nudge = torch.zeros(4, 6, dtype=torch.float64)
            nudge[item, parameter] = step
            difference = (total(codes + nudge) - total(codes - nudge)).item() / (2 * step)
            assert gradient[item, parameter].item() == pytest.approx(difference, rel=1e-3, abs=1e-4)


def test_gradient_on_real_glyphs_agrees_with_differences(embedded):
    part = fonts.dataset(embedded, 20)
    glyphs = part.glyphs().double()
    weight = torch.rand(28, 28, generator=torch.Generator().manual_seed(3)).double()

    def totals(values: torch.Tensor) -> torch.Tensor:
        return (fonts.render(glyphs, values) * weight).sum((1, 2, 3))

    codes = part.thetas.double().requires_grad_()
    (gradient,) = torch.autograd.grad(totals(codes).sum(), codes)
    step = 1e-8 * torch.eye(6, dtype=torch.float64)  # so small that hardly a pixel crosses a kink on the way
    with torch.no_grad():
        differences = torch.stack([(totals(codes + s) - totals(codes - s)) / 2e-8 for s in step], dim=1)
    close = torch.isclose(gradient, differences, rtol=1e-4, atol=1e-4)
    assert close.float().mean() > 0.95, (gradient, differences)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_rendering_does_not_depend_on_the_batch(embedded):
    part = fonts.dataset(embedded, 230)
    glyphs, order = part.glyphs(), torch.randperm(230, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fonts.render(glyphs[order], part.thetas[order]), part.images[order])
    for rows in (slice(0, 1), slice(3, 8), slice(100, 199)):
        assert torch.equal(fonts.render(glyphs[rows], part.thetas[rows]), part.images[rows])


@pytest.mark.parametrize("shape", [(6,), (2, 6), (1, 5)])
def test_theta_of_another_shape_is_refused(glyph, shape):
    with pytest.raises(ValueError, match=r"1 images need \[1, 6\]"):
        fonts.render(glyph, torch.zeros(shape))


# --- theta


@pytest.mark.parametrize("ranges", fonts.RANGES)
def test_samples_fill_their_ranges_evenly_and_independently(ranges):
    low, high = fonts.theta_bounds(ranges)
    sample = fonts.sample_theta(torch.arange(20_000), ranges)
    assert sample.shape == (20_000, 6)
    assert sample.dtype == torch.float32
    assert (sample >= low).all()
    assert (sample <= high).all()
    tenths = ((sample - low) / (high - low) * 10).long().clamp(0, 9)
    counts = torch.stack([torch.bincount(column, minlength=10) for column in tenths.T])
    assert (counts - 2000).abs().max() < 5 * math.sqrt(2000 * 0.9), "the draws are not uniform"
    beside = torch.cat([sample[:-1], sample[1:]], dim=1)
    assert (torch.corrcoef(beside.T) - torch.eye(12)).abs().max() < 0.04, "the draws are not independent"


@pytest.mark.parametrize(
    ("ranges", "lowest", "highest"),
    [
        ("hard", [-0.2, -0.2, -0.5, -0.5, 0.75, -math.pi / 2], [0.2, 0.2, 0.5, 0.5, 1.15, math.pi / 2]),
        (
            "digits",
            [-0.15, -0.15, -0.2, -0.2, 0.85, -math.pi / 10],
            [0.15, 0.15, 0.2, 0.2, 1.15, math.pi / 10],
        ),
    ],
)
def test_ranges_are_those_of_the_paper(ranges, lowest, highest):
    low, high = fonts.theta_bounds(ranges)
    assert low.tolist() == pytest.approx(lowest)
    assert high.tolist() == pytest.approx(highest)


def test_theta_depends_on_the_item_and_the_seed_alone():
    items = torch.tensor([7, 999_999, 0, 7])
    some, all_ = fonts.sample_theta(items), fonts.sample_theta(torch.arange(10))
    assert torch.equal(some[[0, 2, 3]], all_[[7, 0, 7]])
    assert not torch.equal(some, fonts.sample_theta(items, seed=1))
    # Written down: the draws have to be the same on every machine.
    expected = [float.fromhex(text) for text in FIRST_THETA]
    assert fonts.sample_theta(torch.tensor([0]))[0].tolist() == expected


def test_splitmix64_has_the_published_outputs():
    """Those of the seed 1234567 in the reference implementation, whose state grows by a constant."""
    state = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert fonts._splitmix64(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_unknown_ranges_are_refused():
    with pytest.raises(ValueError, match=r"'hardest'.*'hard'"):
        fonts.sample_theta(torch.arange(1), "hardest")


# --- prototypes


def test_embedded_fonts_are_distinct_and_have_ten_centred_letters(embedded):
    assert embedded.shape == (23, 10, 28, 28), "matplotlib ships other fonts than it did"
    assert embedded.dtype == torch.uint8
    assert len({font.numpy().tobytes() for font in embedded}) == len(embedded)
    for letter in embedded.flatten(0, 1):
        rows, columns = letter.amax(1).nonzero().flatten(), letter.amax(0).nonzero().flatten()
        for inked in (rows, columns):
            before, after = int(inked[0]), 27 - int(inked[-1])
            assert after - before in (0, 1)
            assert before >= 2


def test_embedded_prototypes_are_the_same_each_time(embedded):
    assert torch.equal(embedded, fonts.embedded_prototypes())


def test_rasterise_keeps_the_order_of_the_letters():
    assert torch.equal(fonts.rasterise(DEJAVU, "FA"), fonts.rasterise(DEJAVU)[[5, 0]])


def test_rasterise_reduces_the_point_size_of_all_letters_where_one_is_too_large():
    serif = FONT_FOLDER / "DejaVuSerif-Bold.ttf"
    beside_j, beside_wide = (
        fonts.rasterise(serif, "IJ"),
        fonts.rasterise(serif, "I\N{LATIN CAPITAL LETTER AA}"),
    )
    columns = beside_wide[1].amax(0).nonzero()
    assert columns.max() - columns.min() + 1 <= 24
    small, usual = extent(beside_wide[None, :1] / 255), extent(beside_j[None, :1] / 255)
    assert small < usual


@pytest.mark.parametrize(
    ("file", "problem"), [("STIXSizOneSymReg.ttf", "different glyphs"), ("cmex10.ttf", "cmex10")]
)
def test_fonts_without_the_letters_are_refused(file, problem):
    with pytest.raises(ValueError, match=problem):
        fonts.rasterise(FONT_FOLDER / file)


def without(letter: str, file: Path) -> None:
    """Write DejaVu Sans with just the letters A to J, less one."""
    options = subset.Options(notdef_outline=True)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=fonts.LETTERS.replace(letter, ""))
    with subset.load_font(DEJAVU, options) as font:
        subsetter.subset(font)
        subset.save_font(font, file, options)


def test_a_font_that_lacks_one_letter_is_refused(tmp_path):
    without("C", tmp_path / "nearly.ttf")
    fonts.rasterise(tmp_path / "nearly.ttf", "ABDEFGHIJ")
    with pytest.raises(ValueError, match=r"nearly\.ttf.*different glyphs.*ABCDEFGHIJ"):
        fonts.rasterise(tmp_path / "nearly.ttf")


def test_a_file_that_is_no_font_is_refused(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    with pytest.raises(OSError, match="unknown file format"):
        fonts.rasterise(tmp_path / "broken.ttf")


@pytest.fixture
def own(tmp_path):
    """A folder with two usable fonts, one that lacks a letter, one that does not open, one twice, and another file."""
    folder = tmp_path / "own"
    (folder / "more").mkdir(parents=True)
    shutil.copy(DEJAVU, folder / "b.ttf")
    shutil.copy(FONT_FOLDER / "DejaVuSerif.ttf", folder / "more" / "a.OTF")
    shutil.copy(DEJAVU, folder / "more" / "copy.ttf")
    without("F", folder / "lacking.ttf")
    (folder / "broken.otf").write_bytes(b"not a font")
    (folder / "README.txt").write_text("fonts of my own")
    return folder


OWN_SKIPPED = {
    "broken.otf": "broken.otf does not open: unknown file format",
    "lacking.ttf": "lacking.ttf does not have different glyphs",
    "more/copy.ttf": "copy.ttf draws the same letters as b.ttf",
}


def test_prototypes_of_a_folder_skip_and_tell_what_is_not_usable(own):
    prototypes, names, skipped = fonts.prototypes_of(own)
    assert names == ("b.ttf", "more/a.OTF")
    assert torch.equal(prototypes, torch.stack([fonts.rasterise(own / name) for name in names]))
    assert skipped.keys() == OWN_SKIPPED.keys()
    for name, reason in OWN_SKIPPED.items():
        assert reason in skipped[name]
        assert name in skipped[name], "the reason does not name the file"


@pytest.mark.parametrize(
    ("kept", "message"), [((), "; 0 skipped$"), (("broken.otf",), r"; 1 skipped:\n  .*broken\.otf")]
)
def test_a_folder_without_usable_fonts_is_refused(own, tmp_path, kept, message):
    (tmp_path / "poor").mkdir()
    for name in kept:
        shutil.copy(own / name, tmp_path / "poor")
    with pytest.raises(ValueError, match=message):
        fonts.prototypes_of(tmp_path / "poor")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        fonts.prototypes_of(tmp_path / "nowhere")


def test_command_makes_the_data_set_of_a_folder_and_replaces_none(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTUTILS_DATA", str(tmp_path / "root"))
    assert main(["fonts", str(own)]) == 0
    said = capsys.readouterr().out
    assert "2 fonts used, 3 skipped" in said
    assert all(reason in said for reason in OWN_SKIPPED.values())
    loaded = data.load("fonts", "test")
    assert isinstance(loaded, fonts.FontsDataset)
    assert torch.equal(loaded.prototypes, fonts.prototypes_of(own)[0])

    assert main(["fonts", str(own)]) == 1
    assert "exists and was left as it is" in capsys.readouterr().err
    assert main(["fonts", str(own), "--out", str(tmp_path / "other.npz")]) == 0
    assert (tmp_path / "other.npz").exists()


def make_checkout(folder: Path, monkeypatch) -> list[str]:
    """Three fonts in the three depths of a checkout, listed as the wanted ones."""
    wanted = {
        "zeta/DejaVuSans.ttf": "",
        "alpha/DejaVuSerif.ttf": "ofl",
        "beta/DejaVuSansMono.ttf": "fonts/apache",
    }
    for name, depth in wanted.items():
        (folder / depth / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FONT_FOLDER / Path(name).name, folder / depth / name)
    monkeypatch.setattr(fonts, "FONT_FILES", tuple(wanted))
    return list(wanted)


def test_prototypes_are_rebuilt_in_the_order_of_the_list_and_load_again(tmp_path, monkeypatch):
    wanted = make_checkout(tmp_path / "checkout", monkeypatch)
    fonts.build_prototypes(tmp_path / "checkout", tmp_path / "root" / "fonts" / "prototypes.npz")
    loaded = fonts.load_prototypes(tmp_path / "root")
    expected = torch.stack([fonts.rasterise(FONT_FOLDER / Path(name).name) for name in wanted])
    assert torch.equal(loaded, expected)
    assert [file.name for file in (tmp_path / "root" / "fonts").iterdir()] == ["prototypes.npz"]


def test_missing_fonts_are_all_named(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    (tmp_path / "zeta" / "DejaVuSans.ttf").unlink()
    shutil.rmtree(tmp_path / "ofl")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 .*zeta/DejaVuSans\.ttf, alpha/DejaVuSerif\.ttf$"):
        fonts.build_prototypes(tmp_path, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_two_fonts_that_are_alike_are_refused(tmp_path, monkeypatch):
    make_checkout(tmp_path, monkeypatch)
    shutil.copy(DEJAVU, tmp_path / "ofl" / "alpha" / "DejaVuSerif.ttf")
    with pytest.raises(ValueError, match=r"zeta/DejaVuSans\.ttf.*alpha/DejaVuSerif\.ttf.*alike"):
        fonts.build_prototypes(tmp_path, tmp_path / "out.npz")


def test_the_list_has_a_thousand_different_fonts():
    assert len(set(fonts.FONT_FILES)) == len(fonts.FONT_FILES) == 1000
    assert all(len(Path(name).parts) == 2 and name.endswith(".ttf") for name in fonts.FONT_FILES)


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_damaged_prototypes_are_an_error_with_both_checksums(tmp_path, monkeypatch, damage):
    make_checkout(tmp_path / "checkout", monkeypatch)
    file = tmp_path / "fonts" / "prototypes.npz"
    fonts.build_prototypes(tmp_path / "checkout", file)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        middle = archive.getinfo("prototypes.npy").compress_size // 2
    if damage == "truncated":
        content = content[:middle]
    else:
        content[middle] ^= 1
    file.write_bytes(content)
    with pytest.raises(data.DataError) as error:
        data.load("fonts", root=tmp_path)
    found = hashlib.sha256(content).hexdigest()
    assert f"{file} is damaged" in str(error.value)
    assert found in str(error.value)
    assert "a75bb7d653cff4537f1888e6b57bb7bb640a5c55de4e632e3f09807c54a8ec56" in str(error.value)
    assert file.read_bytes() == content, "the damaged file was touched"


# --- the data set


def test_codes_are_font_major_then_class_and_repeat(embedded):
    part = fonts.dataset(embedded, 470)
    assert part.labels.tolist() == [index % 10 for index in range(470)]
    assert part.fonts.tolist() == [index // 10 % 23 for index in range(470)]
    assert torch.equal(part.glyphs()[237, 0], embedded[0, 7].float() / 255)


def test_images_are_the_renderings_of_their_codes(embedded):
    part = fonts.dataset(embedded, 200, "test")
    assert torch.equal(part.images, fonts.render(part.glyphs(), part.thetas))
    assert part.images.min() >= 0
    assert part.images.max() <= 1
    assert part.images.flatten(1).amax(1).min() > 0, "an image is empty"


def test_same_seed_same_images_other_seed_other_images(embedded):
    one, again, other = (fonts.dataset(embedded, 30, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint
    assert not torch.equal(one.thetas, other.thetas)


@pytest.mark.parametrize("split", ["train", "test"])
def test_fewer_images_are_the_first_of_more(embedded, split):
    # 8,300 crosses the edge of a rendered chunk.
    many, few = fonts.dataset(embedded, 8_300, split), fonts.dataset(embedded, 8_195, split)
    prefix = many.first(8_195)
    assert torch.equal(prefix.thetas, few.thetas)
    assert torch.equal(prefix.fonts, few.fonts)
    assert torch.equal(prefix.labels, few.labels)
    assert torch.equal(prefix.images, few.images)
    assert prefix.fingerprint == few.fingerprint != many.fingerprint


def test_test_images_continue_the_sequence_behind_the_training_images(embedded):
    capacity = fonts.CAPACITY["train"]
    test = fonts.dataset(embedded, 5, "test")
    assert torch.equal(test.thetas, fonts.sample_theta(torch.arange(capacity, capacity + 5)))
    assert test.fonts.tolist() == [capacity // 10 % 23] * 5


def test_ranges_are_respected(embedded):
    low, high = fonts.theta_bounds("easy")
    thetas = fonts.dataset(embedded, 500, ranges="easy").thetas
    assert ((thetas >= low) & (thetas <= high)).all()


@pytest.mark.parametrize(("n", "split"), [(0, "train"), (960_001, "train"), (40_001, "test")])
def test_numbers_outside_of_the_split_are_refused(embedded, n, split):
    with pytest.raises(ValueError, match=f"n = {n}.* {split} .* {fonts.CAPACITY[split]}"):
        fonts.dataset(embedded, n, split)


def test_unknown_split_is_refused(embedded):
    with pytest.raises(ValueError, match=r"split.*'val'"):
        fonts.dataset(embedded, 1, "val")


def test_taken_images_keep_their_codes_and_a_fingerprint_of_just_these(embedded):
    whole = fonts.dataset(embedded, 60, ranges="easy")
    rows = torch.tensor([31, 4, 31])
    some = whole.take(rows)
    assert torch.equal(some.images, whole.images[rows])
    for field in ("labels", "thetas", "fonts"):
        assert torch.equal(getattr(some, field), getattr(whole, field)[rows]), field
    assert (some.name, some.split, some.ranges) == ("fonts", "train", "easy")
    assert torch.equal(fonts.render(some.glyphs(), some.thetas), some.images)
    assert len({some.fingerprint, whole.fingerprint, whole.take(rows.flip(0)[:2]).fingerprint}) == 3
    assert some.fingerprint == whole.first(40).take(rows).fingerprint
    assert torch.equal(whole.take(whole.labels == 3).labels, torch.full((6,), 3))


def test_changed_images_keep_the_codes_and_are_known_by_their_pixels(embedded):
    whole = fonts.dataset(embedded, 20)
    changed = whole.changed(1 - whole.images)
    part = changed.first(5)
    assert torch.equal(part.images, 1 - whole.images[:5]), "changed images were rendered anew"
    assert torch.equal(part.thetas, whole.thetas[:5])
    assert torch.equal(part.bases(torch.arange(5)), whole.glyphs()[:5])
    fingerprints = {item.fingerprint for item in (whole, whole.first(5), changed, part)}
    assert len(fingerprints) == 4
    assert part.fingerprint != whole.first(5).changed(whole.images[:5]).fingerprint


def test_images_are_decoded_from_codes_and_bases(embedded):
    part = fonts.dataset(embedded, 40, ranges="moderate")
    assert part.manifold == fonts.Affine("moderate")
    assert part.codes is part.thetas
    rows = torch.tensor([8, 0, 39])
    bases = part.bases(rows)
    assert torch.equal(bases, part.glyphs()[rows])
    assert torch.equal(part.manifold.decode(part.codes[rows], bases), part.images[rows])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(part.manifold.decode(part.codes[rows], bases), part.images[rows])
    low, high = part.manifold.bounds()
    assert ((part.codes >= low) & (part.codes <= high)).all()


# --- a random subset


def test_random_subset_is_of_the_training_images_in_their_order(embedded, monkeypatch):
    monkeypatch.setitem(fonts.CAPACITY, "train", 2_000)
    whole, drawn = fonts.dataset(embedded, 2_000), fonts.random_subset(embedded, 300, 1)
    same, items = (drawn.thetas[:, None] == whole.thetas).all(2).max(1)
    assert same.all(), "an image that the training set does not have"
    assert (items.diff() > 0).all(), "not sorted, or drawn twice"
    assert torch.equal(drawn.images, whole.images[items])
    assert drawn.fingerprint == whole.take(items).fingerprint
    assert items.float().mean().item() == pytest.approx(1_000, abs=5 * 577 / 300**0.5), "not spread evenly"


def test_random_subset_depends_on_its_seed_and_has_many_fonts(embedded):
    one, again, larger, other = (
        fonts.random_subset(embedded, n, s) for n, s in ((90, 1), (90, 1), (91, 1), (90, 2))
    )
    assert one.fingerprint == again.fingerprint != other.fingerprint
    mine, more = (set(map(tuple, part.thetas.tolist())) for part in (one, larger))
    assert mine < more
    assert len(one.fonts.unique()) > 20 > len(fonts.dataset(embedded, 90).fonts.unique())


@pytest.mark.parametrize("n", [0, 960_001])
def test_random_subset_of_more_than_there_are_is_refused(embedded, n):
    with pytest.raises(ValueError, match=f"n = {n}.* train .* 960000"):
        fonts.random_subset(embedded, n, 0)


# --- the real prototypes, where they are


def test_real_prototypes_have_the_known_content():
    file = data.find_root() / "fonts" / "prototypes.npz"
    if not os.environ.get("ROBUSTUTILS_DATA") or not file.exists():
        pytest.skip("ROBUSTUTILS_DATA does not hold fonts")
    prototypes = fonts.load_prototypes()
    assert prototypes.shape == (1000, 10, 28, 28)
    assert prototypes.float().mean().item() == pytest.approx(21.3, abs=0.05)
    assert prototypes.float().std().item() == pytest.approx(65.1, abs=0.05)
    with np.load(file) as archive:
        assert tuple(archive["file_name"].tolist()) == fonts.FONT_FILES
