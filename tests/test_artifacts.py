"""The artifact cache: what a key is made of, and what damage, interruptions and a bad folder do."""

import importlib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustutils import artifacts
from robustutils.artifacts import CacheError, cached, code_hash, describe, key, tensor_hash, write_atomically
from robustutils.threats import L2, Linf

TENSORS = {"a.weight": torch.arange(4.0), "b.bias": torch.ones(2), "c": torch.tensor([[1, 2]])}
CONFIG = {"eps": 0.3, "seed": 0}


class Build:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, checkpoint: Path) -> dict[str, Tensor]:
        self.calls += 1
        return TENSORS


def ask(build: Callable[[Path], dict[str, Tensor]], **config: object) -> dict[str, Tensor]:
    return cached("thing", CONFIG | config, (Linf,), build)


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
    assert [path.name for path in cache.iterdir()] == [f"thing-{key(CONFIG, Linf)}.safetensors"]


def test_another_configuration_is_another_artifact(cache):
    build = Build()
    ask(build)
    ask(build, eps=0.2)
    ask(build, seed=1)
    cached("other", CONFIG, (Linf,), build)
    cached("thing", CONFIG, (L2,), build)
    assert build.calls == 5
    assert len(list(cache.iterdir())) == 5


def test_tensors_come_back_as_contiguous_cpu_tensors_without_history():
    weight = nn.Parameter(torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last))
    first = cached("thing", CONFIG, (Linf,), lambda checkpoint: {"w": weight * 1})
    second = cached("thing", CONFIG, (Linf,), lambda checkpoint: {})
    for found in (first["w"], second["w"]):
        assert torch.equal(found, weight)
        assert not found.requires_grad
        assert found.is_contiguous()


def damage_by_truncation(raw: bytes) -> list[bytes]:
    return [raw[:n] for n in (0, 1, 7, 8, 20, len(raw) // 2, len(raw) - 9, len(raw) - 1)]


def names_of(raw: bytes) -> set[int]:
    """The positions of the tensors' names in a file."""
    return {
        position
        for name in TENSORS
        for position in range(
            raw.index(f'"{name}"'.encode()) + 1, raw.index(f'"{name}"'.encode()) + 1 + len(name)
        )
    }


def damage_by_flipped_bits(raw: bytes) -> list[bytes]:
    """One flipped bit in every second byte but those of the tensors' names."""
    return [flip(raw, position) for position in range(0, len(raw), 2) if position not in names_of(raw)]


def damage_to_names(raw: bytes) -> list[bytes]:
    return [flip(raw, position) for position in sorted(names_of(raw))]


def flip(raw: bytes, position: int) -> bytes:
    damaged = bytearray(raw)
    damaged[position] ^= 1 << (position % 7)
    return bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncation,
        damage_by_flipped_bits,
        damage_to_names,
        lambda raw: [b"", b"not a tensor file", raw + b"more", raw[:-8] + bytes(8)],
    ],
    ids=["truncated", "bit flipped", "bit flipped in a name", "other content"],
)
def test_a_damaged_file_is_reported_and_built_anew(damage, cache, caplog):
    build = Build()
    ask(build)
    (path,) = cache.iterdir()
    raw = path.read_bytes()
    for calls, damaged in enumerate(damage(raw), 2):
        caplog.clear()
        path.write_bytes(damaged)
        assert same(ask(build))
        assert build.calls == calls, f"this file was taken for whole: {damaged!r}"
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert f"damaged cache file {path}" in record.getMessage()
        assert same(ask(build))
        assert build.calls == calls, "the file that was built anew is not whole"


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
    monkeypatch.setattr(artifacts.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home" / name))
    for unset in (
        lambda: monkeypatch.delenv("ROBUSTUTILS_CACHE"),
        lambda: monkeypatch.setenv("ROBUSTUTILS_CACHE", ""),
    ):
        unset()
        assert artifacts.folder() == tmp_path / "home" / "robustutils"
    assert list(artifacts.folder().iterdir()) == []


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
        patch.setattr(artifacts.safetensors.torch, "save_file", half)
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


# ---- descriptions ----


@dataclass(frozen=True)
class Setting:
    threat: object
    loss: object = max


def clean_loss() -> None: ...


def net(middle: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 3), middle, nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("x", "x"),
        ([1, 2.5, (3, "4")], [1, 2.5, [3, "4"]]),
        ({1: {"b": torch.float32}}, {"1": {"b": "torch.float32"}}),
        (Linf(eps=0.3), {"class": "Linf", "eps": 0.3}),
        (
            Setting(L2(eps=1.0), clean_loss),
            {"threat": {"class": "L2", "eps": 1.0}, "loss": f"{__name__}.clean_loss"},
        ),
        (nn.ReLU, "torch.nn.modules.activation.ReLU"),
    ],
)
def test_description_of_a_configuration(value, expected):
    found = describe(value)
    if isinstance(value, Setting):
        assert found.pop("class") == "Setting"
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
        [object()],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_described_cannot_be_in_a_key(value):
    with pytest.raises(TypeError, match="cannot be part of an artifact's key"):
        describe({"setting": value})


def test_a_hidden_object_in_a_dataclass_is_refused_too():
    with pytest.raises(TypeError, match="a object cannot be part of an artifact's key"):
        key({"setting": Setting(object())}, Linf)


def test_key_changes_with_every_part_of_the_configuration():
    x = torch.arange(6.0)
    configs: list[dict[str, object]] = [
        {},
        {"eps": 0.3},
        {"eps": 0.30000001},
        {"eps": 1},
        {"eps": True},
        {"eps": "0.3"},
        {"eps": None},
        {"epsilon": 0.3},
        {"threat": Linf(eps=0.3)},
        {"threat": L2(eps=0.3)},
        {"dtype": torch.float32},
        {"dtype": torch.bfloat16},
        {"data": x},
        {"data": x.view(2, 3)},
        {"data": x.double()},
        {"data": x + 1e-6},
        {"source": net(nn.ReLU())},
        {"source": net(nn.ReLU(), seed=1)},
        {"loss": clean_loss},
        {"loss": describe},
    ]
    keys = [key(config, Linf) for config in configs]
    assert len(set(keys)) == len(configs)
    assert all(len(k) == 16 and int(k, 16) >= 0 for k in keys)
    assert keys == [key(config, Linf) for config in configs]


def test_key_does_not_depend_on_the_order_of_settings():
    assert key({"a": 1, "b": 2}, Linf, L2) == key({"b": 2, "a": 1}, L2, Linf)


def test_key_changes_with_the_layers_that_have_no_weights():
    assert key({"source": net(nn.ReLU())}, Linf) != key({"source": net(nn.Tanh())}, Linf)


def test_a_lambda_is_refused_because_all_of_a_scope_share_one_name():
    with pytest.raises(TypeError, match="cannot be part of an artifact's key"):
        key({"schedule": lambda progress: 1 - progress}, Linf)


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


# ---- code ----

HELPERS = """
RATE = 0.1


def scale(value):
    return value * RATE


def unrelated():
    return 1


class Base:
    def size(self):
        return 1


class Shape(Base):
    def area(self):
        return 2 * self.size()
"""
MAIN = '''
from dataclasses import dataclass

from specimen import helpers
from specimen.helpers import Shape, scale as rescale

LIMIT, NAME, PAIR, TABLE = 5, "name", (1, 2), {"a": 1}


def plain(function):
    return function


@dataclass(frozen=True)
class Attack:
    steps: int = 3

    def __call__(self, x):
        return x + self.steps


@plain
def root(value, times: int = 2) -> float:
    """What it does."""
    # why it does so
    local = helpers.scale(value)
    return Shape().area() * local * times + LIMIT + PAIR[0] + len(NAME) + TABLE["a"]
'''


@pytest.fixture
def specimen(tmp_path, monkeypatch):
    """A function that writes the package ``specimen``, with edits, imports it and applies ``use`` to its main."""
    versions = iter(range(100))

    def load(use: Callable[[ModuleType], str], *edits: tuple[str, str]) -> str:
        sources = {"__init__": "", "helpers": HELPERS, "main": MAIN}
        for old, new in edits:
            assert sum(text.count(old) for text in sources.values()) == 1, f"{old!r} is not there once"
            sources = {name: text.replace(old, new) for name, text in sources.items()}
        folder = tmp_path / f"version{next(versions)}" / "specimen"
        folder.mkdir(parents=True)
        for name, text in sources.items():
            (folder / f"{name}.py").write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder.parent)
            for name in [name for name in sys.modules if name.split(".")[0] == "specimen"]:
                patch.delitem(sys.modules, name)
            return use(importlib.import_module("specimen.main"))

    yield load
    for name in [name for name in sys.modules if name.split(".")[0] == "specimen"]:
        del sys.modules[name]


def hash_of_root(main: ModuleType) -> str:
    return code_hash(main.root)


DOES_NOT_COUNT = {
    "a comment": ("# why it does so", "# another reason"),
    "no comment": ("    # why it does so\n", ""),
    "a docstring": ("What it does.", "What it should do."),
    "no docstring": ('    """What it does."""\n', ""),
    "an annotation": ("times: int", "times: float"),
    "no annotation": (" -> float", ""),
    "layout": ("value * RATE", "(\n        value  *  RATE\n    )"),
    "an unrelated function": ("return 1\n\n\nclass Base", "return 2\n\n\nclass Base"),
    "a new function": ("class Base", "def new():\n    pass\n\n\nclass Base"),
    "an import": ("from dataclasses", "import math\nfrom dataclasses"),
}
COUNTS = {
    "the body": ("* times + LIMIT", "* times - LIMIT"),
    "a default": ("times: int = 2", "times: int = 3"),
    "a string in the body": ('TABLE["a"]', 'TABLE["b"]'),
    "a number": ("LIMIT, NAME, PAIR, TABLE = 5", "LIMIT, NAME, PAIR, TABLE = 6"),
    "a string": ('"name"', '"names"'),
    "a tuple": ("(1, 2)", "(1, 3)"),
    "a function of another module": ("value * RATE", "value / RATE"),
    "a constant of another module": ("RATE = 0.1", "RATE = 0.2"),
    "a class": ("2 * self.size()", "3 * self.size()"),
    "a base class": ("        return 1\n", "        return 2\n"),
    "a decorator": ("@plain\n", ""),
    "what a decorator does": ("return function", "return function or print"),
}


@pytest.mark.parametrize("edit", DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT)
def test_an_edit_that_changes_no_result_keeps_the_hash(edit, specimen):
    assert specimen(hash_of_root, edit) == specimen(hash_of_root)


@pytest.mark.parametrize("edit", COUNTS.values(), ids=COUNTS)
def test_an_edit_that_may_change_a_result_changes_the_hash(edit, specimen):
    assert specimen(hash_of_root, edit) != specimen(hash_of_root)


def test_an_edit_of_a_table_changes_the_hash(specimen):
    assert specimen(hash_of_root, ('{"a": 1}', '{"a": 2}')) != specimen(hash_of_root)


def test_other_packages_do_not_count(specimen):
    use_torch = ("from dataclasses", "import torch\nfrom dataclasses")
    calls_torch = ("times + LIMIT", "torch.tensor(times) + LIMIT")
    assert len(specimen(hash_of_root, use_torch, calls_torch)) == 64


def test_key_changes_with_the_code_that_is_reached(specimen):
    def key_of_root(main: ModuleType) -> str:
        return key(CONFIG, main.root)

    before = specimen(key_of_root)
    assert specimen(key_of_root, DOES_NOT_COUNT["a comment"]) == before
    assert specimen(key_of_root, COUNTS["a base class"]) != before


@pytest.mark.parametrize(
    ("setting", "edit"),
    [
        (lambda main: main.Attack(), ("x + self.steps", "x - self.steps")),
        (lambda main: main.rescale, ("value * RATE", "value / RATE")),
    ],
    ids=["an object", "a function"],
)
def test_key_changes_with_the_code_of_what_is_configured(setting, edit, specimen):
    def key_of(main: ModuleType) -> str:
        return key({"setting": setting(main)}, main.plain)

    assert specimen(key_of, edit) != specimen(key_of)
