"""Processor time of each graph of a bundle in ONNX Runtime and in OpenVINO, and what it changes.

    pip install openvino
    python benchmarks/runtimes.py [--bundle FOLDER] [--rounds 12] [--json FILE]

Each graph runs by itself, on a drawn field and the crops of its cells, with one and with two
threads; OpenVINO in single precision and, where the processor has it, in bfloat16. The graphs are
those that ship: detector and classifier with eight-bit weights and activations, outlines in single
precision. The time is the least of several calls, in milliseconds of processor time, which other
jobs hardly change; the difference is the largest and the mean absolute one of all outputs, against
ONNX Runtime.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.synthetic import render_field

SIDE = 640
CELLS = 5
WINDOW = 100
"""Side of a cell's window in the drawn field, px."""
PRECISIONS = ("f32", "bf16")

Arrays = list[NDArray[np.float32]]


def inputs_of(bundle: Bundle) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    """Name and value of each graph's input."""
    field, truth = render_field("lld40x-like", seed=0, size=(SIDE, SIDE))
    manifest = bundle.manifest
    boxes = [cell.box for cell in truth.cells][:CELLS]

    def crops(size: int) -> NDArray[np.uint8]:
        found = []
        for x, y, w, h in boxes:
            left, top = (
                int(min(max(middle - WINDOW / 2, 0), SIDE - WINDOW))
                for middle in (x + w / 2, y + h / 2)
            )
            part = field[top : top + WINDOW, left : left + WINDOW]
            found.append(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR))
        return np.stack(found).astype(np.uint8)

    inputs = {
        "detector": ("image", field[None]),
        "classifier": ("crops", crops(manifest.classifier.size)),
    }
    if manifest.outlines is not None:
        inputs["outlines"] = ("crops", crops(manifest.outlines.size))
    return inputs


def processor_ms(call: Callable[[], Any], rounds: int) -> float:
    """Least processor time of several calls, milliseconds."""
    call()
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return round(1000 * min(taken), 2)


def differences(one: Arrays, two: Arrays) -> dict[str, float]:
    """Largest and mean absolute difference of two lists of outputs."""
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(one, two, strict=True)])
    return {"largest": float(apart.max()), "mean": float(apart.mean())}


def openvino_calls(
    core: Any, path: Path, name: str, value: NDArray[np.uint8], threads: int
) -> dict[str, Callable[[], Arrays]]:
    """By precision, what runs a graph once."""
    calls: dict[str, Callable[[], Arrays]] = {}
    for precision in PRECISIONS:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
        request = compiled.create_infer_request()

        def call(request: Any = request, compiled: Any = compiled) -> Arrays:
            found = request.infer({name: value}, share_inputs=True)
            return [np.array(found[output]) for output in compiled.outputs]

        calls[precision] = call
    return calls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    try:
        import openvino
    except ImportError:
        sys.exit("openvino is not installed; python -m pip install openvino")
    core, rows = openvino.Core(), []
    for part, (name, value) in inputs_of(bundle).items():
        path = bundle.path / bundle.manifest.graphs[part].file
        for threads in (1, 2):
            session = getattr(bundle, part)("cpu", threads)

            def usual(session: Any = session, name: str = name, value: Any = value) -> Arrays:
                return list(session.run(None, {name: value}))

            wanted = usual()
            ms = processor_ms(usual, options.rounds)
            rows.append({"graph": part, "threads": threads, "runtime": "onnxruntime", "ms": ms})
            for precision, call in openvino_calls(core, path, name, value, threads).items():
                rows.append(
                    {
                        "graph": part,
                        "threads": threads,
                        "runtime": f"openvino {precision}",
                        "ms": processor_ms(call, options.rounds),
                        **differences(wanted, call()),
                    }
                )
    for row in rows:
        apart = f"  differs by {row['mean']:.4f}, {row['largest']:.4f}" if "mean" in row else ""
        print(
            f"{row['graph']:<12}{row['threads']} threads  {row['runtime']:<16}"
            f"{row['ms']:>8.2f} ms{apart}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
