"""How near does the default attack come to AutoAttack, and in which part of its time?

AutoAttack's four components (torchattacks, at their full step counts) and ``DefaultAttack`` attack the
first 500 test images of two adversarially trained networks on one thread. Each component sees what the ones before it left;
robust accuracy is counted by the same fresh float32 pass.
"""

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from robustutils import data, evaluation, models, provenance, threats
from robustutils.default_attack import DefaultAttack
from robustutils.threats import Linf

NETWORKS = {"madry_mnist": ("mnist", 0.3), "madry_fashion_mnist": ("fashion_mnist", 0.1)}
BATCH = 250


def components(model: nn.Module, eps: float) -> dict[str, Any]:
    """AutoAttack's components by name, as in Croce & Hein (2020)."""
    common = {"norm": "Linf", "eps": eps, "n_restarts": 1, "seed": 0, "verbose": False}
    return {
        "APGD-CE": torchattacks.APGD(model, loss="ce", steps=100, **common),
        "APGD-T": torchattacks.APGDT(model, n_classes=10, steps=100, **common),
        "FAB-T": torchattacks.FAB(model, n_classes=10, steps=100, multi_targeted=True, **common),
        "Square": torchattacks.Square(model, n_queries=5000, **common),
    }


def auto_attack(model: nn.Module, test: data.Dataset, eps: float) -> dict[str, Any]:
    """CPU seconds, and what each component leaves."""
    left = evaluation.correct(model, test.images, test.labels)
    stages = []
    torch.manual_seed(0)
    for name, attack in components(model, eps).items():
        rows = left.nonzero().squeeze(1)
        start = time.process_time()
        x_adv = torch.cat([attack(test.images[some], test.labels[some]) for some in rows.split(BATCH)])
        seconds = time.process_time() - start
        threats.check_inside(Linf(eps=eps), test.images[rows], x_adv)
        left[rows] = evaluation.correct(model, x_adv, test.labels[rows])
        stages.append({"name": name, "cpu_seconds": round(seconds, 1), "robust": _percent(left)})
        print(" ", stages[-1], flush=True)
    return {"cpu_seconds": round(sum(stage["cpu_seconds"] for stage in stages), 1), "stages": stages}


def ours(model: nn.Module, test: data.Dataset, eps: float, dtype: torch.dtype) -> dict[str, Any]:
    """CPU seconds and robust accuracy of the default attack in one precision."""
    attack = DefaultAttack(threat=Linf(eps=eps), dtype=dtype)
    with tempfile.TemporaryDirectory() as empty:
        os.environ["ROBUSTUTILS_CACHE"] = empty  # so that nothing is found there
        start = time.process_time()
        verdicts = evaluation.evaluate(model, attack, test)
        seconds = time.process_time() - start
    stands = verdicts.clean & verdicts.attacked
    return {"cpu_seconds": round(seconds, 1), "robust": _percent(stands), "flags": list(verdicts.flags)}


def _percent(hits: Tensor) -> float:
    return round(100 * hits.float().mean().item(), 2)


def report(results: dict[str, Any]) -> str:
    """The results as a page."""
    machine = results["environment"]
    parts = [
        "# The default attack beside AutoAttack, as measured",
        f"{results['date']}, {machine['processor']}, one thread, torch {machine['torch']}.",
    ]
    for name, found in results["networks"].items():
        theirs = found["AutoAttack"]
        lines = [
            f"| AutoAttack, after {stage['name']} | {stage['cpu_seconds']:.0f} | {stage['robust']:.1f} | |"
            for stage in theirs["stages"]
        ]
        for kind in ("float32", "bfloat16"):
            mine = found[kind]
            lines.append(
                f"| `DefaultAttack`, {kind} | {mine['cpu_seconds']:.0f} | {mine['robust']:.1f} "
                f"| {theirs['cpu_seconds'] / mine['cpu_seconds']:.0f} |"
            )
        head = [f"## {name}, linf {found['eps']}, {found['images']} images", ""]
        head += ["| attack | CPU seconds | robust accuracy, % | times as fast |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([*head, *lines]))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="data root (default: as robustutils.data.find_root)")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--only-ours", action="store_true", help="keep what is stored of AutoAttack")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "default_attack.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.output.read_text())["networks"] if options.output.exists() else {}
    networks = {}
    for name, (dataset, eps) in NETWORKS.items():
        print(name, flush=True)
        test = data.load(dataset, "test", root=options.data).first(options.images)
        plain = models.published(name).to(memory_format=torch.contiguous_format).requires_grad_(False)
        found: dict[str, Any] = {"eps": eps, "images": len(test)}
        found["AutoAttack"] = (
            known[name]["AutoAttack"] if options.only_ours else auto_attack(plain, test, eps)
        )
        for dtype in (torch.float32, torch.bfloat16):
            kind = str(dtype).removeprefix("torch.")
            found[kind] = ours(plain, test, eps, dtype)
            print(" ", kind, found[kind], flush=True)
        networks[name] = found
    results = {
        "networks": networks,
        "environment": provenance.environment(torch.device("cpu")),
        "date": datetime.now(UTC).date().isoformat(),
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(report(results))
    print(f"written to {options.output} and {options.output.with_suffix('.md')}")


if __name__ == "__main__":
    main()
