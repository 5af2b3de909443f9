"""An outline graph that draws what it is told."""

import numpy as np

from bloodfilm.inference.manifest import ColourSpec, OutlineSpec

SPEC = OutlineSpec(
    file="outlines.onnx",
    sha256="0" * 64,
    size=96,
    background=245,
    share=0.625,
    colours=ColourSpec(white=240, depth=62, chroma=38, nucleus=None),
)


class Drawn:
    """A graph that answers with ellipses in the middle of every crop: cell 60 px wide.

    Args:
        cell, nucleus: half axes, px of the crop.
        at: where they lie, from the middle of the crop.
        speck: further cells of 3 px, from the middle.
    """

    def __init__(self, cell=(30.0, 30.0), nucleus=(15.0, 15.0), at=(0.0, 0.0), speck=()):
        self.cell, self.nucleus, self.at, self.speck = cell, nucleus, at, speck

    def run(self, names, inputs):
        assert names == ["maps"]
        crops = inputs["crops"]
        assert crops.shape[1:] == (96, 96, 3) and crops.dtype == np.uint8
        y, x = (np.mgrid[:48, :48] + 0.5) * 2 - 48
        u, v = x - self.at[0], y - self.at[1]
        maps = [20 * (1 - np.hypot(u / a, v / b)) for a, b in (self.cell, self.nucleus)]
        for place in self.speck:
            maps[0] = np.maximum(maps[0], 4 - np.hypot(x - place[0], y - place[1]))
        return [np.repeat(np.float32(maps)[None], len(crops), axis=0)]
