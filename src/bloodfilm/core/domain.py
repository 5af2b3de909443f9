"""The acquisition of a field: microscope, magnification, camera, pixel size, stain."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bloodfilm.core.errors import DataError

_OLD_KEYS = {"squeeze": "pixel_aspect_ratio"}


@dataclass(frozen=True, slots=True)
class Domain:
    """The acquisition of a field, as far as it is documented; `None`: not documented.

    Attributes:
        microscope: e.g. `H`, `L` (LLD's high- and low-cost ones), `CellaVision DM96`.
        magnification: of the objective: 10, 40, 100.
        camera: e.g. `C1`.
        pixel_aspect_ratio: width / height, in pixels, of what is round on the glass; 1 for square
            pixels.
        um_per_px: micrometres per pixel along y (along x, `um_per_px / pixel_aspect_ratio`).
        stain: e.g. `Giemsa`.
    """

    microscope: str | None = None
    magnification: float | None = None
    camera: str | None = None
    pixel_aspect_ratio: float | None = None
    um_per_px: float | None = None
    stain: str | None = None

    def __post_init__(self) -> None:
        for name in ("microscope", "camera", "stain"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise DataError(f"domain: {name} must be text, not {value!r}")
        for name in ("magnification", "pixel_aspect_ratio", "um_per_px"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise DataError(f"domain: {name} must be a number, not {value!r}")
            if not 0 < value < float("inf"):
                raise DataError(f"domain: {name} must be a positive number, not {value!r}")

    @property
    def name(self) -> str:
        """A short key to group fields by, e.g. `H/40X/C2`; `unknown` if nothing is documented."""
        magnification = None if self.magnification is None else f"{self.magnification:g}X"
        parts = [p for p in (self.microscope, magnification, self.camera, self.stain) if p]
        return "/".join(parts) or "unknown"

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain data."""
        return {k: v for k, v in asdict(self).items() if v is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Domain":
        """Build a domain from `to_json` data; `DataError` on an unknown key or a wrong value.

        >>> Domain.from_json({"squeeze": 0.5}).pixel_aspect_ratio  # as older versions called it
        0.5
        """
        try:
            return cls(**{_OLD_KEYS.get(key, key): value for key, value in data.items()})
        except TypeError as error:
            raise DataError(f"domain: {error}") from None
