"""How fast is this project's PGD beside foolbox, torchattacks, ART and adv-lib, and how far from the bare network?

Every contender attacks the first MNIST test images on the same adversarially trained network with one thread and the same
batch size, several times in alternating order. Medians of the CPU seconds count, and robust accuracy is counted by the
same fresh float32 pass for all. README.md beside this file says what the figures mean.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing import get_context

from robustutils import data, evaluation, models, provenance, speed, threats
from robustutils.attacks import PGD, cross_entropy, decaying
from robustutils.papers.blind_spot import carlini

NETWORK = "madry_mnist"
EPS, STEPS, STEP_SIZE = 0.3, 40, 0.01
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
FAST_DTYPE = speed.fast_dtype(torch.device("cpu"))
PRECISION_LIMIT = 0.2
"""Most points of robust accuracy by which bfloat16 may differ from float32 on the whole test set."""

PGD40 = PGD(threat=threats.Linf(eps=EPS), steps=STEPS, step_size=STEP_SIZE)
# Chosen on 2,000 training images: PGD40 left 95.8% of them standing, this 94.5%, three steps 96.2%.
FAST = dataclasses.replace(PGD40, steps=5, step_size=EPS, schedule=decaying)

Contender = Callable[[nn.Module, Tensor, Tensor, int, int], Tensor]
"""(model, images, labels, batch size, seed) -> adversarial images."""


def ours(attack: PGD) -> Contender:
    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        batches = zip(images.split(batch), labels.split(batch), strict=True)
        return torch.cat([attack(model, x, y, generator) for x, y in batches])

    return contender


def bare(dtype: torch.dtype) -> Contender:
    """As many passes and input gradients as an attack takes, and nothing else: the limit of any attack."""

    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        with speed.autocast(images.device, dtype):
            for x, y in zip(images.split(batch), labels.split(batch), strict=True):
                for _ in range(STEPS):
                    leaf = x.detach().requires_grad_(True)
                    torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
        return images

    return contender


def foolbox_pgd() -> Contender:
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)

    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        batches = zip(images.split(batch), labels.split(batch), strict=True)
        return torch.cat([attack.run(wrapped, x, y, epsilon=EPS) for x, y in batches])

    return contender


def torchattacks_pgd() -> Contender:
    import torchattacks

    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        attack = torchattacks.PGD(model, eps=EPS, alpha=STEP_SIZE, steps=STEPS, random_start=True)
        batches = zip(images.split(batch), labels.split(batch), strict=True)
        return torch.cat([attack(x, y) for x, y in batches])

    return contender


def art_pgd() -> Contender:
    import numpy as np
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        np.random.seed(seed)
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )
        attack = ProjectedGradientDescentPyTorch(
            wrapped,
            eps=EPS,
            eps_step=STEP_SIZE,
            max_iter=STEPS,
            num_random_init=1,
            batch_size=batch,
            verbose=False,
        )
        return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))

    return contender


def adv_lib_pgd() -> Contender:
    attack = adv_lib().pgd_linf

    def contender(model: nn.Module, images: Tensor, labels: Tensor, batch: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        batches = zip(images.split(batch), labels.split(batch), strict=True)
        settings = {"steps": STEPS, "random_init": True, "absolute_step_size": STEP_SIZE}
        return torch.cat([attack(model, x, y, EPS, **settings) for x, y in batches])

    return contender


def adv_lib() -> Any:
    """The attacks of adv-lib; it imports visdom, which its loggers alone use."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom")).__dict__.setdefault("Visdom", object)
    return importlib.import_module("adv_lib.attacks")


PEERS: dict[str, tuple[str, Callable[[], Contender]]] = {
    "foolbox": ("foolbox", foolbox_pgd),
    "torchattacks": ("torchattacks", torchattacks_pgd),
    "ART": ("adversarial-robustness-toolbox", art_pgd),
    "adv-lib": ("adv-lib", adv_lib_pgd),
}


def find_peers() -> dict[str, str]:
    """The versions of the installed peers by name; a line says which are skipped."""
    versions = {}
    for name, (package, prepare) in PEERS.items():
        try:
            prepare()
            versions[name] = importlib.metadata.version(package)
        except ImportError as error:
            print(f"skipped {name}: {error}")
    return versions


@dataclass
class Row:
    """One contender: a peer by name, an attack of ours, or the precision of the bare network; seconds run by run."""

    name: str
    attack: str | PGD | torch.dtype
    layout: str = "nchw"
    keep_memory: bool = False
    seconds: list[float] = field(default_factory=list)
    robust: list[float] = field(default_factory=list)

    @property
    def contender(self) -> Contender:
        if isinstance(self.attack, str):
            return PEERS[self.attack][1]()
        return ours(self.attack) if isinstance(self.attack, PGD) else bare(self.attack)

    @property
    def steps(self) -> int:
        return self.attack.steps if isinstance(self.attack, PGD) else STEPS

    def summary(self, images: int) -> dict[str, Any]:
        median = statistics.median(self.seconds)
        return {
            "name": self.name,
            "seconds": [round(s, 3) for s in self.seconds],
            "median_seconds": round(median, 3),
            "microseconds_per_image_and_step": round(1e6 * median / images / self.steps, 2),
            "robust_accuracy": [round(r, 3) for r in self.robust],
            "mean_robust_accuracy": round(statistics.fmean(self.robust), 3),
        }


class Worker:
    """The process of one contender, so that no library's settings reach another's."""

    @classmethod
    def prepare(cls, row: Row, options: argparse.Namespace, images: int) -> None:
        """Load the network and the images, and attack one batch to warm up."""
        if row.keep_memory:
            speed.keep_freed_blocks()
        torch.set_num_threads(1)
        cls.contender = row.contender
        cls.model = models.published(NETWORK).to(memory_format=LAYOUTS[row.layout])
        test = data.load("mnist", "test", root=options.data).first(images)
        cls.images, cls.labels, cls.batch = test.images, test.labels, options.batch
        cls.contender(cls.model, cls.images[: cls.batch], cls.labels[: cls.batch], cls.batch, 0)

    @classmethod
    def run(cls, seed: int) -> tuple[float, float]:
        """CPU seconds, and robust accuracy in percent."""
        start = time.process_time()
        x_adv = cls.contender(cls.model, cls.images, cls.labels, cls.batch, seed)
        seconds = time.process_time() - start
        threats.check_inside(PGD40.threat, cls.images, x_adv)
        return seconds, 100 * evaluation.correct(cls.model, x_adv, cls.labels).float().mean().item()


def compare(rows: list[Row], options: argparse.Namespace, images: int) -> list[dict]:
    """Run all rows ``options.runs`` times, each in its own process, every other time in reverse order."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(row, options, images)) for row in rows]
        for repeat in range(options.runs):
            turn = list(zip(rows, workers, strict=True))
            for row, worker in turn if repeat % 2 == 0 else reversed(turn):
                seconds, robust = worker.submit(Worker.run, repeat).result()
                row.seconds.append(seconds)
                row.robust.append(robust)
                print(f"  run {repeat + 1} of {options.runs}: {row.name} {seconds:.1f} s", flush=True)
    return [row.summary(images) for row in rows]


def _worker(row: Row, options: argparse.Namespace, images: int) -> ProcessPoolExecutor:
    """A process that is ready to run a contender."""
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    pool.submit(Worker.prepare, row, options, images).result()
    return pool


def speed_ups(rows: list[dict], peers: Mapping[str, str]) -> list[dict[str, Any]]:
    """How many times faster than the fastest peer each of ours is, and how its robust accuracy differs."""
    theirs = [row for row in rows if row["name"] in peers]
    if not theirs:
        return []
    fastest = min(theirs, key=lambda row: row["median_seconds"])
    lowest = min(row["mean_robust_accuracy"] for row in theirs)
    return [
        {
            "name": row["name"],
            "fastest_peer": fastest["name"],
            "times_faster": round(fastest["median_seconds"] / row["median_seconds"], 2),
            "points_above_strongest_peer": round(row["mean_robust_accuracy"] - lowest, 3),
        }
        for row in rows
        if row["name"].startswith("ours")
    ]


def show(title: str, rows: list[dict]) -> None:
    print(f"\n{title}")
    print(f"{'':57}{'seconds':>9}{'us/image/step':>15}{'robust acc. %':>15}")
    for row in rows:
        print(
            f"{row['name']:57}{row['median_seconds']:9.2f}"
            f"{row['microseconds_per_image_and_step']:15.1f}{row['mean_robust_accuracy']:15.2f}"
        )


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Peers as they come and with our layout and memory; ours in both precisions; and the bare network."""
    peers = find_peers()
    rows = [Row(name, name) for name in peers]
    rows += [Row(f"{name}, channels_last, memory kept", name, "channels_last", True) for name in peers]
    limit = []
    for dtype in dict.fromkeys((torch.float32, FAST_DTYPE)):
        kind = str(dtype).removeprefix("torch.")
        attacks = {
            f"ours, {STEPS} steps": PGD40,
            f"ours, {STEPS} steps, all examples to the end": dataclasses.replace(PGD40, drop_fooled=False),
            f"ours, {FAST.steps} steps": FAST,
        }
        rows += [
            Row(f"{name}, {kind}", dataclasses.replace(attack, dtype=dtype))
            for name, attack in attacks.items()
        ]
        to_the_end = dataclasses.replace(PGD40, drop_fooled=False, keep_best=False, dtype=dtype)
        limit += [
            Row(f"the bare network, {kind}", dtype, "channels_last", True),
            Row(f"ours, {STEPS} steps, last iterate, all examples to the end, {kind}", to_the_end),
        ]
    measured = compare(rows, options, options.images)
    some = max(1, options.images // 4)
    limits = compare(limit, options, some)
    faster = speed_ups(measured, peers)
    show(f"{options.images} images, batches of {options.batch}, medians of {options.runs} runs", measured)
    show(f"The limit: {some} images", limits)
    return {
        "settings": {
            "eps": EPS,
            "steps": STEPS,
            "step_size": STEP_SIZE,
            "batch": options.batch,
            "images": options.images,
            "limit_images": some,
        },
        "peers": peers,
        "rows": measured,
        "speed_ups": faster,
        "limit": limits,
    }


def measure_carlini(options: argparse.Namespace, *, iterations: int = 100) -> dict[str, Any]:
    """Carlini and Wagner's linf attack beside adv-lib's: mean distance of the same images, and CPU seconds."""
    torch.set_num_threads(1)
    model = models.published(NETWORK)
    test = data.load("mnist", "test", root=options.data).first(200)
    right = evaluation.correct(model, test.images, test.labels)
    some = test.take(right.nonzero().squeeze(1)[:100])
    x, y = some.images, some.labels
    theirs = adv_lib().carlini_wagner_linf
    makers = {
        "ours, float32": carlini.CarliniLinf(iterations=iterations, dtype=torch.float32),
        "adv-lib": lambda model, x, y: theirs(model, x, y, max_iterations=iterations),
    }
    rows = []
    for name, make in makers.items():
        start = time.process_time()
        x_adv = make(model, x, y).detach()
        seconds = time.process_time() - start
        fooled = ~evaluation.correct(model, x_adv, y)
        distances = (carlini.shortened(model, x, y, x_adv) - x).flatten(1).abs().amax(1)
        rows.append(
            {
                "name": name,
                "cpu_seconds": round(seconds, 1),
                "found": int(fooled.sum()),
                "mean_distance": round(distances[fooled].mean().item(), 4),
                "median_distance": round(distances[fooled].median().item(), 4),
            }
        )
        print(rows[-1], flush=True)
    return {"iterations": iterations, "images": len(some), "rows": rows}


def check_precision(model: nn.Module, test: data.Dataset, batch: int) -> dict[str, Any]:
    """Is bfloat16 admitted? Robust accuracy under PGD-40 in both precisions on the same images and starts."""
    hits = {}
    for dtype in (torch.float32, torch.bfloat16):
        x_adv = ours(dataclasses.replace(PGD40, dtype=dtype))(model, test.images, test.labels, batch, 0)
        hits[dtype] = evaluation.correct(model, x_adv, test.labels)
    full, half = hits[torch.float32], hits[torch.bfloat16]
    difference = 100 * (half.float().mean() - full.float().mean()).item()
    result = {
        "images": len(test),
        "robust_accuracy_float32": round(100 * full.float().mean().item(), 3),
        "robust_accuracy_bfloat16": round(100 * half.float().mean().item(), 3),
        "difference_points": round(difference, 3),
        "fooled_in_float32_only": int((half & ~full).sum()),
        "fooled_in_bfloat16_only": int((full & ~half).sum()),
        "limit_points": PRECISION_LIMIT,
        "admitted": abs(difference) <= PRECISION_LIMIT,
    }
    print(json.dumps(result, indent=1))
    return result


def report(results: dict[str, Any]) -> str:
    """The results as a page: seconds and robust accuracy, the limit, the check of the precision, and C&W."""
    parts = ["# Attack speed, as measured"]
    if "speed" in results:
        found, settings = results["speed"], results["speed"]["settings"]
        parts.append(
            f"{_where(found)}; "
            + ", ".join(f"{name} {version}" for name, version in found["peers"].items())
            + f". PGD, linf {settings['eps']}, batches of {settings['batch']}; medians of "
            f"{len(found['rows'][0]['seconds'])} runs."
        )
        for title, rows in (
            (f"{settings['images']} images", found["rows"]),
            (f"The limit, {settings['limit_images']} images", found["limit"]),
        ):
            lines = [
                f"| {row['name']} | {row['median_seconds']:.2f} | {row['microseconds_per_image_and_step']:.0f} "
                f"| {'' if row['name'].startswith('the bare') else format(row['mean_robust_accuracy'], '.2f')} |"
                for row in rows
            ]
            head = ["| contender | CPU seconds | microseconds per image and step | robust accuracy, % |"]
            parts.append("\n".join([f"## {title}\n", *head, "| --- | --- | --- | --- |", *lines]))
        parts.append(
            "\n".join(
                f"- {row['name']}: {row['times_faster']} times as fast as {row['fastest_peer']}, robust accuracy "
                f"{row['points_above_strongest_peer']:+.2f} points against the strongest peer"
                for row in found["speed_ups"]
            )
        )
    if "precision" in results:
        check = results["precision"]
        parts.append(
            "## bfloat16\n\n"
            f"Robust accuracy of {check['images']} paired images: {check['robust_accuracy_float32']:.2f}% in float32, "
            f"{check['robust_accuracy_bfloat16']:.2f}% in bfloat16; allowed are {check['limit_points']} points: "
            f"{'admitted' if check['admitted'] else 'not admitted'}."
        )
    if "carlini" in results:
        found = results["carlini"]
        lines = [
            f"| {row['name']} | {row['cpu_seconds']:.1f} | {row['found']} | {row['mean_distance']:.3f} "
            f"| {row['median_distance']:.3f} |"
            for row in found["rows"]
        ]
        head = "| attack | CPU seconds | images fooled | mean distance | median distance |"
        text = (
            f"{_where(found)}; {found['images']} images that are classified correctly, {found['iterations']} iterations for "
            "each constant, distances after both were drawn towards the image as far as they still fool."
        )
        title = "## Carlini and Wagner, linf"
        parts.append("\n".join([title, "", text, "", head, "| --- | --- | --- | --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def _where(found: Mapping[str, Any]) -> str:
    machine = found["environment"]
    return f"{found['date']}, {machine['processor']}, one thread, torch {machine['torch']}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="data root that holds MNIST (default: as robustutils.data.find_root)")
    parser.add_argument("--images", type=int, default=2000, help="number of test images")
    parser.add_argument("--batch", type=int, default=500, help="batch size of every contender")
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "attack_speed.json"
    )
    parser.add_argument(
        "--part",
        choices=("speed", "precision", "carlini"),
        default="speed",
        help="the speed of PGD; float32 beside bfloat16 on all 10,000 test images; C&W beside adv-lib's",
    )
    options = parser.parse_args()
    if options.part == "precision" and torch.bfloat16 != FAST_DTYPE:
        parser.error(
            "this processor does not multiply in bfloat16: attacks run in float32, nothing to compare"
        )
    if options.part == "precision":
        test = data.load("mnist", "test", root=options.data)
        measured = check_precision(models.published(NETWORK), test, options.batch)
    else:
        measured = {"speed": measure_speed, "carlini": measure_carlini}[options.part](options)
    measured["environment"] = provenance.environment(torch.device("cpu"))
    measured["date"] = datetime.now(UTC).date().isoformat()
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    results = {**known, options.part: measured}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(report(results))
    print(f"written to {options.output} and {options.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
