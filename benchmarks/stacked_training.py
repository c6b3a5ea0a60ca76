"""Are the networks of one size trained faster together, stacked with ``torch.func``, than one after the other?

The step of the disentangling chapter that takes nearly all of its time: the gradient of the loss by the images, for the
adversarial half of a batch, in evaluation mode. Five networks of equal shape see 50 images each, one after the other as in
:mod:`robustutils.training`, or all at once. The two take turns on one thread; medians count, and the gradients must agree.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from robustutils import models, provenance, speed


def apart(nets: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    """The gradients [networks, N, 1, 28, 28], a network at a time."""
    found = []
    for net, images, labels in zip(nets, x, y, strict=True):
        leaf = images.clone().requires_grad_(True)
        with speed.FastInputGradients():
            loss = F.cross_entropy(net(leaf), labels, reduction="sum")
        found.append(torch.autograd.grad(loss, leaf)[0])
    return torch.stack(found)


def stacked(nets: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor]:
    """The same, all networks at once."""
    parameters, buffers = stack_module_state(list(nets))
    shape = copy.deepcopy(nets[0]).to("meta")

    def loss(images: Tensor, parameters: dict, buffers: dict, labels: Tensor) -> Tensor:
        logits = functional_call(shape, (parameters, buffers), (images,))
        return F.cross_entropy(logits, labels, reduction="sum")

    by_images = vmap(grad(loss))
    return lambda x, y: by_images(x, parameters, buffers, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--images", type=int, default=50, help="seen by each network in a step")
    parser.add_argument("--steps", type=int, default=40, help="in a run")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    nets = [models.build("dis_cnn", classes=10, seed=seed).eval() for seed in range(options.networks)]
    for net in nets:
        net.requires_grad_(False)
    x = torch.rand(options.networks, options.images, 1, 28, 28)
    y = torch.randint(10, (options.networks, options.images))
    together = stacked(nets)
    torch.testing.assert_close(together(x, y), apart(nets, x, y), rtol=1e-3, atol=1e-5)
    ways = {"one after the other": lambda: apart(nets, x, y), "stacked": lambda: together(x, y)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.runs):
        for name, step in ways.items():
            began = time.perf_counter()
            for _ in range(options.steps):
                step()
            seconds[name].append(time.perf_counter() - began)
    pictures = options.networks * options.images * options.steps
    microseconds = {name: 1e6 * statistics.median(runs) / pictures for name, runs in seconds.items()}
    for name, each in microseconds.items():
        print(f"{name}: {each:.1f} microseconds an image and step")
    results = vars(options) | {
        "microseconds_per_image_and_step": {name: round(each, 1) for name, each in microseconds.items()},
        "environment": provenance.environment(torch.device("cpu")),
    }
    output = Path(__file__).parent / "results" / "stacked_training.json"
    output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
