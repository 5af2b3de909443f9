"""What a picture is recognised by, whatever file it lies in: its pixels, and how it looks.

Two keys, both short text:

- `pixels` is equal for the same decoded pixels: a PNG, a TIFF and a BMP of one picture.
- `appearance` differs little for the same picture compressed, resized or brightened anew. It holds
  the signs of the 16 x 16 lowest frequencies of a cosine transform of the picture in grey, 64 x 64
  pixels large (the idea of pHash; Zauner, "Implementation and Benchmarking of Perceptual Image Hash
  Functions", 2010).

Of 1,000 pictures of blood films, JPEG of quality 30 and more, and half the size, changed at most
7 of the 256 signs, 0.37 of the size at quality 70 at most 10; those of different glass differ in
46 or more.
"""

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Image

SIDE = 64
FREQUENCIES = 16
MOST_DIFFERENT = 16
"""Signs in which two appearances may differ and still be one picture."""
MIN_CONTRAST = 2.0
"""Grey levels; empty pictures look alike whatever they show."""
MIN_AMPLITUDE = 0.5
"""Of a frequency whose sign is taken as positive; what rounding leaves is not."""
SHAPE_TOLERANCE = 0.02
_WORDS = FREQUENCIES * FREQUENCIES // 64


@dataclass(frozen=True, slots=True)
class PictureKey:
    """Keys of one picture.

    Attributes:
        pixels: SHA-256 of size and pixels, in hexadecimal.
        appearance: signs of its lowest frequencies, 64 hexadecimal digits; empty without contrast.
    """

    pixels: str
    appearance: str

    @classmethod
    def of_image(cls, image: Image) -> "PictureKey":
        """Return the keys of an RGB image (H, W, 3)."""
        return cls(pixel_digest(image), appearance_of(image))


def pixel_digest(image: Image) -> str:
    """Return the SHA-256 of size and pixels of an RGB image (H, W, 3).

    >>> import numpy as np
    >>> pixel_digest(np.zeros((48, 64, 3), np.uint8))[:16]
    'ff644645b9010f79'
    """
    digest = hashlib.sha256(f"{image.shape[1]} {image.shape[0]}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def appearance_of(image: Image) -> str:
    """Return the appearance of an RGB image (H, W, 3); empty if it shows nothing."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if float(small.std()) < MIN_CONTRAST:
        return ""
    signs = cv2.dct(small)[:FREQUENCIES, :FREQUENCIES] > MIN_AMPLITUDE
    signs[0, 0] = False  # the mean
    return np.packbits(signs).tobytes().hex()


def difference(one: str, two: str) -> int:
    """Return in how many of 256 signs two appearances differ.

    >>> difference("00" * 32, "01" * 32)
    32
    """
    return (int(one, 16) ^ int(two, 16)).bit_count()


class Symmetry(NamedTuple):
    """How a picture is turned or mirrored: transposed first, then flipped along x, along y.

    >>> turned = Symmetry(True, True, False)  # by 90 degrees, clockwise
    >>> turned.boxes(np.array([[0.0, 0.0, 0.1, 0.2]])).round(3).tolist()
    [[0.8, 0.0, 0.2, 0.1]]
    """

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether the picture stays as it is."""
        return not any(self)

    def boxes(self, boxes: Floats) -> Floats:
        """Return where boxes (n, 4), in widths and heights of the picture, come to lie."""
        x, y, w, h = boxes.T
        if self.transposed:
            x, y, w, h = y, x, h, w
        x = 1 - x - w if self.flipped_x else x
        y = 1 - y - h if self.flipped_y else y
        return np.column_stack([x, y, w, h])

    def map_of(self, width: float, height: float) -> Floats:
        """Return the map (2x3) from a picture of that size to the turned one."""
        linear = np.array([[0.0, 1.0], [1.0, 0.0]]) if self.transposed else np.eye(2)
        linear[0] *= -1 if self.flipped_x else 1
        linear[1] *= -1 if self.flipped_y else 1
        corners = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]]) @ linear.T
        return np.column_stack([linear, -corners.min(axis=0)])

    def original(self, appearance: str) -> str:
        """Return the appearance of the picture that, turned so, has this appearance.

        Flipping a picture changes the sign of its odd frequencies.
        """
        packed = np.frombuffer(bytes.fromhex(appearance), np.uint8)
        signs = np.unpackbits(packed).reshape(FREQUENCIES, FREQUENCIES).astype(bool)
        odd = np.arange(FREQUENCIES) % 2 == 1
        signs = signs ^ (odd[None, :] & self.flipped_x) ^ (odd[:, None] & self.flipped_y)
        return np.packbits(signs.T if self.transposed else signs).tobytes().hex()


SYMMETRIES = tuple(Symmetry(*bits) for bits in itertools.product((False, True), repeat=3))
"""The eight of a picture; the first leaves it as it is."""


@dataclass
class KnownAppearances:
    """Pictures met so far, searched by how they look."""

    _signs: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((64, _WORDS), np.uint64))
    _shapes: NDArray[np.float64] = field(default_factory=lambda: np.zeros(64))
    _count: int = 0

    def find(
        self, appearance: str, width: int, height: int, most: int = MOST_DIFFERENT
    ) -> list[tuple[int, Symmetry]]:
        """Return the pictures that look the same, and how this one is turned or mirrored from them.

        Those that are not turned come first, by number.

        Args:
            appearance: of the picture; an empty one is like no other.
            width, height: of the picture; another shape is another picture, another size is not.
            most: signs in which they may differ.
        """
        if not appearance:
            return []
        signs = np.stack([_signs_of(s.original(appearance)) for s in SYMMETRIES])
        differ = np.bitwise_count(self._signs[: self._count] ^ signs[:, None]).sum(axis=2)
        upright = np.log(width / height)
        shapes = np.array([-upright if s.transposed else upright for s in SYMMETRIES])
        apart = np.abs(self._shapes[: self._count] - shapes[:, None])
        alike = np.argwhere((differ <= most) & (apart <= SHAPE_TOLERANCE))
        return [(number, SYMMETRIES[symmetry]) for symmetry, number in alike.tolist()]

    def add(self, appearance: str, width: int, height: int) -> None:
        """Take note of the next picture; they are numbered from 0."""
        if self._count == len(self._signs):
            self._signs = np.concatenate([self._signs, np.zeros_like(self._signs)])
            self._shapes = np.concatenate([self._shapes, np.zeros_like(self._shapes)])
        # A picture without appearance has a shape that no other comes near.
        shape = np.log(width / height) if appearance else np.inf
        self._signs[self._count] = _signs_of(appearance) if appearance else 0
        self._shapes[self._count] = shape
        self._count += 1


def _signs_of(appearance: str) -> NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex(appearance), np.uint64)
