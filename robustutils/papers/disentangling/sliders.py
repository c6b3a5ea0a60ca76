"""A walk over a manifold by hand: frames with one slider for a page, and a slider for each code in a live notebook."""

import base64
from collections.abc import Sequence
from html import escape

import ipywidgets
import torch
from IPython.display import HTML
from torch import Tensor, nn

from robustutils.attacks import evaluation_mode
from robustutils.figures import png
from robustutils.papers.disentangling.latent import Manifold


def frames(images: Tensor, notes: Sequence[str], label: str) -> HTML:
    """Images one at a time under a slider, each with a note: it needs no kernel, no server and no network.

    Args:
        images: float [N, 1, H, W] in [0, 1], N > 0.
        notes: N texts.
        label: what the slider changes, for those who hear the page as well.

    Raises:
        ValueError: no image, or another number of notes.
    """
    if not len(images) or len(notes) != len(images):
        raise ValueError(f"{len(images)} images and {len(notes)} notes: one each is needed, of one at least")
    items = ""
    for place, (image, note) in enumerate(zip(images, notes, strict=True)):
        source = f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"
        items += (
            f'\n<div data-frame{" hidden" if place else ""}><img src="{source}" alt="{escape(note)}" '
            'style="width:8rem;padding:0;image-rendering:pixelated">'
            f'<div style="min-height:3em">{escape(note)}</div></div>'
        )
    show = (
        "this.closest('[data-frames]').querySelectorAll('[data-frame]')"
        ".forEach((frame, place) => { frame.hidden = place != this.value })"
    )
    return HTML(
        f'<div data-frames style="text-align:center">{items}\n<label>{escape(label)}<br>'
        f'<input type="range" min="0" max="{len(images) - 1}" value="0" style="width:min(20rem,90%)" '
        f'oninput="{escape(show)}"></label></div>'
    )


def explore(
    model: nn.Module,
    manifold: Manifold,
    codes: Tensor,
    base: Tensor,
    names: Sequence[str],
    classes: Sequence[str],
) -> ipywidgets.Widget:
    """A slider for each code of one image, which shows the image that it makes and the model's answer.

    Args:
        model: takes the images of the manifold, returns logits over ``classes``.
        manifold: makes images of codes.
        codes: where the sliders begin, float32 [C].
        base: what stays as it is, without the dimension of examples.
        names: of the codes, C texts.
        classes: what the model's answers are called.

    Raises:
        ValueError: another number of names than codes.
    """
    if codes.shape != (len(names),):
        raise ValueError(f"codes {list(codes.shape)} and {len(names)} names: one each is needed")
    low, high = (bound.expand(len(names)).tolist() for bound in manifold.bounds())
    sliders = [
        ipywidgets.FloatSlider(value=value, min=least, max=most, step=(most - least) / 100, description=name)
        for value, least, most, name in zip(codes.tolist(), low, high, names, strict=True)
    ]
    picture, answer = ipywidgets.Image(width=168), ipywidgets.Label()

    def show(_: object = None) -> None:
        moved = torch.tensor([[slider.value for slider in sliders]])
        with evaluation_mode(model), torch.no_grad():
            image = manifold.decode(moved, base[None])
            sure, label = model(image).softmax(1)[0].max(0)
        picture.value = png(image[0])
        answer.value = f"{classes[int(label)]}, {float(sure):.0%}"

    for slider in sliders:
        slider.observe(show, "value")
    show()
    return ipywidgets.HBox([ipywidgets.VBox(sliders), ipywidgets.VBox([picture, answer])])
