"""How long does the exact alignment search take, and what would it take without its bounds?

The first MNIST test images are aligned with the training set by ``alignment.search``. Beside it stands a matrix product
of all canvases with all shifted queries; it runs on a part and is extrapolated by its number of candidates. Both count
the same distances. With a part of the rotations, ``--rotations 3``, the search is extrapolated in the same way: thresholds
are then a little higher than on the whole grid, so that it prunes less and the figure is not flattered.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustutils import data, provenance
from robustutils.data import Dataset
from robustutils.papers.invariance import alignment
from robustutils.papers.invariance.alignment import PAPER_GRID, UNITS, Grid


def by_matrix_product(queries: Tensor, labels: Tensor, train: Dataset, grid: Grid) -> dict[str, Tensor]:
    """Distances from one product of canvases and shifted queries a map, as a search without bounds would have it."""
    side, canvas, steps = queries.shape[-1], queries.shape[-1] + 2 * grid.shift, 2 * grid.shift + 1
    shifted = torch.zeros(len(queries), steps, steps, canvas, canvas)
    for top in range(steps):
        for left in range(steps):
            shifted[:, top, left, top : top + side, left : left + side] = (queries[:, 0] > 0.5).float()
    shifted = shifted.flatten(3).flatten(0, 2)
    ink = shifted[:: steps * steps].sum(1)[:, None]
    same = (train.labels[:, None] == labels)[..., None]
    best = torch.full((len(queries),), float("inf"))
    for linear in grid.linear_maps():
        canvases = alignment._canvases(train.images, linear, grid.shift)
        binary = (canvases > UNITS / 2).float()
        kept, inside = (
            F.avg_pool2d(x[:, None], side, 1, divisor_override=1).flatten(1) for x in (canvases, binary)
        )
        total = canvases.sum((1, 2))[:, None]
        inside[(kept < grid.keep * total) | (total == 0)] = torch.inf
        common = (binary.flatten(1) @ shifted.T).view(len(train), len(queries), -1)
        distance = (inside[:, None] + ink - 2 * common).masked_fill_(same, torch.inf)
        best = torch.minimum(best, distance.amin((0, 2)))
    return {"distance": best.where(best.isfinite(), torch.tensor(-1.0)).long()}


def timed(
    function: Callable[..., dict[str, Tensor]], *args: Any, **kwargs: Any
) -> tuple[dict[str, Tensor], dict]:
    """The result, and wall and processor seconds with the load of the machine."""
    wall, processor = time.perf_counter(), time.process_time()
    found = function(*args, **kwargs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, {
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def candidates(queries: Dataset, train: Dataset, grid: Grid) -> int:
    """Pairs of a query and a mapped and shifted training image of another label."""
    pairs = int((queries.labels[:, None] != train.labels).sum())
    return pairs * len(grid.linear_maps()) * len(grid.shifts())


def row(name: str, seconds: dict, counted: int, n: int, whole: int) -> dict[str, Any]:
    """``counted`` candidates of ``n`` queries; ``whole`` are those of one query on the whole grid and training set."""
    per_query = {
        f"{kind}_seconds_per_query": float(f"{seconds[f'{kind}_seconds'] / counted * whole:.4g}")
        for kind in ("wall", "processor")
    }
    rate = float(f"{counted / seconds['processor_seconds']:.4g}")
    return {"name": name, "queries": n, **seconds, **per_query, "candidates_per_processor_second": rate}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="data root that holds MNIST (default: as robustutils.data.find_root)")
    parser.add_argument("--queries", type=int, default=100, help="number of test images")
    parser.add_argument("--rotations", type=int, default=9, help="how many of the grid's rotations to search")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=256, help="training images bounded at a time")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "alignment_speed.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    train, test = (data.load("mnist", split, root=options.data) for split in ("train", "test"))
    queries = test.first(options.queries)
    whole = candidates(queries, train, PAPER_GRID) // len(queries)
    every = torch.linspace(0, len(PAPER_GRID.rotations) - 1, options.rotations).round().long().tolist()
    grid = dataclasses.replace(PAPER_GRID, rotations=tuple(PAPER_GRID.rotations[i] for i in every))

    found, seconds = timed(
        alignment.search,
        queries.images,
        queries.labels,
        train,
        grid,
        device=options.device,
        batch_size=options.batch,
    )
    counted = candidates(queries, train, grid)
    rows = [row("search", seconds, counted, len(queries), whole)]
    rows[0]["examined_share"] = float(f"{found['examined'].sum() / counted:.3g}")

    few = dataclasses.replace(grid, rotations=(10,), shears=(0.2,), scales=(0.75, 1.25))
    some, part = queries.first(min(20, len(queries))), train.first(500)
    product, seconds = timed(by_matrix_product, some.images, some.labels, part, few)
    rows.append(row("matrix product", seconds, candidates(some, part, few), len(some), whole))
    result = alignment.search(some.images, some.labels, part, few)
    if not torch.equal(result["distance"], product["distance"]):
        raise RuntimeError("search and matrix product find different distances")

    distance = found["distance"].float()
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": provenance.environment(torch.device(options.device)),
        "threads": options.threads,
        "grid": str(grid),
        "training_images": len(train),
        "rows": rows,
        "distance": {"mean": round(float(distance.mean()), 2), "median": float(distance.median())},
        "distances": found["distance"].tolist(),
    }
    for line in rows:
        print(
            f"{line['name']:16}{line['wall_seconds_per_query']:10.4g} s a query"
            f"{line['processor_seconds_per_query']:10.4g} processor s"
            f"{line['candidates_per_processor_second']:12.3g} candidates a processor s   load {line['load']}"
        )
    print(f"{grid}: mean distance {report['distance']['mean']}, median {report['distance']['median']}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
