"""Acquisition profiles: stain, optics and camera; named presets and random profiles.

A dye absorbs as Beer and Lambert say: pixel = white point * 10 ** -(sum of amount * OD), with one
optical density per colour channel (Ruifrok & Johnston 2001, eq. 1, in display values).
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import FloatColour
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import ConfigError

HAEMOGLOBIN, CHROMATIN, RNA, GROUND, EOSIN, AZURE, GREY = range(7)
"""Channels of a painted patch: amounts of what takes up the stain."""

DYES = 7


@dataclass(frozen=True)
class Stain:
    """Optical density (R, G, B) of a unit amount of each stained component.

    Attributes:
        haemoglobin: the rim of a red cell.
        chromatin: a dense nucleus.
        rna: deeply basophilic cytoplasm.
        ground: the pale pink-lilac cytoplasm of a neutrophil.
        eosin: eosinophil granules.
        azure: azurophil and basophil granules, platelets.
        grey: dirt and stain deposit.
    """

    name: str
    haemoglobin: FloatColour
    chromatin: FloatColour
    rna: FloatColour
    ground: FloatColour
    eosin: FloatColour
    azure: FloatColour
    grey: FloatColour = (0.5, 0.55, 0.4)

    @property
    def matrix(self) -> NDArray[np.float32]:
        """The optical densities, one row a dye, (DYES, 3)."""
        rows = (self.haemoglobin, self.chromatin, self.rna, self.ground)
        return np.array((*rows, self.eosin, self.azure, self.grey), np.float32)

    def varied(self, rng: np.random.Generator, by: float = 0.12) -> "Stain":
        """Return the stain as another batch: each dye stronger or weaker, a little off in hue."""
        m = self.matrix * np.exp(rng.normal(0, by, (DYES, 1))) * np.exp(rng.normal(0, by / 3, 3))
        rows: list[FloatColour] = [(float(r), float(g), float(b)) for r, g, b in m]
        return Stain(self.name, *rows)


STAINS = {
    "mgg": Stain(
        "May-Gruenwald-Giemsa",
        haemoglobin=(0.112, 0.153, 0.093),
        chromatin=(0.57, 0.96, 0.19),
        rna=(0.30, 0.31, 0.06),
        ground=(0.085, 0.145, 0.055),
        eosin=(0.15, 0.37, 0.18),
        azure=(0.42, 0.80, 0.14),
    ),
    "wright-pale": Stain(
        "Wright, pale",
        haemoglobin=(0.075, 0.155, 0.105),
        chromatin=(0.22, 0.36, -0.01),
        rna=(0.13, 0.16, 0.01),
        ground=(0.06, 0.13, 0.02),
        eosin=(0.10, 0.30, 0.13),
        azure=(0.19, 0.34, 0.01),
    ),
    "giemsa-magenta": Stain(
        "Giemsa, magenta",
        haemoglobin=(0.18, 0.27, 0.14),
        chromatin=(0.27, 0.87, 0.20),
        rna=(0.24, 0.30, 0.09),
        ground=(0.05, 0.13, 0.07),
        eosin=(0.16, 0.42, 0.20),
        azure=(0.26, 0.70, 0.18),
    ),
    "slate": Stain(
        "Giemsa, slate",
        haemoglobin=(0.34, 0.26, 0.10),
        chromatin=(0.42, 0.76, 0.20),
        rna=(0.21, 0.33, 0.09),
        ground=(0.09, 0.20, 0.05),
        eosin=(0.14, 0.33, 0.13),
        azure=(0.34, 0.58, 0.14),
    ),
    "pale": Stain(
        "Giemsa, pale red cells",
        haemoglobin=(0.075, 0.087, 0.037),
        chromatin=(0.48, 0.62, 0.17),
        rna=(0.24, 0.32, 0.09),
        ground=(0.09, 0.19, 0.05),
        eosin=(0.13, 0.30, 0.12),
        azure=(0.33, 0.55, 0.13),
    ),
    "magenta": Stain(
        "Leishman, magenta",
        haemoglobin=(0.15, 0.25, 0.07),
        chromatin=(0.27, 0.62, 0.12),
        rna=(0.20, 0.30, 0.08),
        ground=(0.08, 0.18, 0.05),
        eosin=(0.13, 0.33, 0.14),
        azure=(0.25, 0.55, 0.11),
    ),
}


@dataclass(frozen=True)
class AcquisitionProfile:
    """One acquisition domain: stain, optics, camera, and how the film was spread.

    Attributes:
        name: of the profile.
        width, height: pixels of a field.
        um_per_px: micrometres per pixel along y; along x it is `um_per_px / pixel_aspect_ratio`.
        pixel_aspect_ratio: width / height in pixels of a circle on the glass.
        white: the empty background's RGB.
        blur_um: standard deviation of the optics' blur, about 0.13 / NA (0.55 um light).
        focus_um: further blur of this field.
        red_blur_um: further blur of the red cells, which are flatter than the white ones.
        vignette: loss of light at the corners; tilt: change of light from edge to edge.
        sharpen: amount of the camera's unsharp mask.
        noise: deviation of the sensor noise, in grey levels, in the background.
        jpeg: quality, or `None` for no compression.
        glare: stray light, as a share of the white point, that lifts the darkest parts.
        red_density: red cells per 1000 um2; clumping: share of them that overlap another.
        pile: fraction of a red cell's density that adds up where it overlaps another (0..1).
        platelet_density, debris_density: per 1000 um2.
    """

    name: str
    stain: Stain
    width: int = 640
    height: int = 640
    um_per_px: float = 0.095
    pixel_aspect_ratio: float = 1.0
    white: FloatColour = (250.0, 245.0, 240.0)
    blur_um: float = 0.1
    focus_um: float = 0.0
    red_blur_um: float = 0.0
    vignette: float = 0.03
    tilt: float = 0.02
    sharpen: float = 0.0
    noise: float = 1.0
    jpeg: int | None = 90
    glare: float = 0.02
    red_density: float = 10.0
    clumping: float = 0.12
    pile: float = 0.7
    platelet_density: float = 0.9
    debris_density: float = 0.3
    domain: Domain = field(default_factory=Domain)

    @property
    def um_x(self) -> float:
        """Micrometres per pixel along x."""
        return self.um_per_px / self.pixel_aspect_ratio

    def acquisition_domain(self) -> Domain:
        """Return the domain with its scale, pixel aspect ratio and stain filled in."""
        return replace(
            self.domain,
            um_per_px=self.um_per_px,
            pixel_aspect_ratio=self.pixel_aspect_ratio,
            stain=self.stain.name,
        )


def _lld(name: str, magnification: int, **changes: object) -> AcquisitionProfile:
    domain = Domain(microscope="H", magnification=magnification, camera="C2")
    base = AcquisitionProfile(
        name,
        STAINS["slate"],
        um_per_px=0.1442,
        pixel_aspect_ratio=0.5625,
        white=(163.0, 163.0, 155.0),
        blur_um=0.24,
        sharpen=0.5,
        noise=1.3,
        red_density=5.5,
        clumping=0.5,
        pile=0.1,
        platelet_density=0.9,
        debris_density=2.0,
        glare=0.025,
        domain=domain,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


PROFILES = {
    profile.name: profile
    for profile in (
        AcquisitionProfile(
            "pbc-like",
            STAINS["mgg"],
            360,
            363,
            0.0945,
            white=(255.0, 230.0, 203.0),
            blur_um=0.085,
            red_blur_um=0.06,
            glare=0.045,
            red_density=11.5,
            clumping=0.25,
            sharpen=0.9,
            noise=0.8,
            vignette=0.0,
            tilt=0.0,
            domain=Domain("CellaVision DM96", 100, None),
        ),
        AcquisitionProfile(
            "bccd-like",
            STAINS["wright-pale"],
            640,
            480,
            0.0715,
            white=(205.0, 206.0, 199.0),
            blur_um=0.21,
            noise=0.7,
            jpeg=80,
            red_density=10.5,
            clumping=0.25,
            pile=0.55,
            domain=Domain(None, 100, None),
        ),
        AcquisitionProfile(
            "raabin-like",
            STAINS["giemsa-magenta"],
            575,
            575,
            0.0552,
            white=(222.0, 187.0, 173.0),
            blur_um=0.12,
            noise=0.5,
            vignette=0.06,
            tilt=0.04,
            red_density=9.0,
            pile=0.6,
            domain=Domain("Olympus CX18", 100, "phone"),
        ),
        _lld("lld40x-like", 40),
        _lld(
            "lld40x-magenta",
            40,
            stain=STAINS["magenta"],
            white=(167.0, 172.0, 169.0),
            red_density=7.5,
            clumping=0.15,
            pile=0.5,
        ),
        _lld("lld40x-pale", 40, stain=STAINS["pale"], white=(157.0, 159.0, 153.0), pile=0.4),
        _lld(
            "lld100x-like", 100, um_per_px=0.145, pixel_aspect_ratio=0.6, blur_um=0.11, sharpen=0.8
        ),
        _lld("lld10x-like", 10, um_per_px=0.58, blur_um=0.5),
        AcquisitionProfile(
            "phone",
            STAINS["mgg"],
            720,
            540,
            0.11,
            white=(214.0, 205.0, 176.0),
            blur_um=0.2,
            vignette=0.35,
            tilt=0.1,
            sharpen=0.8,
            noise=2.5,
            jpeg=70,
            domain=Domain(None, 40, "phone"),
        ),
    )
}
"""Named profiles, with values measured on real films."""


def get_profile(profile: str | AcquisitionProfile) -> AcquisitionProfile:
    """Return a profile by name, or the given profile; `ConfigError` on an unknown name."""
    if isinstance(profile, AcquisitionProfile):
        return profile
    if profile not in PROFILES:
        raise ConfigError(f"films: no look {profile!r}; known looks: {', '.join(PROFILES)}")
    return PROFILES[profile]


def vary_profile(
    profile: AcquisitionProfile, rng: np.random.Generator, by: float = 1.0
) -> AcquisitionProfile:
    """Return the profile varied as for another slide: stain batch, light, focus, density."""
    white = np.clip(np.array(profile.white) * np.exp(rng.normal(0, 0.02 * by, 3)), 60, 255)
    return replace(
        profile,
        stain=profile.stain.varied(rng, 0.1 * by),
        white=(float(white[0]), float(white[1]), float(white[2])),
        focus_um=profile.focus_um + abs(float(rng.normal(0, 0.07 * by))),
        tilt=profile.tilt + abs(float(rng.normal(0, 0.02 * by))),
        vignette=profile.vignette + abs(float(rng.normal(0, 0.02 * by))),
        red_density=profile.red_density * float(np.exp(rng.normal(0, 0.15 * by))),
        clumping=float(np.clip(profile.clumping * np.exp(rng.normal(0, 0.3 * by)), 0, 0.9)),
    )


def random_profile(
    rng: np.random.Generator, width: int = 640, height: int = 640
) -> AcquisitionProfile:
    """Draw a random profile: stain, illumination, scale, pixel aspect ratio and camera."""
    stain = STAINS[str(rng.choice(list(STAINS)))].varied(rng, 0.15)
    warmth = rng.normal(0, 0.05)
    bright = float(rng.uniform(150, 250))
    white = np.clip(bright * np.array([1 + warmth, 1.0, 1 - warmth]), 90, 255)
    magnification = int(rng.choice([40, 100]))
    pixel_aspect_ratio = float(rng.choice([1.0, 1.0, 0.75, 0.5625]))
    scale = float(rng.uniform(0.13, 0.24) if magnification == 40 else rng.uniform(0.055, 0.11))
    return AcquisitionProfile(
        "random",
        stain,
        width,
        height,
        scale,
        pixel_aspect_ratio,
        (float(white[0]), float(white[1]), float(white[2])),
        blur_um=0.2 if magnification == 40 else 0.1,
        focus_um=float(rng.exponential(0.06)),
        vignette=float(rng.uniform(0, 0.25)),
        tilt=float(rng.uniform(0, 0.1)),
        sharpen=float(rng.choice([0.0, 0.5, 1.0])),
        noise=float(rng.uniform(0.4, 2.5)),
        jpeg=int(rng.integers(65, 98)),
        red_density=float(rng.uniform(4, 11)),
        clumping=float(rng.uniform(0, 0.5)),
        pile=float(rng.uniform(0.2, 0.9)),
        domain=Domain("random", magnification, None),
    )
