"""The training loop: its arithmetic, its data order, and what interruptions must not change."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustutils import artifacts, data, evaluation, models, speed, storage, training
from robustutils.attacks import FGSM
from robustutils.objectives import Clean
from robustutils.papers.blind_spot.recipes import halved_after_a_third
from robustutils.papers.disentangling.recipes import Exponential
from robustutils.papers.ensemble.objectives import EnsembleAdversarial
from robustutils.training import TrainingError, fit

SETTINGS = {"epochs": 3, "batch_size": 16, "seed": 5}  # 50 examples: 4 batches an epoch, 12 steps


@dataclass(repr=False)
class Recording:
    """Clean training that keeps what it is asked, and does something else at one step."""

    at: int = -1
    then: Callable[[Tensor], Tensor] = torch.clone
    batches: list[Tensor] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        self.batches.append(x)
        self.progress.append(progress)
        self.modes.append(model.training)
        loss = F.cross_entropy(model(x), y)
        return self.then(loss) if len(self.batches) == self.at else loss

    def examples(self) -> list[list[int]]:
        """The indices of the examples of each batch of ``tiny_data``."""
        return [(255 * batch[:, 0, 0, 0]).round().int().tolist() for batch in self.batches]


def stop(error: BaseException) -> Callable[[Tensor], Tensor]:
    def then(loss: Tensor) -> Tensor:
        raise error

    return then


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture
def checkpoints_after_every_step(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)


# ---- arithmetic and data order ----


def test_fit_does_what_a_loop_written_by_hand_does(tiny_data, tiny_net):
    def schedule(progress: float) -> float:
        return 1 - progress / 2

    found = tiny_net(dropout=0.0)
    recording = Recording()
    settings = SETTINGS | {"learning_rate": 0.01, "betas": (0.5, 0.9), "weight_decay": 0.1}
    fit(found, tiny_data, recording, **settings, schedule=schedule, max_gradient_norm=0.3)

    expected = tiny_net(dropout=0.0)
    optimiser = torch.optim.Adam(expected.parameters(), lr=0.01, betas=(0.5, 0.9))
    clipped = False
    for step, chosen in enumerate(recording.examples()):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * schedule(step / 12)
        optimiser.zero_grad()
        F.cross_entropy(expected(tiny_data.images[chosen]), tiny_data.labels[chosen]).backward()
        gradients = [p.grad for p in expected.parameters()]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        if norm > 0.3:
            clipped = True
            for gradient in gradients:
                gradient *= 0.3 / norm
        with torch.no_grad():
            for parameter in expected.parameters():
                parameter.grad += 0.1 * parameter  # L2 of the weights, not clipped
        optimiser.step()
    assert clipped, "the gradient norm should matter in this test"
    for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_every_batch_has_the_same_shape_and_every_epoch_visits_every_example(tiny_data, tiny_net):
    recording = Recording()
    fit(tiny_net(), tiny_data, recording, **SETTINGS)
    assert [len(batch) for batch in recording.examples()] == [16] * 12
    for epoch in range(3):
        visited = list(chain(*recording.examples()[4 * epoch : 4 * epoch + 4]))
        assert set(visited) == set(range(50))
        assert visited[50:] == visited[:14], "the last batch is topped up from the start of the order"


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50])
def test_any_batch_size_up_to_the_data_set_works(batch_size, tiny_data, tiny_net):
    recording = Recording()
    fit(tiny_net(), tiny_data, recording, epochs=1, batch_size=batch_size)
    assert len(recording.batches) == math.ceil(50 / batch_size)
    assert {len(batch) for batch in recording.batches} == {batch_size}
    assert set(chain(*recording.examples())) == set(range(50))


def test_order_depends_on_seed_and_epoch_alone(tiny_data, tiny_net):
    orders = []
    for seed, net_seed in ((5, 0), (5, 1), (6, 0)):
        recording = Recording()
        fit(tiny_net(net_seed), tiny_data, recording, epochs=2, batch_size=50, seed=seed)
        orders.append(recording.examples())
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0][0] != orders[0][1], "both epochs have the same order"


def test_progress_runs_from_zero_to_one(tiny_data, tiny_net):
    recording, rates = Recording(), []

    def schedule(progress: float) -> float:
        rates.append(progress)
        return 1.0

    fit(tiny_net(), tiny_data, recording, **SETTINGS, schedule=schedule)
    assert recording.progress == pytest.approx([step / 12 for step in range(12)])
    assert rates == recording.progress


def test_a_learning_rate_of_zero_leaves_the_weights(tiny_data, tiny_net):
    net = fit(tiny_net(), tiny_data, Clean(), **SETTINGS, schedule=lambda progress: 0.0)
    assert same_weights(net, tiny_net())


def test_it_trains_in_place_in_training_mode_and_returns_evaluation_mode(tiny_data, tiny_net):
    net, recording = tiny_net().eval(), Recording()
    returned = fit(net, tiny_data, recording, **SETTINGS)
    assert returned is net
    assert not any(part.training for part in net.modules())
    assert all(recording.modes)


def test_training_repeats_itself_and_differs_with_the_seed(tiny_data, tiny_net):
    first, again, other = (
        fit(tiny_net(), tiny_data, EnsembleAdversarial(eps=0.1), epochs=1, batch_size=16, seed=seed)
        for seed in (1, 1, 2)
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_the_callers_generator_is_left_alone(tiny_data, tiny_net):
    before = torch.get_rng_state()
    fit(tiny_net(), tiny_data, Clean(), **SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(OverflowError):
        fit(tiny_net(), tiny_data, Recording(at=3, then=stop(OverflowError())), **SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_reaches_the_same_accuracy_on_the_digits(digits):
    def accuracy(dtype: torch.dtype) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(1, 8, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))
        fit(net, digits, Clean(), epochs=4, batch_size=64, learning_rate=5e-3, dtype=dtype)
        assert {p.dtype for p in net.parameters()} == {torch.float32}
        with torch.no_grad():
            return (net(digits.images).argmax(1) == digits.labels).double().mean().item()

    full, half = accuracy(torch.float32), accuracy(torch.bfloat16)
    assert full > 0.9
    assert abs(full - half) <= 3 * math.sqrt(2 * full * (1 - full) / len(digits))


@pytest.mark.usefixtures("bfloat16")
def test_bfloat16_runs_the_objective_under_autocast(tiny_data, tiny_net):
    seen = []

    def objective(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        logits = model(x)
        seen.append(logits.dtype)
        return F.cross_entropy(logits, y)

    for dtype in (torch.float32, torch.bfloat16):
        fit(tiny_net(), tiny_data, objective, epochs=1, batch_size=50, dtype=dtype)
    assert seen == [torch.float32, torch.bfloat16]


def test_where_bfloat16_is_emulated_training_is_in_float32_and_says_so(
    tiny_data, tiny_net, monkeypatch, caplog
):
    monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.float32)
    asked, plain = tiny_net(), tiny_net()
    with caplog.at_level("INFO", "robustutils.training"):
        fit(asked, tiny_data, Clean(), epochs=1, batch_size=10, dtype=torch.bfloat16)
    assert "training in float32" in caplog.text
    fit(plain, tiny_data, Clean(), epochs=1, batch_size=10)
    for one, other in zip(asked.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_objective_that_wants_them_gets_the_places_of_its_batch(tiny_data, tiny_net):
    seen: list[tuple[list[int], list[int]]] = []

    def objective(
        model: nn.Module, x: Tensor, y: Tensor, progress: float, rows: Tensor | None = None
    ) -> Tensor:
        pixels = (255 * x[:, 0, 0, 0]).round().int().tolist()
        seen.append((pixels, [] if rows is None else rows.tolist()))
        return F.cross_entropy(model(x), y)

    fit(tiny_net(), tiny_data, objective, epochs=1, batch_size=16)
    assert not any(rows for _, rows in seen)
    seen.clear()
    objective.wants_rows = True  # type: ignore[attr-defined]
    fit(tiny_net(), tiny_data, objective, epochs=2, batch_size=16)
    assert len(seen) == 8
    assert all(pixels == rows for pixels, rows in seen)


# ---- interruptions ----


@pytest.mark.parametrize("after", [1, 5, 8, 11])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OverflowError("killed")], ids=lambda e: type(e).__name__
)
@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_an_interrupted_training_ends_with_the_same_weights(after, error, tiny_data, tiny_net, tmp_path):
    """Dropout, data order and Adam's moments go on where they stopped, in the middle of an epoch or at its end."""
    settings = SETTINGS | {"learning_rate": 0.01, "schedule": lambda progress: 1 - progress}
    whole = fit(tiny_net(), tiny_data, Clean(), **settings)

    checkpoint = tmp_path / "state.checkpoint"
    killed = tiny_net()
    with pytest.raises(type(error)):
        fit(killed, tiny_data, Recording(at=after + 1, then=stop(error)), **settings, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["state.checkpoint"]
    assert not same_weights(killed, whole)

    recording = Recording()
    resumed = fit(tiny_net(seed=9), tiny_data, recording, **settings, checkpoint=checkpoint)
    assert len(recording.batches) == 12 - after, "it did not go on from the checkpoint"
    assert same_weights(resumed, whole)


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_two_interruptions_and_an_objective_that_draws(tiny_data, tiny_net, tmp_path):
    source = tiny_net(seed=7).train()
    objective = EnsembleAdversarial(eps=0.1, sources=(source,))
    whole = fit(tiny_net(), tiny_data, objective, **SETTINGS)
    checkpoint, steps = tmp_path / "state.checkpoint", []

    def fragile(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
        steps.append(progress)
        if len(steps) in {3, 9}:
            raise KeyboardInterrupt
        return objective(model, x, y, progress)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_net(), tiny_data, fragile, **SETTINGS, checkpoint=checkpoint)
    assert same_weights(fit(tiny_net(), tiny_data, fragile, **SETTINGS, checkpoint=checkpoint), whole)


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_resuming_is_logged(tiny_data, tiny_net, tmp_path, caplog):
    checkpoint = tmp_path / "state.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(
            tiny_net(),
            tiny_data,
            Recording(at=7, then=stop(KeyboardInterrupt())),
            **SETTINGS,
            checkpoint=checkpoint,
        )
    with caplog.at_level(logging.INFO, logger="robustutils.training"):
        fit(tiny_net(), tiny_data, Clean(), **SETTINGS, checkpoint=checkpoint)
    assert "resuming after 6 steps" in caplog.text
    assert "epoch 3 of 3: mean loss" in caplog.text
    assert "epoch 1 of 3" not in caplog.text


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_a_kill_while_the_checkpoint_is_written_leaves_the_last_good_one(
    tiny_data, tiny_net, tmp_path, monkeypatch
):
    whole = fit(tiny_net(), tiny_data, Clean(), **SETTINGS)
    checkpoint, save, saves = tmp_path / "state.checkpoint", safetensors.torch.save_file, []

    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        saves.append(path)
        if len(saves) == 6:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_net(), tiny_data, Clean(), **SETTINGS, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["state.checkpoint"]
    recording = Recording()
    assert same_weights(fit(tiny_net(), tiny_data, recording, **SETTINGS, checkpoint=checkpoint), whole)
    assert len(recording.batches) == 12 - 5


def test_without_a_minute_gone_by_no_checkpoint_is_written(tiny_data, tiny_net, tmp_path):
    fit(tiny_net(), tiny_data, Clean(), **SETTINGS, checkpoint=tmp_path / "state.checkpoint")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_a_finished_training_is_not_repeated(tiny_data, tiny_net, tmp_path):
    checkpoint = tmp_path / "state.checkpoint"
    whole = fit(tiny_net(), tiny_data, Clean(), **SETTINGS, checkpoint=checkpoint)
    recording = Recording()
    assert same_weights(fit(tiny_net(3), tiny_data, recording, **SETTINGS, checkpoint=checkpoint), whole)
    assert recording.batches == []


def interrupted(net: nn.Module, images: data.Dataset, checkpoint: Path) -> bytes:
    """Train to the seventh of twelve steps and leave a checkpoint; returns its content."""
    stopped = Recording(at=8, then=stop(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fit(net, images, stopped, **SETTINGS, checkpoint=checkpoint)
    return checkpoint.read_bytes()


def of_a_wider_network(checkpoint: Path) -> bytes:
    """The checkpoint with another shape of the last layer's bias."""
    state, about = storage.read(checkpoint)
    state["model.4.bias"] = torch.zeros(7)
    storage.write(checkpoint, checkpoint.name, state, **about)
    return checkpoint.read_bytes()


@pytest.mark.usefixtures("checkpoints_after_every_step")
@pytest.mark.parametrize(
    "kind", ["empty", "truncated", "a bit flipped", "a pickle", "another's", "of a wider network"]
)
def test_a_damaged_checkpoint_is_reported_and_training_begins_anew(
    kind, tiny_data, tiny_net, tmp_path, pickle_trap, caplog
):
    whole = fit(tiny_net(), tiny_data, Clean(), **SETTINGS)
    checkpoint, (pickle, sprung) = tmp_path / "state.checkpoint", pickle_trap
    raw = interrupted(tiny_net(), tiny_data, checkpoint)
    damaged = {
        "empty": b"",
        "truncated": raw[:-5],
        "a bit flipped": raw[:-50] + bytes([raw[-50] ^ 4]) + raw[-49:],
        "a pickle": pickle,
        "another's": interrupted(tiny_net(3), tiny_data, tmp_path / "other.checkpoint"),
        "of a wider network": of_a_wider_network(checkpoint),
    }
    checkpoint.write_bytes(damaged[kind])
    recording = Recording()
    again = fit(tiny_net(), tiny_data, recording, **SETTINGS, checkpoint=checkpoint)
    assert same_weights(again, whole)
    assert len(recording.batches) == 12, "it went on from a damaged checkpoint"
    assert f"damaged checkpoint {checkpoint}" in caplog.text
    assert not sprung.exists(), "the file was unpickled"


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_a_bit_flipped_anywhere_in_the_head_of_a_checkpoint_stops_no_training(
    tiny_data, tiny_net, tmp_path, caplog
):
    checkpoint = tmp_path / "state.checkpoint"
    interrupted(tiny_net(), tiny_data, checkpoint)
    raw = checkpoint.read_bytes()
    head = 8 + int.from_bytes(raw[:8], "little")
    for position in range(0, head, 7):
        caplog.clear()
        checkpoint.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        fit(tiny_net(), tiny_data, Clean(), epochs=1, batch_size=50, checkpoint=checkpoint)
        assert "damaged checkpoint" in caplog.text, raw[max(0, position - 20) : position + 20]


@pytest.mark.usefixtures("checkpoints_after_every_step")
def test_a_checkpoint_says_what_the_training_has_cost_so_far(tiny_data, tiny_net, tmp_path, monkeypatch):
    checkpoint = tmp_path / "state.checkpoint"
    assert artifacts.seconds_spent(checkpoint) == 0
    clock = iter(range(0, 10**6, 10))  # every look at the clock is ten seconds later
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    interrupted(tiny_net(), tiny_data, checkpoint)
    first = artifacts.seconds_spent(checkpoint)
    assert first >= 7 * 10, "a step takes a look at the clock"
    with pytest.raises(KeyboardInterrupt):
        fit(
            tiny_net(),
            tiny_data,
            Recording(at=2, then=stop(KeyboardInterrupt())),
            **SETTINGS,
            checkpoint=checkpoint,
        )
    assert first + 10 <= artifacts.seconds_spent(checkpoint) < first + 50
    checkpoint.write_bytes(b"damaged")
    assert artifacts.seconds_spent(checkpoint) == 0


# ---- half precision ----


def test_rounded_weights_and_buffers_are_those_of_half_precision():
    net = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert training.rounded(net) is net
    for name, tensor in net.state_dict().items():
        assert tensor.dtype == before[name].dtype, "networks compute in float32"
        assert torch.equal(tensor, before[name].half().to(tensor.dtype)), name
    assert not torch.equal(net[0].weight, before["0.weight"]), "there should be something to round"
    assert net[1].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("value", [1e5, -1e5, math.nan])
def test_weights_beyond_half_precision_are_refused_by_name(value):
    net = nn.Linear(5, 3)
    with torch.no_grad():
        net.bias[1] = value
    with pytest.raises(TrainingError, match=r"bias.*half precision"):
        training.rounded(net)


# ---- complaints ----


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_setting(value, tiny_data, tiny_net):
    net, before = tiny_net(), []

    def spoil(loss: Tensor) -> Tensor:
        before.extend(p.detach().clone() for p in net.parameters())
        return loss * value

    message = rf"loss is {value}.*epoch 2, batch 2 of 4.*Recording.*0\.02.*float32.*seed 5"
    with pytest.raises(TrainingError, match=message):
        fit(net, tiny_data, Recording(at=6, then=spoil), **SETTINGS, learning_rate=0.02)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True)), (
        "it took the bad step"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": -2}, "epochs=-2"),
        ({"batch_size": 0}, "batch_size=0.* 50 .*tiny"),
        ({"batch_size": 51}, "batch_size=51.* 50 .*tiny"),
        ({"learning_rate": -0.1}, r"learning rate.*-0\.1"),
    ],
)
def test_arguments_out_of_range_are_refused_before_training(changes, message, tiny_data, tiny_net):
    recording = Recording()
    with pytest.raises(ValueError, match=message):
        fit(tiny_net(), tiny_data, recording, **SETTINGS | changes)
    assert recording.batches == []


def test_warm_up_and_decay_rises_and_falls_in_straight_lines():
    assert [training.warm_up_and_decay(t) for t in (0.0, 0.025, 0.05, 0.525, 1.0)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0]
    )


def test_late_decay_is_full_until_the_last_twentieth_and_falls_in_a_straight_line():
    assert [training.late_decay(t) for t in (0.0, 0.5, 0.94)] == [1.0, 1.0, 1.0]
    assert [training.late_decay(t) for t in (0.95, 0.975, 0.99, 1.0)] == pytest.approx([1, 0.5, 0.2, 0])


def test_halving_starts_ten_of_sixty_epochs_after_a_third():
    rates = [halved_after_a_third(epoch / 60) for epoch in range(60)]
    assert rates == [1.0] * 30 + [0.5] * 10 + [0.25] * 10 + [0.125] * 10


@pytest.mark.usefixtures("bfloat16")
def test_training_in_bfloat16_ends_where_float32_does(digits):
    train, test = digits.first(640), data.load("digits", "test")
    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        for seed in range(2):
            net = models.build("small_cnn", seed=seed)
            objective = EnsembleAdversarial(eps=0.1)
            fit(net, train, objective, epochs=4, batch_size=64, dtype=dtype, seed=seed)
            for name, images in {
                "clean": test.images,
                "FGSM": FGSM(eps=0.1)(net, test.images, test.labels),
            }.items():
                hits = evaluation.correct(net, images, test.labels)
                errors.setdefault((name, dtype), []).append(100 * (~hits).float().mean().item())
    for name in ("clean", "FGSM"):
        full, half = (torch.tensor(errors[name, dtype]) for dtype in (torch.float32, torch.bfloat16))
        spread = max(full.std().item(), half.std().item(), 0.5)
        assert (full.mean() - half.mean()).abs() < 3 * spread, f"{name}: {full} against {half}"


def test_the_exponential_schedule_decays_within_epochs_and_is_ahead_by_one():
    schedule = Exponential(decay=0.95, epochs=20)
    for epoch, share in ((0, 0.0), (0, 0.5), (7, 0.3), (19, 0.9)):
        assert schedule((epoch + share) / 20) == pytest.approx(0.95 ** (epoch + 1 + share))
    other = Exponential(decay=0.9, epochs=30)
    assert other(0.5) == pytest.approx(0.9**16)
    assert artifacts.describe(schedule) != artifacts.describe(other), "recipes are known by it"


@pytest.mark.parametrize(("decay", "epochs"), [(0.0, 20), (-0.9, 20), (1.1, 20), (math.nan, 20), (0.95, 0)])
def test_an_exponential_schedule_out_of_range_is_refused(decay, epochs):
    with pytest.raises(ValueError, match=rf"decay={decay}, epochs={epochs}"):
        Exponential(decay=decay, epochs=epochs)
