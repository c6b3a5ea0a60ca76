"""Artifacts: what a name and a key are made of, and what damage, interruptions and a bad folder do."""

import errno
import functools
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor, nn

from robustutils import (
    artifacts,
    attacks,
    bounds,
    data,
    evaluation,
    masking,
    models,
    objectives,
    provenance,
    recipes,
    speed,
    square,
    storage,
    threats,
    training,
)
from robustutils.artifacts import VERSIONS, Unnamed, cached, describe, kept, later, shelf
from robustutils.attacks import FGSM, IFGSM, PGD, RFGSM
from robustutils.papers.blind_spot import blind_spots, carlini, feature_distance
from robustutils.papers.ensemble import subspaces
from robustutils.papers.ensemble.models import Average
from robustutils.papers.invariance import acgan
from robustutils.storage import CacheError, Damaged, tensor_hash, write_atomically
from robustutils.threats import L2, Linf

CPU = torch.device("cpu")
TENSORS = {"a.weight": torch.arange(4.0), "b.bias": torch.ones(2), "c": torch.tensor([[1, 2]])}


class Build:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, checkpoint: Path) -> dict[str, Tensor]:
        self.calls += 1
        return TENSORS


def ask(build: Callable[[Path], dict[str, Tensor]], key: str = "thing-1", **settings) -> dict[str, Tensor]:
    return cached(key, build, device=CPU, **settings)[0]


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        torch.equal(found[k], TENSORS[k]) and found[k].dtype == TENSORS[k].dtype for k in found
    )


# ---- the cache ----


def test_the_second_call_reads_the_cache(cache):
    build = Build()
    assert same(ask(build))
    assert same(ask(build))
    assert build.calls == 1
    assert [path.name for path in cache.iterdir()] == ["thing-1.safetensors"]


def test_another_key_is_another_artifact(cache):
    build = Build()
    ask(build)
    ask(build, "thing-2")
    assert build.calls == 2
    assert len(list(cache.iterdir())) == 2


def test_tensors_come_back_as_contiguous_cpu_tensors_without_history():
    weight = nn.Parameter(torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last))
    first = ask(lambda checkpoint: {"w": weight * 1})
    second = ask(lambda checkpoint: {})
    for found in (first["w"], second["w"]):
        assert torch.equal(found, weight)
        assert not found.requires_grad
        assert found.is_contiguous()


def test_one_tensor_under_two_names_is_kept_twice():
    both = torch.arange(6.0)
    for _ in range(2):
        found = ask(lambda checkpoint: {"all": both, "again": both, "end": both[3:]})
        assert [len(found[name]) for name in ("all", "again", "end")] == [6, 6, 3]


def truncated(raw: bytes) -> list[bytes]:
    return [raw[:n] for n in (0, 1, 7, 8, 20, len(raw) // 2, len(raw) - 9, len(raw) - 1)]


def bit_flipped(raw: bytes) -> list[bytes]:
    """One flipped bit in every third byte."""
    return [raw[:at] + bytes([raw[at] ^ 1 << (at % 7)]) + raw[at + 1 :] for at in range(0, len(raw), 3)]


def other_content(raw: bytes) -> list[bytes]:
    return [b"not a tensor file", raw + b"more", raw[:-8] + bytes(8), raw.replace(b"thing", b"thong")]


@pytest.mark.parametrize("damage", [truncated, bit_flipped, other_content])
def test_a_damaged_file_is_reported_and_built_anew(damage, cache, caplog):
    build = Build()
    ask(build)
    (path,) = cache.iterdir()
    for calls, damaged in enumerate(damage(path.read_bytes()), 2):
        caplog.clear()
        path.write_bytes(damaged)
        assert same(ask(build))
        assert build.calls == calls, f"this file was taken for whole: {damaged!r}"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert f"damaged cache file {path}" in record.getMessage()
        assert same(ask(build))
        assert build.calls == calls, "the file that was built anew is not whole"


def test_a_pickle_in_place_of_an_artifact_is_not_unpickled(pickle_trap, cache, caplog):
    pickle, sprung = pickle_trap
    build = Build()
    ask(build)
    (path,) = cache.iterdir()
    for raw in (pickle, path.read_bytes() + pickle):
        path.write_bytes(raw)
        assert same(ask(build))
        assert not sprung.exists(), "the file was unpickled"
    assert build.calls == 3
    assert caplog.text.count("damaged cache file") == 2


def test_two_files_that_have_been_exchanged_are_found_out(cache, caplog):
    for key, value in (("thing-1", 1.0), ("thing-2", 2.0)):
        ask(lambda checkpoint, value=value: {"value": torch.tensor(value)}, key)
    one, other = sorted(cache.iterdir())
    raw = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(raw)
    for key, path, holds in (("thing-1", one, "thing-2"), ("thing-2", other, "thing-1")):
        caplog.clear()
        assert same(ask(Build(), key))
        assert f"damaged cache file {path} (it holds {holds})" in caplog.text


def test_tensors_of_another_shape_are_built_anew(cache, caplog):
    ask(lambda checkpoint: {"a": torch.ones(3)})
    build = Build()
    assert same(ask(build, fits=lambda tensors: tensors.keys() == TENSORS.keys()))
    assert build.calls == 1
    assert "damaged cache file" in caplog.text
    assert "its tensors have other names or shapes" in caplog.text


def test_a_file_of_someone_else_says_nothing_of_itself(tmp_path):
    path = tmp_path / "other.safetensors"
    storage.safetensors.torch.save_file(TENSORS, path)
    for look in (storage.header, storage.read):
        with pytest.raises(Damaged, match="about, "):
            look(path)


def test_what_is_written_is_read_with_what_it_says_about_itself(tmp_path):
    path = tmp_path / "a.safetensors"
    storage.write(path, "the-key", TENSORS, seconds=1.5, places=[1, 2])
    tensors, about = storage.read(path, "the-key")
    assert same(tensors)
    assert about == {"seconds": 1.5, "places": [1, 2]}
    assert storage.header(path)["key"] == "the-key"
    with pytest.raises(Damaged, match="the-key"):
        storage.read(path, "another")


def test_an_unwritable_folder_is_named_with_the_variable_that_sets_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(folder))
    build = Build()
    with pytest.raises(CacheError) as error:
        ask(build)
    assert f"the cache folder {folder} cannot be written" in str(error.value)
    assert "set ROBUSTUTILS_CACHE to a folder that can" in str(error.value)
    assert build.calls == 0, "found out only after the work was done"
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(tmp_path / "good"))
    assert same(ask(build))


def test_the_folder_is_the_users_where_the_variable_is_not_set(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home" / name))
    for unset in (
        lambda: monkeypatch.delenv("ROBUSTUTILS_CACHE"),
        lambda: monkeypatch.setenv("ROBUSTUTILS_CACHE", ""),
    ):
        unset()
        assert storage.folder() == tmp_path / "home" / "robustutils"
    assert list(storage.folder().iterdir()) == []


@pytest.mark.parametrize("error", [OverflowError("no"), KeyboardInterrupt()], ids=repr)
def test_nothing_half_written_after_an_exception_in_build(error, cache):
    def failing(checkpoint: Path) -> dict[str, Tensor]:
        raise error

    with pytest.raises(type(error)):
        ask(failing)
    assert list(cache.iterdir()) == []
    assert same(ask(Build()))


def test_nothing_half_written_after_an_exception_while_saving(cache, monkeypatch):
    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage.safetensors.torch, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            ask(Build())
    assert list(cache.iterdir()) == []
    assert same(ask(Build()))


def test_a_checkpoint_outlives_an_interruption_and_goes_on_success(cache):
    def interrupted(checkpoint: Path) -> dict[str, Tensor]:
        checkpoint.write_text("half way")
        raise KeyboardInterrupt

    def resumed(checkpoint: Path) -> dict[str, Tensor]:
        assert checkpoint.read_text() == "half way"
        return TENSORS

    with pytest.raises(KeyboardInterrupt):
        ask(interrupted)
    assert [path.suffix for path in cache.iterdir()] == [".checkpoint"]
    assert same(ask(resumed))
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_writing_atomically_replaces_on_success_only(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, lambda partial: partial.write_text("one") and None)
    assert path.read_text() == "one"

    def half(partial: Path) -> None:
        assert partial.parent == path.parent
        partial.write_text("two")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, half)
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_tensor_hash_sees_shape_type_and_content_but_not_layout():
    x = torch.rand(2, 3, 4, 4)
    assert tensor_hash(x) == tensor_hash(x.clone().to(memory_format=torch.channels_last))
    assert tensor_hash(x) == tensor_hash(nn.Parameter(x))
    distinct = [
        (x,),
        (x.flatten(),),
        (x.double(),),
        (x.bfloat16(),),
        (-x,),
        (x, x),
        (x[0], x[1]),
        (x > 0.5,),
        (),
    ]
    assert len({tensor_hash(*tensors) for tensors in distinct}) == len(distinct)


# ---- certificates ----


def test_an_artifact_has_the_certificate_of_its_making(monkeypatch):
    monkeypatch.setattr(provenance, "started_from", lambda: "abc123")
    clock = iter([100.0, 112.5])
    with monkeypatch.context() as patch:
        patch.setattr(artifacts.time, "monotonic", lambda: next(clock))
        _, made = cached("thing-1", Build(), device=CPU, dtype=torch.bfloat16, threads=3)
    assert made == provenance.certificate(CPU, torch.bfloat16, 12.5, 3)
    assert (made["commit"], made["precision"], made["threads"]) == ("abc123", "bfloat16", "3")
    monkeypatch.setattr(provenance, "started_from", lambda: "another commit")
    assert cached("thing-1", Build(), device=CPU)[1] == made, "it is that of the making, not of the reading"


def test_the_seconds_of_an_interrupted_making_count(monkeypatch):
    def interrupted(checkpoint: Path) -> dict[str, Tensor]:
        storage.write(checkpoint, checkpoint.name, TENSORS, seconds=1000.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(interrupted)
    assert 1000 <= cached("thing-1", Build(), device=CPU)[1]["seconds"] < 1060


# ---- descriptions ----


@dataclass(frozen=True)
class Setting:
    value: object = 1


def own_function(logits: Tensor, y: Tensor) -> Tensor:
    return logits


class OwnLayer(nn.ReLU):
    pass


class OwnAttack(FGSM):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("x", "x"),
        ([1, 2.5, (3, "4")], [1, 2.5, [3, "4"]]),
        ({1: {"b": torch.float32}}, {"1": {"b": "torch.float32"}}),
        (Linf(eps=0.3), {"is": "Linf", "eps": 0.3}),
        (FGSM(eps=0.3, dtype=torch.bfloat16), {"is": "FGSM", "eps": 0.3, "dtype": "torch.bfloat16"}),
        (FGSM(eps=0.3, dtype=torch.float32), {"is": "FGSM", "eps": 0.3}),
        (attacks.Adam(betas=(0.9, 0.999)), {"is": "Adam"}),
        (attacks.margin, "margin"),
        (nn.functional.cross_entropy, "torch.cross_entropy"),
        (nn.ReLU, "torch.ReLU"),
    ],
)
def test_a_description_is_what_it_is_and_what_differs_from_the_defaults(value, expected):
    found = describe(value)
    assert found == expected
    json.dumps(found)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        Path("x"),
        np.zeros(2),
        b"bytes",
        1j,
        (i for i in range(2)),
        torch.Generator(),
        CPU,
        max,
        own_function,
        functools.partial(attacks.margin),
        lambda progress: 1 - progress,
        Setting(),
        Setting,
        OwnAttack(eps=0.1),
        PGD(threat=Linf(eps=0.1), steps=1, step_size=0.1, loss=own_function),
        OwnLayer(),
        nn.Sequential(nn.Sequential(OwnLayer())),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_has_no_name_is_refused_wherever_it_is(value):
    for holder in (value, [0, value], {"setting": value}):
        with pytest.raises(Unnamed):
            describe(holder)
        with pytest.raises(Unnamed):
            _ = later(attacks.margin, holder, torch.zeros(1)).name


# ---- names ----


def network(seed: int = 0, *layers: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3))


PGD_2 = PGD(threat=Linf(eps=0.1), steps=2, step_size=0.05)


@pytest.fixture
def call(tiny_data) -> Callable[..., artifacts.Call]:
    """The artifact of an attack on the tiny images, of which some things are changed."""

    def make(net=None, attack=PGD_2, images=tiny_data, **settings) -> artifacts.Call:
        return later(evaluation.adversarial, net or network(), attack, images, **settings)

    return make


def edited(module: ModuleType, *edits: tuple[str, str], name: str = "") -> ModuleType:
    """A module of the package after an edit of its source, also under another name."""
    source = Path(str(module.__file__)).read_text()
    for old, new in edits:
        assert source.count(old) >= 1, f"{old!r} is not in {module.__name__}"
        source = source.replace(old, new)
    copy = ModuleType(name or module.__name__)
    exec(compile(source, str(module.__file__), "exec"), vars(copy))
    return copy


KEEPS = {
    "the message of an error": (attacks, "must lie in [0", "has to be in [0"),
    "a docstring": (attacks, "One random and one gradient step.", "Two steps."),
    "a comment": (evaluation, "    start = 0\n", "    start = 0  # of the next batch\n"),
    "a local annotation": (evaluation, "done: list[Tensor] = []", "done = []"),
    "an annotation": (evaluation, "batch_size: int = 500", "batch_size: float = 500"),
    "a new argument": (evaluation, "batch_size: int = 500", "verbose: bool = False, batch_size: int = 500"),
    "a new field": (threats, "    eps: float\n", "    eps: float\n    slack: float = 0.0\n"),
    "a new field of an attack": (
        attacks,
        "    steps: int = 40\n",
        "    steps: int = 40\n    rest: int = 1\n",
    ),
    "another default, where a value is given": (attacks, "    steps: int = 40\n", "    steps: int = 50\n"),
}


def name_of(attacks: ModuleType, evaluation: ModuleType, threats: ModuleType, images: data.Dataset) -> str:
    attack = attacks.PGD(threat=threats.Linf(eps=0.1), steps=2, step_size=0.05)
    return later(evaluation.adversarial, network(), attack, images).name


PACKAGE = {"attacks": attacks, "evaluation": evaluation, "threats": threats}


@pytest.mark.parametrize("edit", KEEPS.values(), ids=KEEPS)
def test_an_edit_that_moves_no_number_moves_no_name(edit, tiny_data):
    module, old, new = edit
    before = name_of(**PACKAGE, images=tiny_data)
    changed = {module.__name__.split(".")[1]: edited(module, (old, new))}
    assert name_of(**PACKAGE | changed, images=tiny_data) == before


@pytest.mark.parametrize("module", PACKAGE)
def test_what_moves_to_another_module_keeps_its_name(module, tiny_data):
    moved = {module: edited(PACKAGE[module], name="robustutils.elsewhere")}
    assert name_of(**PACKAGE | moved, images=tiny_data) == name_of(**PACKAGE, images=tiny_data)
    moved = {module: edited(PACKAGE[module], name="elsewhere")}
    with pytest.raises(Unnamed, match="own"):
        name_of(**PACKAGE | moved, images=tiny_data)


def test_a_name_is_the_same_however_the_arguments_are_given(tiny_data, call):
    by_name = later(
        evaluation.adversarial, seed=0, batch_size=500, dataset=tiny_data, attack=PGD_2, model=network()
    )
    assert by_name.name == call().name
    assert by_name.key == call().key


CHANGES: dict[str, Callable[[data.Dataset], dict[str, object]]] = {
    "radius": lambda images: {"attack": PGD(threat=Linf(eps=0.10000001), steps=2, step_size=0.05)},
    "norm": lambda images: {"attack": PGD(threat=L2(eps=0.1), steps=2, step_size=0.05)},
    "steps": lambda images: {"attack": PGD(threat=Linf(eps=0.1), steps=3, step_size=0.05)},
    "loss": lambda images: {
        "attack": PGD(threat=Linf(eps=0.1), steps=2, step_size=0.05, loss=attacks.margin)
    },
    "another attack of the same fields": lambda images: {"attack": FGSM(eps=0.1)},
    "and another": lambda images: {"attack": IFGSM(eps=0.1)},
    "seed of the attack": lambda images: {"attack": RFGSM(eps=0.1, seed=1)},
    "dtype": lambda images: {"attack": RFGSM(eps=0.1, dtype=torch.bfloat16)},
    "seed": lambda images: {"seed": 1},
    "batch size": lambda images: {"batch_size": 10},
    "fewer images": lambda images: {"images": images.first(49)},
    "one pixel": lambda images: {"images": images.changed(images.images + 1e-7)},
    "weights": lambda images: {"net": network(1)},
    "number of layers": lambda images: {"net": network(0, nn.Identity())},
    "a layer without weights": lambda images: {"net": network(0, nn.ReLU())},
    "another layer without weights": lambda images: {"net": network(0, nn.Tanh())},
    "half the weights": lambda images: {"net": network().double()},
    "a plain attribute": lambda images: {"net": network(0, models.Binarise())},
    "another plain attribute": lambda images: {"net": network(0, models.Binarise(slope=2.0))},
    "a layer's setting": lambda images: {"net": network(0, nn.ELU(0.5))},
    "another setting": lambda images: {"net": network(0, nn.ELU(0.6))},
    "a setting that torch does not print": lambda images: {"net": network(0, nn.AvgPool2d(3, 1, 1))},
    "and its other value": lambda images: {"net": network(0, nn.AvgPool2d(3, 1, 1, count_include_pad=False))},
}


def test_every_change_that_may_move_a_number_moves_name_and_key(tiny_data, call):
    calls = [call(), *(call(**change(tiny_data)) for change in CHANGES.values())]
    for what in ("name", "key"):
        known: dict[str, str] = {}
        for change, one in zip(["nothing", *CHANGES], calls, strict=True):
            other = known.setdefault(getattr(one, what), change)
            assert other == change, f"{change} and {other} have one {what}"


def test_a_layer_that_comes_twice_counts_twice():
    layer, act = nn.Linear(3, 3), nn.ReLU()
    once = nn.Sequential(layer, act, nn.Linear(3, 3))
    assert describe(once) != describe(nn.Sequential(*once, act))
    assert describe(nn.Sequential(layer)) != describe(nn.Sequential(layer, layer))
    other = nn.Linear(3, 3)
    assert describe(nn.Sequential(layer, other, layer)) != describe(nn.Sequential(layer, other, other))


def test_a_network_of_the_same_layers_and_weights_is_the_same(call):
    assert call(net=network()).name == call(net=network().eval()).name
    layout = network().to(memory_format=torch.channels_last)
    assert call(net=layout).name == call().name


@pytest.mark.parametrize("raised", ["adversarial", "PGD", "Linf", "Binarise"])
def test_a_raised_version_moves_the_names_it_is_part_of_and_no_others(raised, call, monkeypatch):
    whole, plain = (
        call(net=network(0, models.Binarise())),
        later(attacks.margin, torch.zeros(1, 2), torch.zeros(1)),
    )
    before = whole.name, whole.key, plain.name
    monkeypatch.setitem(VERSIONS, raised, 2)
    whole, plain = (
        call(net=network(0, models.Binarise())),
        later(attacks.margin, torch.zeros(1, 2), torch.zeros(1)),
    )
    assert whole.name != before[0]
    assert whole.key != before[1]
    assert plain.name == before[2]
    second = whole.name
    monkeypatch.setitem(VERSIONS, raised, 3)
    assert call(net=network(0, models.Binarise())).name != second


def test_versions_are_those_of_something_and_above_one():
    assert all(isinstance(version, int) and version > 1 for version in VERSIONS.values())
    assert VERSIONS.keys() <= {name for name, _ in nameable()}


def test_a_default_that_is_given_moves_no_name(call):
    given = PGD(
        threat=Linf(eps=0.1),
        steps=2,
        step_size=0.05,
        loss=attacks.cross_entropy,
        dtype=torch.bfloat16,
        seed=0,
    )
    assert call(attack=given, seed=0, batch_size=500).name == call().name


def test_names_leave_float32_out_which_was_the_default_once():
    """Outcomes are published under names from before attacks chose their precision."""
    described = [
        describe(PGD(threat=Linf(eps=0.1), dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)
    ]
    assert ["dtype" in found for found in described] == [False, True]


def test_precision_is_part_of_the_key_and_not_of_the_name(call, monkeypatch):
    """What a machine makes of bfloat16 is its own; the name says what was asked for."""
    found = {}
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(speed, "fast_dtype", lambda device, fast=fast: fast)
        for asked in (torch.bfloat16, torch.float32):
            one = call(attack=FGSM(eps=0.1, dtype=asked))
            found[fast, asked] = one.name, one.key
    names, keys = ({pair: both[i] for pair, both in found.items()} for i in (0, 1))
    fast, slow = torch.bfloat16, torch.float32
    assert names[fast, fast] == names[slow, fast], "the same on every machine"
    assert names[fast, fast] != names[fast, slow]
    assert keys[fast, fast] != keys[slow, fast], "another machine's numbers were taken"
    assert keys[slow, fast] == keys[slow, slow] == keys[fast, slow], "all three run in float32"


def nameable() -> list[tuple[str, object]]:
    """The functions and classes that a name can hold, with their names."""
    modules = (
        attacks, blind_spots, bounds, carlini, recipes, evaluation, acgan, feature_distance, masking, models,
        objectives, square, subspaces, threats, training,
    )  # fmt: skip
    return [
        (item.__qualname__, item)
        for module in modules
        for item in vars(module).values()
        if isinstance(item, (FunctionType, type)) and item.__module__ == module.__name__
    ]


def test_names_are_unambiguous():
    count = Counter(name for name, _ in nameable())
    assert count["PGD"] == 1
    twice = {name for name, times in count.items() if times > 1}
    assert twice <= {"constant"}, "two things of one name"
    assert {f(progress) for name, f in nameable() if name == "constant" for progress in (0.0, 0.5)} == {1.0}


# ---- calls ----


def test_a_call_is_kept_under_its_key_and_is_its_value(tiny_data, cache):
    one = later(evaluation.losses, network(), tiny_data.images, tiny_data.labels)
    assert not cache.exists(), "it is computed when it is called for"
    expected = evaluation.losses(network(), tiny_data.images, tiny_data.labels)
    assert torch.equal(one(), expected)
    assert [path.name for path in cache.iterdir()] == [f"{one.key}.safetensors"]
    assert one.name.startswith("losses-")
    assert torch.equal(kept(evaluation.losses, network(), tiny_data.images, tiny_data.labels), expected)


def test_several_tensors_come_back_by_name(tiny_data):
    found = [kept(evaluation._verdicts, network(), FGSM(eps=0.1), tiny_data) for _ in range(2)]
    for verdicts in found:
        assert verdicts.keys() == {"clean", "attacked", "blind", "unsteady", "searching"}
    assert torch.equal(found[0]["attacked"], found[1]["attacked"])


def test_what_has_no_name_is_computed_at_every_call_and_says_why(tiny_data, cache, caplog):
    caplog.set_level(logging.INFO)
    asked = []

    def own(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.mean()

    for _ in range(2):
        assert kept(own, tiny_data.images) == tiny_data.images.mean()
    assert asked == [50, 50]
    assert "computed and not kept" in caplog.text
    assert "own is not the book's own" in caplog.text
    assert not cache.exists()


def test_arguments_that_are_artifacts_are_known_by_name_and_made_when_needed(tiny_data, monkeypatch):
    made = []
    monkeypatch.setattr(
        artifacts.Call,
        "_made",
        lambda self, made_by=artifacts.Call._made: made.append(self.kind) or made_by(self),
    )
    images = later(evaluation.adversarial, network(), FGSM(eps=0.1), tiny_data)
    for _ in range(2):
        fresh = later(evaluation.adversarial, network(), FGSM(eps=0.1), tiny_data)
        verdicts = kept(evaluation.correct, network(), fresh, tiny_data.labels)
        assert torch.equal(verdicts, evaluation.correct(network(), images(), tiny_data.labels))
    assert sorted(made) == ["adversarial", "correct"], "each is made once"


def test_a_model_put_together_is_known_by_its_parts_and_not_kept(tiny_data, cache):
    both = artifacts.composed(Average, network(0), network(1))
    assert both.name == artifacts.composed(Average, network(0), network(1)).name
    assert both.name != artifacts.composed(Average, network(0), network(2)).name
    assert both() is both(), "it is put together once"
    assert torch.equal(
        kept(evaluation.predicted, both, tiny_data.images),
        evaluation.predicted(Average(network(0), network(1)), tiny_data.images),
    )
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["predicted"]


def test_the_device_is_that_of_the_first_network(monkeypatch):
    monkeypatch.setattr(speed, "device_of", lambda model: next(model.parameters()).device)
    meta = network().to("meta")  # which stands for a GPU
    for arguments in ((meta, 1), (1, meta), ((4, 16), meta), ([meta, 1], 2), ([1, 2], [3, meta])):
        assert later(lambda one, other: None, *arguments).device.type == "meta", arguments
    assert later(lambda one, other: None, 1, ()).device.type == "cpu"


# ---- the shelf ----


def test_published_outcomes_come_before_the_cache_and_before_any_work(tiny_data, cache):
    one = later(evaluation.losses, network(), tiny_data.images, tiny_data.labels)
    shelf.outcomes[one.name] = {"value": torch.arange(50.0)}, {"commit": "published"}
    assert torch.equal(one(), torch.arange(50.0))
    assert not cache.exists()
    assert shelf.used == {one.name: {"commit": "published"}}
    assert torch.equal(shelf.small[one.name]["value"], torch.arange(50.0)), "they are published again"


def test_the_shelf_knows_what_a_run_has_used_and_keeps_what_is_small(tiny_data, monkeypatch):
    arguments = network(), tiny_data.images, tiny_data.labels
    monkeypatch.setattr(artifacts, "SMALL", 50 * 4)
    for _ in range(2):
        shelf.clear()
        losses, gradients = (later(f, *arguments) for f in (evaluation.losses, evaluation.loss_gradients))
        losses(), gradients()
        assert shelf.used.keys() == {losses.name, gradients.name}
        assert shelf.used[losses.name]["precision"] == "float32"
        assert shelf.small.keys() == {losses.name}, "50 numbers are small, 50 images are not"
    shelf.clear()
    assert shelf.used == shelf.small == shelf.outcomes == {}


def test_what_an_artifact_is_made_of_is_published_only_where_it_is_asked_for_itself(tiny_data):
    attack = PGD(threat=Linf(eps=0.1), steps=2, step_size=0.05)
    for again in range(2):
        shelf.clear()
        images = later(evaluation.adversarial, network(), attack, tiny_data)
        stands = later(evaluation.correct, network(), images, tiny_data.labels)
        stands()
        assert shelf.small.keys() == {stands.name}, ("from the cache" if again else "made", list(shelf.small))
        images()
        assert shelf.small.keys() == {stands.name, images.name}
    shelf.clear()
    with pytest.raises(KeyError), shelf.aside():
        raise KeyError
    stands()
    assert shelf.small.keys() == {stands.name}, "one that failed leaves nothing aside"


def test_certificates_name_the_precision_that_passes_ran_in(tiny_data, monkeypatch):
    for fast in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(speed, "fast_dtype", lambda device, fast=fast: fast)
        one = later(evaluation.adversarial, network(), FGSM(eps=0.1, dtype=torch.bfloat16), tiny_data)
        one()
        assert shelf.used[one.name]["precision"] == str(fast).removeprefix("torch.")


# ---- a disk that is full, a process that was killed ----


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
    safetensors.SafetensorError("I/O error: No space left on device"),
], ids=repr)  # fmt: skip
def test_a_disk_that_takes_nothing_is_told_with_file_reason_and_remedy(tmp_path, monkeypatch, error):
    path = tmp_path / "one.safetensors"
    storage.write(path, "key", TENSORS)
    before = path.read_bytes()

    def full(*_):
        raise error

    monkeypatch.setattr(storage.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"one\.safetensors cannot be written \(.*unchanged: free some space"):
        storage.write(path, "key", TENSORS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_files_that_belong_together_change_together_or_not_at_all(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"

    def full(partial: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="two cannot be written"):
        storage.write_together({one: lambda partial: partial.write_text("1", encoding="utf-8"), two: full})
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_takes_no_place_of_another(tmp_path):
    path = tmp_path / "page"
    for text in ("first", "second"):
        write = functools.partial(storage.write_atomically, path, new=True)
        if text == "first":
            write(lambda partial: partial.write_text("first", encoding="utf-8"))
        else:
            with pytest.raises(FileExistsError, match="page was made meanwhile and was left"):
                write(lambda partial: partial.write_text("second", encoding="utf-8"))
    assert path.read_text(encoding="utf-8") == "first"


def test_what_is_written_reaches_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((tmp_path / "page").exists()))
    write_atomically(tmp_path / "page", lambda partial: partial.write_text("text", encoding="utf-8"))
    assert synced == [False, True]


def test_leftovers_of_processes_that_are_gone_are_swept_and_others_are_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f"a.json.{gone.pid}.part", f"a.json.{os.getpid()}.part", "notes.part", f"b.{gone.pid}.part"]
    for name in names:
        (tmp_path / name).touch()
    os.utime(tmp_path / names[0], (0, 0))
    (tmp_path / f"html.{gone.pid}.part" / "_build").mkdir(parents=True)
    os.utime(tmp_path / f"html.{gone.pid}.part", (0, 0))
    write_atomically(tmp_path / "page", lambda partial: partial.write_text("text", encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"page", *names[1:]}, (
        "the last may be at work elsewhere"
    )
