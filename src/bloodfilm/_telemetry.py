"""Switch off what libraries would report of their use to their makers.

They read these variables when they are imported, so this has to happen before; worker processes
inherit them. `import bloodfilm` comes before every import that the program makes itself, whether
it runs as a command, a library, a worker or a benchmark. What a program of the user's imported
earlier has read its settings by then.
"""

import os

VARIABLES = (
    "ORT_DISABLE_TELEMETRY",  # ONNX Runtime; its function `disable_telemetry_events` is too late
    "HF_HUB_DISABLE_TELEMETRY",  # huggingface_hub, which timm imports
    "DO_NOT_TRACK",  # the common name for the same wish, which huggingface_hub knows too
)


def switch_off() -> None:
    """Set the variables of this process and of those it starts."""
    for name in VARIABLES:
        os.environ[name] = "1"
