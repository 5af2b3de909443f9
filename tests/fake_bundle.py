"""A bundle whose graphs are hand-made: dark discs are nucleated cells, paler ones red cells.

So the whole chain from file to result is tested without trained weights, and every box, class and
attribute that should come out is known.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bloodfilm.core import Cell, Domain, Field
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY

STRIDE = 8
KINDS = ("nucleated cell", "red cell", "platelet")
LEAVES = DEFAULT_TAXONOMY.leaves_under("nucleated cell")
BLUES = np.linspace(0.2, 0.9, len(LEAVES)).astype(np.float32)

WHITE = (240, 235, 225)
RED = (215, 150, 150)


def dark(leaf: str) -> tuple[int, int, int]:
    """The colour the fake reader takes for a class (after white balance on `WHITE`)."""
    blue = float(BLUES[LEAVES.index(leaf)])
    return (80, 60, round(blue * 255 * WHITE[2] / 245))


# Attributes the fake reader answers, whatever it sees; it is of two minds about cell size.
ANSWERS = {
    "nuclear_chromatin": "coarse",
    "nuclear_shape": "regular",
    "nucleolus": "prominent",
    "cytoplasm": "scanty",
    "cytoplasmic_basophilia": "moderate",
    "cytoplasmic_vacuoles": "absent",
}


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = attributes.pop("name", f"n{len(self.nodes)}")
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        graph = helper.make_graph(self.nodes, "fake", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model.SerializeToString()


def _blobs(g: _Graph, mask: str, window: int, area: float, widest: float) -> tuple[str, str]:
    """Score and distances of the disc around each location, from the mask's moments there.

    `area` is what a full score takes; what spreads over more than `widest` is several discs.
    """
    c = np.arange(window) - (window - 1) / 2
    x, y = np.meshgrid(c, c)
    kernels = np.stack([np.ones_like(x), x, y, x * x, y * y])[:, None]
    pad = (window - STRIDE) // 2
    moments = g.op(
        "Conv", mask, g.const(kernels), strides=[STRIDE, STRIDE], pads=[pad, pad, pad, pad]
    )

    def part(i: int) -> str:
        return g.op(
            "Slice", moments, g.const([i], np.int64), g.const([i + 1], np.int64),
            g.const([1], np.int64),
        )  # fmt: skip

    total = part(0)
    count = g.op("Max", total, g.const(1.0))
    mx, my = g.op("Div", part(1), count), g.op("Div", part(2), count)
    radii = []
    for i, mean in ((3, mx), (4, my)):
        square = g.op("Div", part(i), count)
        variance = g.op("Sub", square, g.op("Mul", mean, mean))
        radius = g.op("Sqrt", g.op("Max", variance, g.const(0.0)))
        radii.append(g.op("Mul", radius, g.const(2.0)))
    full = g.op("Min", g.op("Div", total, g.const(area)), g.const(1.0))
    off = g.op("Add", g.op("Mul", mx, mx), g.op("Mul", my, my))
    near = g.op("Sub", g.const(1.0), g.op("Div", off, g.const(512.0)))
    one = [
        g.op("Cast", g.op("Less", radius, g.const(widest / 2)), to=TensorProto.FLOAT)
        for radius in radii
    ]
    score = g.op("Mul", g.op("Mul", full, g.op("Max", near, g.const(0.0))), g.op("Mul", *one))
    sides = [
        g.op("Sub", radii[0], mx),
        g.op("Sub", radii[1], my),
        g.op("Add", radii[0], mx),
        g.op("Add", radii[1], my),
    ]
    return score, g.op("Concat", *sides, axis=1)


def detector() -> bytes:
    """Dark discs of 34 to 70 px score as nucleated, paler ones of 21 to 45 px as red cells."""
    g = _Graph()
    pixels = g.op("Transpose", g.op("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    red, green, _ = (
        g.op(
            "Slice", pixels, g.const([i], np.int64), g.const([i + 1], np.int64),
            g.const([1], np.int64),
        )
        for i in range(3)
    )  # fmt: skip
    is_dark = g.op("Less", red, g.const(150.0))
    pale = g.op("And", g.op("Not", is_dark), g.op("Less", green, g.const(200.0)))
    masks = [g.op("Cast", m, to=TensorProto.FLOAT) for m in (is_dark, pale)]
    nucleated, boxes_n = _blobs(g, masks[0], 104, 1500.0, 80.0)
    reds, boxes_r = _blobs(g, masks[1], 56, 600.0, 48.0)
    g.op("Concat", nucleated, reds, g.op("Mul", reds, g.const(0.0)), axis=1, name="scores")
    g.op("Where", g.op("Greater", nucleated, reds), boxes_n, boxes_r, name="boxes")
    return g.model(
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", 3, "h", "w"]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["B", 4, "h", "w"]),
        ],
    )


def reader(size: int = 128, confirms: bool = False) -> bytes:
    """The blue of the crop's middle names the class, attributes are fixed, novelty is the green.

    With `confirms`, a nucleated cell is one to it if its red is below 100.
    """
    g = _Graph()
    pixels = g.op("Cast", "crops", to=TensorProto.FLOAT)
    middle = g.op(
        "Slice", pixels, g.const([size // 2 - 4] * 2, np.int64),
        g.const([size // 2 + 4] * 2, np.int64), g.const([1, 2], np.int64),
    )  # fmt: skip
    mean = g.op("ReduceMean", middle, axes=[1, 2], keepdims=0)
    colour = g.op("Div", mean, g.const(255.0))
    green, blue = (g.op("Gather", colour, g.const([i], np.int64), axis=1) for i in (1, 2))
    more = []
    if confirms:
        red = g.op("Gather", colour, g.const([0], np.int64), axis=1)
        doubt = g.op("Mul", g.op("Sub", red, g.const(100 / 255)), g.const(-100.0))
        g.op("Squeeze", doubt, g.const([1], np.int64), name="nucleated")
        more.append(helper.make_tensor_value_info("nucleated", TensorProto.FLOAT, ["N"]))
    off = g.op("Sub", blue, g.const(BLUES[None]))
    g.op("Mul", g.op("Mul", off, off), g.const(-2000.0), name="classes")
    fixed = np.zeros(LLD_SCHEMA.width, dtype=np.float32)
    fixed[0] = 0.1
    for name, value in ANSWERS.items():
        fixed[LLD_SCHEMA.slices[name].start + LLD_SCHEMA[name].index(value)] = 4.0
    g.op("Add", g.op("Mul", blue, g.const(0.0)), g.const(fixed[None]), name="attributes")
    g.op("Squeeze", green, g.const([1], np.int64), name="novelty")
    return g.model(
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["N", len(LEAVES)]),
            helper.make_tensor_value_info("attributes", TensorProto.FLOAT, ["N", LLD_SCHEMA.width]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N"]),
            *more,
        ],
    )


def manifest(graphs: dict[str, bytes]) -> dict[str, Any]:
    """The manifest that goes with the graphs."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    return {
        "format": "bloodfilm-bundle",
        "version": 1,
        "name": "fake",
        "created": "2025-01-01T00:00:00+00:00",
        "licence": "Apache-2.0",
        "taxonomy": DEFAULT_TAXONOMY.to_json(),
        "schema": LLD_SCHEMA.to_json(),
        "kinds": list(KINDS),
        "leaves": list(LEAVES),
        "unlearnt": {"classes": ["monoblast"], "attributes": ["cytoplasmic_vacuoles"]},
        "detector": {
            "file": "detector.onnx",
            "sha256": sums["detector.onnx"],
            "um_per_px": 0.25,
            "background": 245,
            "stride": STRIDE,
            "multiple": 32,
            "thresholds": {"nucleated cell": 0.6, "red cell": 0.6, "platelet": 0.6},
            "nms_iou": 0.3,
            "tile": 1024,
            "overlap": 160,
        },
        "reader": {
            "file": "reader.onnx",
            "sha256": sums["reader.onnx"],
            "size": 128,
            "um_per_px": 0.175,
            "background": 245,
            "temperatures": {"class": 1.0},
            "class_confidence": 0.7,
            "attribute_confidence": 0.6,
            "novelty_threshold": 0.5,
        },
        "training": {},
        "metrics": {},
    }


def spoiled(data: bytes, output: str, value: float) -> bytes:
    """The graph with `value` in place of all that one output holds."""
    model = onnx.load_from_string(data)
    (node,) = (n for n in model.graph.node if output in n.output)
    node.output[list(node.output).index(output)] = "spoiled"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(value), "spoil"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "spoil_0"))
    model.graph.node.append(helper.make_node("Mul", ["spoiled", "spoil_0"], ["spoiled_0"]))
    model.graph.node.append(helper.make_node("Add", ["spoiled_0", "spoil"], [output]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_bundle(
    folder: Path, change: Callable[[dict[str, Any]], None] | None = None, confirms: bool = False
) -> Path:
    """Write the fake bundle; `change` may edit its manifest. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"detector.onnx": detector(), "reader.onnx": reader(confirms=confirms)}
    for name, data in graphs.items():
        (folder / name).write_bytes(data)
    data = manifest(graphs)
    data["reader"]["confirms"] = confirms
    if change:
        change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    return folder


@dataclass(frozen=True)
class Disc:
    """A round thing on the glass: centre and diameter in micrometres, colour as photographed."""

    x: float
    y: float
    diameter: float = 7.5
    colour: tuple[int, int, int] = RED


def draw(
    discs: Sequence[Disc], size: tuple[int, int], um_per_px: float = 0.25, squeeze: float = 1.0
) -> NDArray[np.uint8]:
    """A field `size` = (width, height) px; `um_per_px` along y, as in `Domain`."""
    image = np.full((size[1], size[0], 3), WHITE, dtype=np.uint8)
    um_x = um_per_px / squeeze
    for d in discs:
        centre = (round((d.x / um_x - 0.5) * 16), round((d.y / um_per_px - 0.5) * 16))
        axes = (round(d.diameter / um_x * 8), round(d.diameter / um_per_px * 8))
        cv2.ellipse(image, centre, axes, 0, 0, 360, d.colour, -1, cv2.LINE_AA, 4)
    return image


def box_of(disc: Disc, um_per_px: float = 0.25, squeeze: float = 1.0) -> NDArray[np.float64]:
    """Where a disc lies in the picture: (x, y, w, h) px."""
    um_x, r = um_per_px / squeeze, disc.diameter / 2
    return np.array(
        [
            (disc.x - r) / um_x,
            (disc.y - r) / um_per_px,
            disc.diameter / um_x,
            disc.diameter / um_per_px,
        ]
    )


def lay_out(
    width_um: float,
    height_um: float,
    nucleated: Sequence[tuple[float, float, str]] = (),
    step: float = 18.0,
    keep_away: float = 24.0,
) -> list[Disc]:
    """Red cells on a loose grid, and nucleated cells (x, y, leaf) of 12 um with room around."""
    discs = [Disc(x, y, 12.0, dark(leaf)) for x, y, leaf in nucleated]
    ys = np.arange(12.0, height_um - 11.0, step)
    for i, y in enumerate(ys):
        for x in np.arange(12.0 + (i % 2) * step / 2, width_um - 11.0, step):
            if all(np.hypot(x - d.x, y - d.y) > keep_away for d in discs if d.diameter > 10):
                discs.append(Disc(float(x), float(y)))
    return discs


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write RGB pixels as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())
    return path


def labelled_field(path, *discs, region=None):
    """A field whose dark discs are monocytes, and others of that size unlabelled."""
    red = [Disc(15.0 + 14.0 * i, 90.0) for i in range(8)]
    save(path, draw([*discs, *red], (520, 420)))
    cells = [
        Cell(
            tuple(float(v) for v in box_of(d)),
            "red cell" if d.colour != dark("monocyte") else "monocyte",
        )
        for d in (*discs, *red)
    ]
    known = {} if region is None else {"region": region}
    domain = Domain(um_per_px=0.25, pixel_aspect_ratio=1.0)
    return Field(path, 520, 420, tuple(cells), domain=domain, **known)
