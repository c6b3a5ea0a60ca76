"""Frames of a page and sliders of a notebook."""

import re

import pytest
import torch
from torch import nn

from robustutils.papers.disentangling import fonts, sliders


def test_a_page_has_every_frame_and_shows_the_first():
    images = torch.rand(4, 1, 28, 28)
    html = sliders.frames(images, ["a", "b", "<c>", "d"], "step").data
    assert html.count("<img ") == 4
    assert len(re.findall(r"<div data-frame hidden>", html)) == 3
    assert "&lt;c&gt;" in html
    assert 'max="3"' in html
    assert "http" not in html


@pytest.mark.parametrize(("n", "notes"), [(0, []), (2, ["a"])])
def test_frames_without_images_or_notes_are_refused(n, notes):
    with pytest.raises(ValueError, match=f"{n} images.* {len(notes)} notes"):
        sliders.frames(torch.rand(n, 1, 28, 28), notes, "step")


def test_moving_a_slider_changes_image_and_answer():
    base = torch.zeros(1, 28, 28)
    base[:, 10:18, 4:8] = 1

    class Side(nn.Module):
        def forward(self, x):
            return torch.stack([x[..., :14].sum((1, 2, 3)), x[..., 14:].sum((1, 2, 3))], 1)

    names = ["x", "y", "shear x", "shear y", "scale", "turn"]
    widget = sliders.explore(
        Side(), fonts.Affine(), torch.tensor(fonts.IDENTITY), base, names, ["left", "right"]
    )
    controls, (picture, answer) = widget.children[0].children, widget.children[1].children
    before = picture.value
    assert answer.value.startswith("left")
    controls[5].value = controls[5].min
    controls[0].value = controls[0].min
    assert picture.value != before


def test_a_slider_for_each_code():
    with pytest.raises(ValueError, match="1 names"):
        sliders.explore(
            nn.Flatten(), fonts.Affine(), torch.tensor(fonts.IDENTITY), torch.zeros(1, 28, 28), ["x"], "AB"
        )
