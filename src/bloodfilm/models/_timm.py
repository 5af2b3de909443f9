"""Import timm, also where torchvision's compiled operators do not match the torch build.

timm needs torchvision's Python code only. A CPU build of torch beside torchvision's usual wheel has
no `torchvision::nms`, and torchvision then fails to import while it describes that operator. Naming
the operators first, without an implementation, lets the import pass; nothing here ever calls them.
"""

import re
import sys
from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a library's names live as long as the object


def import_timm() -> ModuleType:
    """Return the timm module; `ImportError` if it is not installed."""
    for _ in range(8):
        try:
            import torchvision  # noqa: F401

            break
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(missing.group(1) + _SIGNATURE)
            _libraries.append(library)
            for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
                del sys.modules[name]
    import timm

    return timm
