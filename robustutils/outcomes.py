"""What happened to each example under each training seed, and the numbers that follow: value, effect, intervals.

:class:`Outcomes` holds truth values or numbers, one for each seed and example; a :class:`Measurement` is the number of one
row, in its unit. Two intervals are kept apart: `ci95` says how far the finite test set leaves the value open, `seed_ci95`
how far a newly trained model would move it. With several training seeds the second decides, with one the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Self

import numpy as np

from robustutils.statistics import (
    Interval,
    auroc,
    independent_difference,
    mean_interval,
    paired_difference,
    seeds_interval,
    wilson,
)

Value = float | tuple[float, ...]
SCALES = {"%": (0.0, 100.0), "points": (-100.0, 100.0), "correlation": (-1.0, 1.0)}
"""Between which ends the numbers of a unit lie; those of any other unit have none."""


@dataclass(frozen=True)
class Observed:
    """What a criterion looks at: value and effect, each with the 95% interval that decides (`spread` that of the value)."""

    value: Value
    effect: float
    interval: Interval | None
    spread: Any = None


@dataclass(frozen=True)
class Measurement:
    """One measured row, in the unit of the row.

    `value` is a number (the mean over seeds) or, for criteria that judge sequences, one number per position;
    `ci95` its test-set interval (for a sequence one pair per value; None where sampling plays no part); `n`
    the number of test points; `seeds` the training seeds, and `per_seed` the value of each. `effect`,
    `effect_ci95`, `effect_per_seed` are the same for the (paired) difference that the claim is about.
    `outcomes` are the numbers of each example behind the value, by name, [seeds, examples], and `images` the places of
    those examples in the test set (the first ones where it is None): what a later check is paired with.
    `note` says in a sentence what is particular about it. `unit` is that of its row: intervals over seeds stay on its scale.
    """

    value: Any  # a number or several
    ci95: Any  # pairs and per-seed values come as lists, tuples or arrays and are kept as tuples of floats
    n: int
    seeds: Sequence[int]
    _: KW_ONLY
    per_seed: Any = None
    effect: Any = None
    effect_ci95: Any = None
    effect_per_seed: Any = None
    note: str = ""
    unit: str = ""
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    images: Sequence[int] | np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("value", "ci95", "per_seed", "effect", "effect_ci95", "effect_per_seed"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _plain(getattr(self, name)))
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))

    @property
    def seed_ci95(self) -> Any:
        """95% interval of the value over the training seeds (for a sequence one pair per value), or None."""
        return _over_seeds(self.per_seed, SCALES.get(self.unit))

    @property
    def effect_seed_ci95(self) -> Any:
        """95% interval of the effect over the training seeds, or None."""
        return _over_seeds(self.effect_per_seed, self._effect_scale)

    @property
    def _effect_scale(self) -> Interval | None:
        return SCALES.get("points" if self.unit == "%" else self.unit)

    def check(self) -> None:
        """Raise ValueError for what cannot be one: NaN, no points, an interval that misses its value."""
        if self.n < 1 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"needs n >= 1 and distinct seeds, got n={self.n}, seeds={list(self.seeds)}")
        if self.effect is None and (self.effect_ci95 is not None or self.effect_per_seed is not None):
            raise ValueError("effect_ci95 or effect_per_seed is given without effect")
        for name, value, ci95, per_seed in (
            ("value", self.value, self.ci95, self.per_seed),
            ("effect", self.effect, self.effect_ci95, self.effect_per_seed),
        ):
            if value is None:
                continue
            centre = np.asarray(value)
            slack = 1e-6 * np.maximum(1, np.abs(centre))
            if not np.isfinite(centre).all():
                raise ValueError(f"{name} is not finite: {value!r}")
            if ci95 is not None:
                bounds = np.asarray(ci95)
                if bounds.shape != (*centre.shape, 2) or not (
                    np.all(bounds[..., 0] <= centre + slack) and np.all(centre - slack <= bounds[..., 1])
                ):
                    raise ValueError(
                        f"the 95% interval {ci95!r} does not enclose {name} {value!r}; same unit?"
                    )
            if per_seed is not None:
                each = np.asarray(per_seed)
                if each.shape != (len(self.seeds), *centre.shape):
                    raise ValueError(
                        f"{name} has {len(per_seed)} values per seed for {len(self.seeds)} seeds"
                    )
                if not np.all((each.min(axis=0) <= centre + slack) & (centre - slack <= each.max(axis=0))):
                    raise ValueError(
                        f"{name} {value!r} lies outside its values per seed {per_seed!r}; same unit?"
                    )

    def apart(self, other: Self, seeds: Sequence[int], **more: Any) -> Self:
        """The difference of the values of two, as of independent samples, with ``more`` fields of its own."""
        value, ci95 = independent_difference(self.value, self.ci95, other.value, other.ci95)
        return type(self)(value, ci95, min(self.n, other.n), seeds, **more)

    def observed(self) -> Observed:
        """Value, effect and the interval that decides: over several seeds where each has its value, else of the test set."""
        effect, ci95, each = self.effect, self.effect_ci95, self.effect_per_seed
        spread, several = self.seed_ci95 or self.ci95, len(self.seeds) > 1
        if effect is None and isinstance(self.value, float):
            return Observed(self.value, self.value, spread, spread)
        if effect is None:
            effect, ci95, each = _climb(self.value), self.ci95, self.per_seed
            # the gap between the end intervals ignores how they are paired, which is conservative
            ci95 = None if ci95 is None else (ci95[-1][0] - ci95[0][1], ci95[-1][1] - ci95[0][0])
            each = None if each is None else tuple(_climb(values) for values in each)
        if several and each is not None:
            ci95 = _over_seeds(each, self._effect_scale) or ci95 or self._effect_scale
        return Observed(self.value, effect, ci95, spread)


def _plain(value: Any) -> Any:
    """Numbers, arrays and nested sequences of them as floats and tuples."""
    return float(value) if np.ndim(value) == 0 else tuple(_plain(part) for part in value)


def _climb(value: Value) -> float:
    return value[-1] - value[0] if isinstance(value, tuple) else value


def _over_seeds(values: Sequence[Any] | None, scale: Interval | None) -> Any:
    """t-interval over two or more seeds; one for every position of sequences; None where it is undefined.

    Seeds that all stand on one end of their scale tell nothing of their spread: the test set's interval decides, or without
    one nothing narrower than the scale.
    """
    if values is None or len(values) < 2 or (scale and set(values) in ({scale[0]}, {scale[1]})):
        return None
    if isinstance(values[0], tuple):
        columns = tuple(_over_seeds(column, scale) for column in zip(*values, strict=True))
        return None if None in columns else columns
    return mean_interval(values) if scale is None else seeds_interval(values, *scale)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Truth values or finite numbers [S, N]: S training seeds on the same N examples ([N] for one seed).

    A truth value counts in percent, a number as it is. ``images`` are the places of the examples in the test set (the
    first ones where it is None) and ``dataset`` names the set: outcomes on one set are compared pair by pair, on the
    seeds and images that both have, those on different sets as independent samples. ``n`` counts the test points where
    one number stands for all of them, as a divergence does.
    """

    values: Any
    seeds: Sequence[int]
    images: Any = None
    dataset: str = ""
    n: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        values = np.atleast_2d(np.asarray(self.values))
        images = np.arange(values.shape[1]) if self.images is None else np.asarray(self.images)
        if values.dtype != bool:
            values = values.astype(float)
        if values.ndim != 2 or len(values) != len(self.seeds) or not np.isfinite(values).all():
            raise ValueError(
                f"outcomes are truth values or finite numbers [{len(self.seeds)} seeds, N], "
                f"got {values.dtype}{list(values.shape)}"
            )
        if images.shape != values.shape[1:]:
            raise ValueError(f"{values.shape[1]} outcomes of each seed, and places of {len(images)} images")
        for name, value in (("values", values), ("images", images), ("seeds", tuple(map(int, self.seeds)))):
            object.__setattr__(self, name, value)

    @property
    def share(self) -> float:
        """The mean, of truth values in percent."""
        return float((100 if self.values.dtype == bool else 1) * self.values.mean())

    def of_seeds(self, seeds: Sequence[int]) -> Self:
        """The same of some of its seeds."""
        return replace(self, values=self.values[[self.seeds.index(seed) for seed in seeds]], seeds=seeds)

    def measured(self, reference: Self | None = None) -> Measurement:
        """Rate or mean. With a reference its effect is the difference to it (:meth:`__sub__`).

        The interval over the test set counts N examples, not S times N: Wilson for a rate, Student's t for a mean.
        """
        values, n = self.values, self.values.shape[1]
        truth = values.dtype == bool
        each = (100 if truth else 1) * values.mean(axis=1)
        if truth:
            ci95: Any = tuple(100 * end for end in wilson(float(values.mean()) * n, n))
        else:
            ci95 = mean_interval(values.mean(axis=0)) if n > 1 else None
        found: dict[str, Any] = {"outcomes" if truth else "values": values}
        effect: dict[str, Any] = {}
        if reference is not None:
            apart = self - reference
            effect = {"effect": apart.value, "effect_ci95": apart.ci95, "effect_per_seed": apart.per_seed}
            if "reference" in apart.outcomes and apart.n == n:
                found["reference"] = apart.outcomes["reference"]
        return Measurement(
            each.mean(), ci95, self.n or n, self.seeds, per_seed=each, note=self.note,
            outcomes=found, images=self.images, **effect,
        )  # fmt: skip

    def __sub__(self, other: Self) -> Measurement:
        """The difference of rates in points, or of means, as the measured value itself.

        Paired where both are of one set: Newcombe's interval for one seed, else Student's t over the examples' means over
        seeds. Of two sets it is that of independent samples.
        """
        if (self.values.dtype == bool) != (other.values.dtype == bool):
            raise ValueError("truth values and numbers have no difference")
        if self.dataset != other.dataset:
            return self.measured().apart(other.measured(), self.seeds)
        seeds = [seed for seed in self.seeds if seed in other.seeds]
        images, mine, yours = np.intersect1d(self.images, other.images, return_indices=True)
        if not seeds or not len(images):
            raise ValueError("the two have no seed or no image in common")
        ours = self.values[[self.seeds.index(seed) for seed in seeds]][:, mine]
        theirs = other.values[[other.seeds.index(seed) for seed in seeds]][:, yours]
        apart = ours.astype(float) - theirs
        if ours.dtype != bool:
            return Outcomes(apart, seeds, images, n=self.n, note=self.note).measured()
        one_seed = len(seeds) == 1
        ends = paired_difference(ours[0], theirs[0])[1] if one_seed else mean_interval(apart.mean(axis=0))
        return Measurement(
            100 * apart.mean(), tuple(100 * end for end in ends), len(images), seeds,
            per_seed=100 * apart.mean(axis=1), note=self.note,
            outcomes={"outcomes": ours, "reference": theirs}, images=images,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Ranking:
    """Does a score order hits above misses? Scores float [N] and hits bool [N]; measured as the area under the ROC curve."""

    scores: np.ndarray
    hits: np.ndarray
    seeds: Sequence[int]

    def measured(self, reference: Self | None = None) -> Measurement:
        """The AUROC with DeLong's interval. Raises: ValueError where all or none are hits."""
        if reference is not None:
            raise ValueError("an AUROC has no paired reference")
        area, interval = auroc(self.scores, self.hits)
        return Measurement(area, interval, len(self.hits), self.seeds)

    def __sub__(self, other: Self) -> Measurement:
        """The difference of two areas on different points."""
        return self.measured().apart(other.measured(), self.seeds)


def highest(several: Sequence[Outcomes]) -> Outcomes:
    """Of the errors under several attacks those under the one with most of them, for each seed: a maximum over attacks."""
    stacked = np.stack([one.values for one in several])
    most = stacked.mean(axis=2).argmax(axis=0)
    return Outcomes(stacked[most, np.arange(stacked.shape[1])], several[0].seeds, several[0].images)


def sequence(parts: Sequence[Any]) -> Measurement:
    """Rates or means in a row, of the seeds that all have; the effect is the last minus the first.

    Raises: ValueError where they have no seed in common.
    """
    seeds = [seed for seed in parts[0].seeds if all(seed in part.seeds for part in parts)]
    if not seeds:
        raise ValueError("the parts have no seed in common")
    parts = [part.of_seeds(seeds) for part in parts]
    each = [part.measured() for part in parts]
    apart = parts[-1] - parts[0]
    ends = [found.ci95 for found in each]
    return Measurement(
        [found.value for found in each],
        None if None in ends else ends,
        min(found.n for found in each),
        seeds,
        per_seed=list(zip(*(found.per_seed for found in each), strict=True)),
        effect=apart.value,
        effect_ci95=apart.ci95,
        effect_per_seed=apart.per_seed,
    )
