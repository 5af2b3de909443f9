"""Find white cells on blood-film micrographs, name them and describe seven attributes.

    import bloodfilm

    model = bloodfilm.load_model()
    run = bloodfilm.analyze("fields", model, out="results")
    for result in run:
        for cell in result.cells:
            print(cell.id, cell.box, cell.label, cell.label_confidence, cell.issues)
    print(bloodfilm.differential(run).to_json())
    run.to_dataframe()
    run = bloodfilm.read_run("results")

Research use only. The public names are listed in `__init__.pyi`; they load on first use, so that
`import bloodfilm` stays quick.
"""

from bloodfilm import _telemetry

_telemetry.switch_off()  # before anything else is imported

from typing import Any  # noqa: E402

import lazy_loader  # noqa: E402

__version__ = "0.1.0"

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    try:
        return _load(name)
    except AttributeError:
        raise AttributeError(f"module 'bloodfilm' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(__all__)
