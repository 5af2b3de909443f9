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
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image

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


@dataclass
class KnownAppearances:
    """Pictures met so far, searched by how they look."""

    _signs: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((64, _WORDS), np.uint64))
    _shapes: NDArray[np.float64] = field(default_factory=lambda: np.zeros(64))
    _count: int = 0

    def find(self, appearance: str, width: int, height: int) -> list[int]:
        """Return the numbers of the pictures that look the same, rising.

        Args:
            appearance: of the picture; an empty one is like no other.
            width, height: of the picture; another shape is another picture, another size is not.
        """
        if not appearance:
            return []
        known = self._signs[: self._count] ^ _signs_of(appearance)
        differ = np.bitwise_count(known).sum(axis=1)
        shapes = np.abs(self._shapes[: self._count] - np.log(width / height))
        return np.flatnonzero((differ <= MOST_DIFFERENT) & (shapes <= SHAPE_TOLERANCE)).tolist()

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
