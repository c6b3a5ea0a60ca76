"""torchvision's data sets, importable beside a CPU build of torch: the one place which works around it.

Wheels of torchvision are built against the CUDA libraries. Beside a CPU build of torch their compiled
operators cannot be loaded, and ``import torchvision`` stops where it attaches to two of them. Nothing in this
project calls a compiled operator, so it is enough that those two have a schema.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = torch.library.Library("torchvision", "FRAGMENT")


def _compiled_operators_load() -> bool:
    """Load torchvision's operators as its own import does; False where they do not fit torch."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or []:
        for library in sorted(Path(folder).glob("_C*")):
            try:
                torch.ops.load_library(library)
            except OSError:
                continue
            return True
    return False


# Only where they are missing: a second definition beside the compiled ones would be an error.
if not hasattr(torch.ops.torchvision, "nms") and not _compiled_operators_load():
    _SCHEMAS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _SCHEMAS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import datasets  # noqa: E402

__all__ = ["datasets"]
