"""One training loop for every model of the book: resumable, seeded, and stopped by a loss that is not finite."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustutils import artifacts, speed, storage
from robustutils.attacks import check_pixels, constant, plain_gradients, unchecked
from robustutils.data import Dataset
from robustutils.objectives import Objective

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
LOOK = 20
"""After how many steps on a GPU the losses are looked at: each look makes it wait. On a CPU none is taken unseen."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names epoch, step and setting."""


def warm_up_and_decay(progress: float) -> float:
    """A learning-rate schedule: straight up over the first 5% of the training, then straight down to zero."""
    return min(progress / 0.05, (1 - progress) / 0.95)


def late_decay(progress: float) -> float:
    """A learning-rate schedule: full until 95% of the training, then straight down to zero."""
    return min(1.0, (1 - progress) / 0.05)


def fit(
    model: nn.Module,
    dataset: Dataset,
    objective: Objective,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    schedule: Callable[[float], float] = constant,
    max_gradient_norm: float = math.inf,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train ``model`` in place with Adam and return it in evaluation mode.

    Every epoch visits all examples once in an order that depends on ``seed`` and the epoch alone; the last
    batch is topped up from the start of that order, so that all batches have one shape. The data live on the
    model's device. With a ``checkpoint`` path the state is stored there about once a minute, and a call that
    finds one goes on from it: an interrupted training ends with the same weights as an uninterrupted one.

    Args:
        model: takes float32 [N, C, H, W] in [0, 1], returns logits [N, K].
        dataset: the training set.
        objective: see :mod:`robustutils.objectives`. One with the attribute ``wants_rows = True`` also gets the places
            of its batch in the data set, ``rows=`` int64 [n].
        epochs, batch_size: positive integers; the batch is at most the data set.
        learning_rate: Adam's step size at ``schedule`` = 1.
        betas: decay of Adam's two moments.
        weight_decay: this times the weights is added to their gradient (L2, not decoupled).
        schedule: factor of the learning rate as a function of progress in [0, 1).
        max_gradient_norm: l2 norm to which the gradient is clipped.
        dtype: of forward and backward passes, see :func:`robustutils.speed.autocast`; weights and updates stay
            float32.
        seed: seeds data order, dropout and whatever the objective draws from torch's generators.
        checkpoint: file of the resumable state; the caller removes it. A damaged one is reported in the log, and the
            training begins anew.

    Raises:
        ValueError: an argument is out of range, or a pixel.
        TrainingError: the loss is not finite.
    """
    if epochs < 1 or not 1 <= batch_size <= len(dataset):
        raise ValueError(
            f"epochs={epochs}, batch_size={batch_size}: epochs must be at least 1 and the batch size "
            f"between 1 and the {len(dataset)} examples of {dataset.name}"
        )
    device = speed.device_of(model)
    if speed.effective(device, dtype) != dtype:
        log.info("training in float32: bfloat16 is slower on this %s", device.type)
    images, labels = dataset.images.to(device), dataset.labels.to(device)
    if isinstance(images, Tensor):  # else they are drawn when they are asked for
        check_pixels(images)
    optimiser = torch.optim.Adam(
        model.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
    )
    look = 1 if device.type == "cpu" else LOOK
    wants_rows = getattr(objective, "wants_rows", False)
    batches = math.ceil(len(dataset) / batch_size)
    step = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if checkpoint is not None:
            spent = artifacts.seconds_spent(checkpoint)
            step = _restore(checkpoint, model, optimiser)
        began = saved = time.monotonic()
        for epoch in range(step // batches, epochs):
            order = torch.randperm(
                len(dataset), generator=torch.Generator().manual_seed(seed * 100_003 + epoch)
            )
            order = torch.cat([order, order])[: batches * batch_size].to(device)
            model.train()
            unseen: list[Tensor] = []
            total, start = 0.0, step % batches
            for batch in range(start, batches):
                chosen = order[batch * batch_size : (batch + 1) * batch_size]
                progress = step / (epochs * batches)
                optimiser.param_groups[0]["lr"] = learning_rate * schedule(progress)
                rows: dict[str, Any] = {"rows": chosen} if wants_rows else {}
                with speed.autocast(device, dtype), unchecked(), plain_gradients():
                    loss = objective(model, images[chosen], labels[chosen], progress, **rows)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if max_gradient_norm < math.inf:
                    nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
                unseen.append(loss.detach())
                due = checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS
                if due or batch + 1 == batches or len(unseen) == look:
                    values = torch.stack(unseen).tolist()
                    for number, value in enumerate(values, batch + 2 - len(values)):
                        if not math.isfinite(value):
                            raise TrainingError(
                                f"the loss is {value} at epoch {epoch + 1}, batch {number} of {batches} "
                                f"({objective}, learning rate {learning_rate}, {dtype}, seed {seed})"
                            )
                    total += sum(values)
                    unseen.clear()
                optimiser.step()
                step += 1
                if due and checkpoint is not None:
                    saved = time.monotonic()
                    _save(checkpoint, model, optimiser, step, spent + saved - began)
            log.info("epoch %d of %d: mean loss %.4f", epoch + 1, epochs, total / max(batches - start, 1))
    return model.eval()


def rounded(model: nn.Module) -> nn.Module:
    """The last step of training: weights and buffers rounded to half precision, so that a network is what its file holds.

    Raises:
        TrainingError: a weight is too large for it.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
                if not tensor.isfinite().all():
                    raise TrainingError(f"{name} holds a number that is not finite in half precision")
    return model


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, seconds: float) -> None:
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        state |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    state["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["cuda_random"] = torch.cuda.get_rng_state()
    storage.write(path, path.name, state, step=step, seconds=seconds)


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take up the state of a checkpoint; returns the steps done, 0 where there is none that can be used."""
    try:
        state, about = storage.read(path, path.name)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in _part(state, "model.").items()}:
            raise storage.Damaged("its tensors have other names or shapes")
    except FileNotFoundError:
        return 0
    except (storage.Damaged, OSError) as problem:
        log.warning("damaged checkpoint %s (%s): training begins anew", path, problem)
        return 0
    model.load_state_dict(_part(state, "model."))
    parameters = list(model.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(state, "optimiser.").items():
        number, _, moment = name.partition(".")
        if tensor.ndim:  # the fused update wants the layout of the weights
            tensor = torch.empty_like(parameters[int(number)]).copy_(tensor)
        moments.setdefault(int(number), {})[moment] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})
    torch.set_rng_state(state["random"])
    if "cuda_random" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_random"])
    log.info("resuming after %d steps", about["step"])
    return int(about["step"])


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
