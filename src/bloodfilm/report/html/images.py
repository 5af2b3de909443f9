"""Images embedded in a page: WebP as base64, within a budget that is never exceeded."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from bloodfilm.core.arrays import Pixels


@dataclass
class ImageBudget:
    """Characters of base64 that may still be spent."""

    left: int

    def take(self, text: str) -> str | None:
        """Return the text and count it, or `None` if there is no room for it."""
        if len(text) > self.left:
            return None
        self.left -= len(text)
        return text


def webp(image: Pixels, quality: int = 80) -> str:
    """Return an RGB image as base64 WebP."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be encoded as WebP")
    return base64.b64encode(data.tobytes()).decode("ascii")
