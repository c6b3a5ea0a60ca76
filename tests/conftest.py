"""Fixtures that every test file shares: a cache of its own for each test, one thread, tiny data and networks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

from robustutils import artifacts, data, models, speed, training
from robustutils.attacks import FGSM
from robustutils.book import outcomes_files
from robustutils.data import Dataset
from robustutils.objectives import Adversarial

# The same examples in every run, no files kept, and no timing.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty artifact cache of this test alone; made by the first artifact."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ROBUSTUTILS_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def empty_shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No artifact at hand, none used, and nothing frozen, before a test and after it."""
    monkeypatch.delenv(outcomes_files.VARIABLE, raising=False)
    artifacts.shelf.clear()
    yield
    artifacts.shelf.clear()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of published networks of this test alone."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(models, "weights_folder", lambda: folder)
    return folder


@pytest.fixture
def pickle_trap(tmp_path: Path) -> tuple[bytes, Path]:
    """A pickle in the format of ``torch.save``, and the file that is made as soon as it is unpickled."""
    sprung, path = tmp_path / "sprung", tmp_path / "trap"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (sprung,)

    torch.save({"a.weight": Trap()}, path)
    torch.load(path, weights_only=False)
    assert sprung.exists(), "the trap works"
    sprung.unlink()
    return path.read_bytes(), sprung


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes in bfloat16 where they are asked for, also on a processor that has to emulate it."""
    monkeypatch.setattr(speed, "fast_dtype", lambda device: torch.bfloat16)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The embedded handwritten digits, training split: 1,297 grey images of 28x28."""
    return data.load("digits")


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """50 random images of 8x8 in three classes; pixel (0, 0) of image i is i / 255, so that it can be told apart."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (50, 1, 8, 8), generator=generator).to(torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(50)
    labels = torch.randint(0, 3, (50,), generator=generator)
    return Dataset.from_pixels("tiny", "train", pixels, labels, ("a", "b", "c"))


@pytest.fixture(scope="session")
def tiny_net() -> Callable[..., nn.Sequential]:
    """A builder of networks for ``tiny_data``: one convolution, dropout, one dense layer, weights from a seed."""

    def build(seed: int = 0, dropout: float = 0.5) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(4 * 36, 3)
            )
        return net.to(memory_format=torch.channels_last)

    return build


@pytest.fixture(scope="session")
def digits_net(digits: Dataset) -> nn.Module:
    """A small CNN on the digits, trained until about half of them withstand linf 0.1; in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 49, 10),
        )
    objective = Adversarial(attack=FGSM(eps=0.1), clean=0.5)
    return training.fit(net, digits, objective, epochs=3, batch_size=64, learning_rate=5e-3)
