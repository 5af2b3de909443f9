"""A model bundle: a manifest and two or three ONNX graphs in a folder, verified before use.

Loading reads data only: JSON and ONNX graphs made of standard operators. No code of the bundle
is executed, no custom operator library is registered, and no file outside the bundle is opened.
"""

import hashlib
import stat
import threading
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.inference.checksums import SUMS, check_sum, read_sums
from bloodfilm.inference.graph_check import check_graph
from bloodfilm.inference.manifest import (
    FILM_CLASSES,
    FILM_RESIDUAL,
    MANIFEST,
    SUMMED_VERSION,
    Manifest,
    read_manifest,
)

DEFAULT_BUNDLE = "default"
DEVICES = ("auto", "cpu", "cuda")
MAX_BYTES = 1 << 31
"""No serialised ONNX model can be larger."""

Shape = list[int | None]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle; its graphs are opened on first use.

    Attributes:
        path: the folder.
        manifest: its parsed manifest.
        sha256: of the manifest, which holds the graphs' own: the identity of the whole bundle.
    """

    path: Path
    manifest: Manifest
    sha256: str
    _graphs: dict[str, bytes] = field(default_factory=dict, repr=False)
    _sessions: dict[tuple[str, str, int], Any] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def taxonomy(self) -> Taxonomy:
        """The tree that object types and classes are nodes of."""
        return self.manifest.taxonomy

    @property
    def schema(self) -> Schema:
        """The attributes that the classifier answers."""
        return self.manifest.attributes

    def detector(self, device: str = "auto", threads: int = 1) -> Any:
        """The detector as an ONNX Runtime session, made once per device and thread count."""
        return self._session("detector", device, threads)

    def classifier(self, device: str = "auto", threads: int = 1) -> Any:
        """The classifier as an ONNX Runtime session, made once per device and thread count."""
        return self._session("classifier", device, threads)

    def outlines(self, device: str = "auto", threads: int = 1) -> Any:
        """The outline graph as an ONNX Runtime session; `None` if the bundle has none."""
        if self.manifest.outlines is None:
            return None
        return self._session("outlines", device, threads)

    def close(self) -> None:
        """Free the networks' memory; they are reopened on the next use."""
        with self._lock:
            self._sessions.clear()
            self._graphs.clear()

    def identity(self) -> dict[str, str]:
        """Return the model information that results record."""
        m = self.manifest
        sums = {f"{part}_sha256": spec.sha256 for part, spec in m.graphs.items()}
        return {
            "name": m.name,
            "created": m.created,
            "licence": m.licence,
            "sha256": self.sha256,
            **sums,
        }

    def _session(self, part: str, device: str, threads: int) -> Any:
        with self._lock:
            key = (part, device, threads)
            if key not in self._sessions:
                spec = self.manifest.graphs[part]
                place = self.path / spec.file
                graph = self._graphs.get(part) or _verified(place, spec.sha256)
                session = open_session(graph, place, device, threads)
                _check_graph(session, place, *self._expected(part))
                self._sessions[key] = session
                self._graphs.pop(part, None)
            return self._sessions[key]

    def _expected(self, part: str) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """The shapes each input and output must allow, `None` for any size."""
        m = self.manifest
        if part == "detector":
            return {"image": [None, None, None, 3]}, {
                "scores": [None, len(m.object_types), None, None],
                "boxes": [None, 4, None, None],
            }
        if part == "outlines" and m.outlines is not None:
            size = m.outlines.size
            return {"crops": [None, size, size, 3]}, {"maps": [None, 2, size // 2, size // 2]}
        outputs: dict[str, Shape] = {
            "classes": [None, len(m.leaves)],
            "attributes": [None, self.schema.width],
            "novelty": [None],
        }
        if m.classifier.verifies:
            outputs["nucleated"] = [None]
        if m.classifier.film_offset is not None:
            outputs[FILM_RESIDUAL] = [None, m.classifier.film_offset.size]
            outputs[FILM_CLASSES] = [None, len(m.leaves)]
        return {"crops": [None, m.classifier.size, m.classifier.size, 3]}, outputs


def load_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle folder: format, version, keys, and all checksums.

    A bare name that is no folder in the working folder is that of a shipped bundle, see
    `shipped_bundles`. The graphs' inputs and outputs are checked when a graph is first opened.
    Raises `BundleError` (one line) where anything is missing, damaged or of another version.
    """
    folder = Path(path)
    if not folder.exists() and str(path) == folder.name and folder.name in shipped_bundles():
        with as_file(files("bloodfilm") / "bundles" / folder.name) as shipped:
            return _load(shipped)
    return _load(folder)


def shipped_bundles() -> tuple[str, ...]:
    """Return the names of the bundles that come with the program; the default one is first.

    >>> shipped_bundles()[0]
    'default'
    """
    folder = files("bloodfilm") / "bundles"
    if not folder.is_dir():
        return ()
    found = sorted(place.name for place in folder.iterdir() if (place / MANIFEST).is_file())
    return tuple(sorted(found, key=lambda name: name != DEFAULT_BUNDLE))


def _load(folder: Path) -> Bundle:
    """Read and verify a bundle folder."""
    if folder.name == MANIFEST and folder.is_file():
        folder = folder.parent
    if not folder.exists():
        raise BundleError(
            f"{folder}: no such bundle; give the folder that holds {MANIFEST}, or the name of a "
            f"shipped one ({', '.join(shipped_bundles()) or 'there is none'})"
        )
    place = folder / MANIFEST
    if not place.is_file():
        raise BundleError(f"{folder}: not a bloodfilm bundle (it holds no {MANIFEST})")
    text = _read(place)
    sums = read_sums(_read(folder / SUMS), folder / SUMS) if (folder / SUMS).exists() else None
    if sums is not None:
        check_sum(sums, place, hashlib.sha256(text).hexdigest())
    manifest = read_manifest(text, str(place))
    if sums is None and manifest.version >= SUMMED_VERSION:
        raise BundleError(f"{folder / SUMS}: missing; the bundle is incomplete, get it again")
    if sums is not None:
        for name, sha256 in manifest.files.items():
            check_sum(sums, folder / name, sha256)
    specs = manifest.graphs
    graphs = {part: _verified(folder / spec.file, spec.sha256) for part, spec in specs.items()}
    if manifest.exemplars is not None:
        _verified(folder / manifest.exemplars.file, manifest.exemplars.sha256)
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest(), graphs)


def default_bundle() -> Bundle:
    """Load the bundle that comes with the program; `BundleError` if this installation has none."""
    if DEFAULT_BUNDLE not in shipped_bundles():
        raise BundleError(
            "this installation of bloodfilm brings no model; name one with --bundle FOLDER"
        )
    with as_file(files("bloodfilm") / "bundles" / DEFAULT_BUNDLE) as folder:
        return _load(folder)


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        # Reading a pipe could block and reading a device could never end.
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: is not a regular file; the bundle is damaged, get it again")
        if status.st_size > MAX_BYTES:
            raise BundleError(f"{path}: {status.st_size / 1e9:.1f} GB, too large for a bundle")
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path}: missing; the bundle is incomplete, get it again") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None


def _verified(path: Path, sha256: str) -> bytes:
    """Return a file's bytes: those that are verified are those that will run."""
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(
            f"{path}: its checksum is not the manifest's; the bundle is damaged, get it again"
        )
    return data


def open_session(graph: bytes, place: Path, device: str, threads: int) -> Any:
    """An ONNX Runtime session for the bytes of a graph; `place` is for messages.

    Raises `ConfigError` if `device` is not available, `BundleError` if the graph cannot be loaded
    or keeps tensors in other files.
    """
    import onnxruntime as ort

    check_graph(graph, place)
    options = ort.SessionOptions()
    # What has been checked as ONNX must not be taken for ONNX Runtime's own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An error is raised, and need not be printed as well.
    ort.set_default_logger_severity(4)
    options.log_severity_level = 4
    # Fields differ in size: a memory pattern kept for every size seen would grow without end.
    options.enable_mem_pattern = False
    # Spinning threads would take the cores from the other worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = choose_providers(device)
    try:
        session = ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise BundleError(f"{place}: ONNX Runtime cannot load this graph ({reason})") from None
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ConfigError("device cuda: ONNX Runtime could not start CUDA here; use --device cpu")
    return session


def choose_providers(device: str) -> list[str]:
    """ONNX Runtime's provider names for `auto`, `cpu` or `cuda`; `ConfigError` if not possible."""
    import onnxruntime as ort

    if device not in DEVICES:
        raise ConfigError(f"device {device!r}: choose one of {', '.join(DEVICES)}")
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            "device cuda: this ONNX Runtime has none; install onnxruntime-gpu or use --device cpu"
        )
    cpu = ["CPUExecutionProvider"]
    return ["CUDAExecutionProvider", *cpu] if has_cuda and device != "cpu" else cpu


def _check_graph(
    session: Any, place: Path, inputs: dict[str, Shape], outputs: dict[str, Shape]
) -> None:
    """Compare a graph's own inputs and outputs with the format's."""
    for what, nodes, wanted, dtype in (
        ("input", session.get_inputs(), inputs, "tensor(uint8)"),
        ("output", session.get_outputs(), outputs, "tensor(float)"),
    ):
        found = {node.name: node for node in nodes}
        if set(found) != set(wanted):
            raise BundleError(
                f"{place}: its {what}s are {', '.join(found)}; the format wants {', '.join(wanted)}"
            )
        for name, shape in wanted.items():
            node = found[name]
            if node.type != dtype or not _allows(list(node.shape), shape):
                raise BundleError(
                    f"{place}: {what} {name!r} is {node.type} {node.shape}; the format wants "
                    f"{dtype} {['any' if n is None else n for n in shape]}"
                )


def _allows(shape: list[Any], wanted: Shape) -> bool:
    """Whether a graph's shape (names or `None` for free sizes) can take the wanted one."""
    return len(shape) == len(wanted) and all(
        not isinstance(have, int) or want is None or have == want
        for have, want in zip(shape, wanted, strict=True)
    )
