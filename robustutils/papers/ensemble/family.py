"""The networks of a run by name and training seed."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from robustutils.artifacts import Absent, shelf
from robustutils.data import Dataset
from robustutils.networks import Network, join
from robustutils.outcomes import Outcomes
from robustutils.recipes import Recipe


@dataclass(eq=False)
class Family:
    """Networks by (name, training seed) on one data set: none is trained before one of them is needed.

    What one call of :meth:`train` adds trains together where ``side_by_side``, see
    :func:`robustutils.networks.train_side_by_side`. In a run that trains nothing (profile ``check``) a name is in only if
    all of its measured seeds are there.

    Args:
        dataset: what they are trained on.
        seeds: the training seeds that are measured; a name may have others, for those who attack or help to train.
        device: where they live.
        side_by_side: whether missing ones train at once.
    """

    dataset: Dataset
    seeds: Sequence[int]
    device: str | torch.device = "cpu"
    side_by_side: bool = True
    _networks: dict[tuple[str, int], Network | None] = field(default_factory=dict, init=False)

    def train(self, seeds: Mapping[str, Iterable[int]], recipe: Callable[[str, int], Recipe]) -> None:
        """Add a network for each name and each of its seeds; ``recipe`` gives the recipe of a name and a seed.

        One whose recipe asks for an absent network, a static source, is absent too.
        """
        keys = [(name, seed) for name, some in seeds.items() for seed in some]
        made: dict[tuple[str, int], Network | None] = dict.fromkeys(keys)
        for name, seed in keys:
            with contextlib.suppress(Absent):
                made[name, seed] = Network(recipe(name, seed), self.dataset, seed=seed, device=self.device)
        self._networks |= made
        if self.side_by_side and not shelf.frozen:
            join(network for network in made.values() if network)

    def __getitem__(self, key: tuple[str, int]) -> Network:
        """The network of a name and a seed. Raises: Absent where this run cannot have it."""
        network = self._networks.get(key)
        if network is None or not self.there(*key):
            raise Absent(f"this run has no network {key[0]!r} of seed {key[1]}")
        return network

    def there(self, name: str, seed: int) -> bool:
        """Whether the network of a name and a seed can be had in this run."""
        network = self._networks.get((name, seed))
        return network is not None and (not shelf.frozen or network.is_there())

    def __contains__(self, name: str) -> bool:
        seeds = self.seeds_of(name)
        return bool(seeds) and all(self.there(name, seed) for seed in seeds)

    def seeds_of(self, name: str) -> list[int]:
        """The measured seeds of a name."""
        return [seed for seed in self.seeds if (name, seed) in self._networks]

    @property
    def roles(self) -> list[int]:
        """The measured seeds, and as many after them as make three: attackers and static sources have others."""
        return list(range(self.seeds[0], self.seeds[0] + max(3, len(self.seeds))))

    def other(self, seed: int, further: int = 1) -> int:
        """Another seed than ``seed``: of those who attack its network, and ``further=2`` of its static sources."""
        return self.roles[(self.roles.index(seed) + further) % len(self.roles)]

    def outcomes(self, name: str, of: Callable[[int], torch.Tensor]) -> Outcomes:
        """What a function of the seed gives, a tensor [N], stacked over the measured seeds of a name.

        Raises: Absent where a name has none, or the function asks for an absent network.
        """
        if not (seeds := self.seeds_of(name)):
            raise Absent(f"this run has no network {name!r}")
        return Outcomes(np.stack([of(seed).numpy() for seed in seeds]), seeds)
