"""Bundles: what is whole loads, what is not is refused in one line that names the place."""

import json
import os
import shutil
import subprocess
import sys

import onnx
import pytest

from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.inference import bundle as bundle_module
from bloodfilm.inference.bundle import (
    choose_providers,
    default_bundle,
    load_bundle,
    shipped_bundles,
)
from bloodfilm.inference.checksums import SUMS, sums_of
from bloodfilm.inference.manifest import VERSION, read_manifest
from fake_bundle import reader, write_bundle


def refused(path, match, open_graphs=False):
    with pytest.raises(BundleError, match=match) as caught:
        loaded = load_bundle(path)
        if open_graphs:
            loaded.detector("cpu")
            loaded.classifier("cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_bundle_loads_and_its_graphs_open_once(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "b"))
    assert bundle.manifest.name == "fake"
    assert bundle.schema.width == 15
    assert bundle.detector("cpu") is bundle.detector("cpu")
    assert bundle.classifier("cpu").get_inputs()[0].name == "crops"
    assert bundle.identity()["sha256"] == bundle.sha256


def test_the_manifest_itself_may_be_named(tmp_path):
    folder = write_bundle(tmp_path / "b")
    assert load_bundle(folder / "manifest.json").path == folder


def test_a_shipped_bundle_goes_by_its_name_wherever_one_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_bundles()[0] == "default"
    for name in shipped_bundles():
        loaded = load_bundle(name)
        assert loaded.path.name == name and (loaded.path / "MODEL_CARD.md").is_file()
    assert load_bundle("default").sha256 == default_bundle().sha256


def test_what_learnt_from_lld_stays_apart_and_carries_its_licence():
    permissive, research = load_bundle("default"), load_bundle("leukaemia-research")

    def sets(bundle):
        training = bundle.manifest.training
        listed = [training[part].get("sources", {}) for part in ("detector", "classifier")]
        return {s["name"] for sides in listed for side in sides.values() for s in side}

    assert not any("LLD" in name or "lld" in name for name in sets(permissive))
    assert any("LLD" in name or "lld" in name for name in sets(research))
    assert research.manifest.licence == "CC BY-NC-SA 4.0" != permissive.manifest.licence
    card = (research.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "CC BY-NC-SA 4.0" in card
    assert card.index("On patients it has never seen") < card.index("## Intended use")
    names = research.manifest.trained_leaves
    assert {"lymphoblast", "monoblast", "abnormal promyelocyte", "smudge cell"} <= set(names)
    assert "promonocyte" not in names


def test_a_folder_is_taken_before_a_shipped_bundle_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "default")
    assert load_bundle("default").manifest.name == "fake"
    refused("./no-such", "default")  # what could be meant is listed
    monkeypatch.chdir("/")
    refused("somewhere/default", "no such bundle")


def test_what_is_no_bundle_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "no such bundle")
    refused(tmp_path, "not a bloodfilm bundle")
    (tmp_path / "manifest.json").write_text("{}")
    refused(tmp_path, "not a bloodfilm bundle")
    (tmp_path / "manifest.json").write_text("{")
    refused(tmp_path, "not JSON")


def test_another_version_is_refused_with_both_numbers(tmp_path):
    message = refused(
        write_bundle(tmp_path, lambda m: m.update(version=VERSION + 1)), f"version {VERSION + 1}"
    )
    assert f"reads versions 1 to {VERSION}" in message


def test_a_missing_and_a_damaged_graph_are_named(tmp_path):
    folder = write_bundle(tmp_path)
    data = bytearray((folder / "reader.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "reader.onnx").write_bytes(data)
    refused(folder, r"reader\.onnx: its checksum")
    (folder / "detector.onnx").unlink()
    refused(folder, r"detector\.onnx: missing")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(shoe=1), "shoe: this program does not know"),
        (lambda m: m["detector"].update(shoe=1), r"detector\.shoe: this program does not know"),
        (lambda m: m["reader"].update(shoe=1), r"reader\.shoe: this program does not know"),
        (lambda m: m["reader"].pop("size"), r"reader\.size: Field required"),
        (lambda m: m["detector"].update(um_per_px=-1), r"detector\.um_per_px"),
        (lambda m: m["detector"].update(file="../x.onnx"), r"detector\.file"),
        (lambda m: m["detector"].update(overlap=600), "two overlaps"),
        (lambda m: m["detector"]["thresholds"].pop("platelet"), "one score per object type"),
        (lambda m: m["leaves"].pop(), "leaves must be"),
        (lambda m: m["unlearnt"].update(classes=["no such"]), "'no such' is not in leaves"),
        (lambda m: m["unlearnt"].update(classes=m["leaves"]), "names every leaf"),
        (lambda m: m["unlearnt"].update(values={"colour": ["red"]}), "'colour' is not in schema"),
        (lambda m: m["unlearnt"].update(values={"cell_size": ["huge"]}), "'huge' is not in"),
        (
            lambda m: m["unlearnt"].update(values={"nucleolus": ["inconspicuous", "prominent"]}),
            "names every value of 'nucleolus'",
        ),
        (lambda m: m["leaves"].append("red cell"), "which the detector finds"),
        (lambda m: m["reader"]["temperatures"].update(hat=1.0), "'hat' is not in the schema"),
        (lambda m: m.update(taxonomy=[{"name": "a", "parent": "b"}]), "taxonomy"),
        (lambda m: m.update(kinds=["red cell"]), "'nucleated cell' is not in object_types"),
        (lambda m: m.update(kinds=["red cell"] * 2), "distinct names"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(tmp_path, change, says):
    refused(write_bundle(tmp_path, change), says)


def with_reader(folder, data):
    """Put another reader graph into a bundle, checksum and all."""
    import hashlib

    write_bundle(folder, lambda m: m["reader"].update(sha256=hashlib.sha256(data).hexdigest()))
    (folder / "reader.onnx").write_bytes(data)
    return folder


def test_a_graph_with_other_outputs_is_refused_when_opened(tmp_path):
    model = onnx.load_from_string(reader())
    model.graph.output[2].name = "strangeness"
    model.graph.node[-1].output[0] = "strangeness"
    refused(with_reader(tmp_path, model.SerializeToString()), "outputs are .*strangeness", True)


def test_a_graph_of_other_sizes_is_refused_when_opened(tmp_path):
    refused(with_reader(tmp_path, reader(size=96)), r"'crops' is .*96.*128", True)


def test_a_file_that_is_no_graph_is_refused_when_opened(tmp_path):
    refused(with_reader(tmp_path, b"no graph at all"), "not an ONNX graph", True)


def test_a_graph_that_cannot_run_is_refused_when_opened(tmp_path):
    model = onnx.load_from_string(reader())
    model.graph.node[0].op_type = "NoSuchOperator"
    refused(with_reader(tmp_path, model.SerializeToString()), "cannot load this graph", True)


def summed(folder, **changes):
    """A bundle of the newest version, with all checksums; `changes` are of its manifest."""
    load_bundle(write_bundle(folder, lambda m: m.update(changes))).manifest.write(folder)
    return folder


def test_a_bundle_of_the_newest_version_loads_by_its_checksums(tmp_path):
    bundle = load_bundle(summed(tmp_path))
    assert bundle.manifest.version == VERSION
    assert bundle.classifier("cpu").get_inputs()[0].name == "crops"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="this system has no sha256sum")
def test_the_checksums_are_in_the_form_of_sha256sum(tmp_path):
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=summed(tmp_path), check=False)
    assert done.returncode == 0


def test_a_changed_manifest_is_noticed(tmp_path):
    folder = summed(tmp_path)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("0.6", "0.1"))
    message = refused(folder, r"manifest\.json: its checksum is not the one in SHA256SUMS")
    assert "sha256sum" in message


def test_checksums_must_be_there_from_version_2_on_and_hold_where_they_are(tmp_path):
    folder = summed(tmp_path)
    sums = (folder / SUMS).read_text()
    lines = sums.splitlines(keepends=True)
    for text, match in [
        ("".join(lines[1:]), r"manifest\.json: its checksum is missing from SHA256SUMS"),
        ("".join(lines[:2]), r"reader\.onnx: its checksum is missing from SHA256SUMS"),
        (sums.replace(lines[2][:64], lines[1][:64]), r"reader\.onnx: its checksum is not"),
        ("hello\n", r"SHA256SUMS: line 1 is no checksum"),
        (lines[0] + sums, r"SHA256SUMS: line 2 is no checksum"),
    ]:
        (folder / SUMS).write_text(text)
        refused(folder, match)
    (folder / SUMS).unlink()
    refused(folder, "SHA256SUMS: missing; the bundle is incomplete")


def test_an_older_bundle_needs_no_checksums_but_is_held_to_those_it_has(tmp_path):
    folder = write_bundle(tmp_path)
    assert load_bundle(folder).manifest.version == 1
    (folder / SUMS).write_text(f"{'0' * 64}  manifest.json\n")
    refused(folder, r"manifest\.json: its checksum is not the one in SHA256SUMS")


def test_the_shipped_bundle_has_checksums():
    assert (default_bundle().path / SUMS).is_file()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["manifest.json", "reader.onnx", SUMS])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = summed(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, "not a regular file|holds no manifest")


def test_a_graph_of_many_gigabytes_is_not_read(tmp_path):
    folder = write_bundle(tmp_path)
    with (folder / "reader.onnx").open("wb") as file:
        file.truncate(200 << 30)
    refused(folder, r"reader\.onnx: 214\.7 GB, too large")


def test_a_manifest_nested_without_end_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    refused(tmp_path, "not JSON")


def test_devices(monkeypatch):
    import onnxruntime

    with pytest.raises(ConfigError, match="choose one of"):
        choose_providers("tpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert choose_providers("auto") == ["CPUExecutionProvider"]
    with pytest.raises(ConfigError, match="device cuda"):
        choose_providers("cuda")
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    assert choose_providers("auto") == both
    assert choose_providers("cpu") == ["CPUExecutionProvider"]


def test_an_installation_without_a_model_says_so(monkeypatch):
    monkeypatch.setattr(bundle_module, "DEFAULT_BUNDLE", "no such bundle")
    with pytest.raises(BundleError, match="--bundle"):
        default_bundle()


def test_loading_runs_no_code_of_the_bundle(tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "manifest.py").write_text("raise SystemExit('ran')")
    (folder / "__init__.py").write_text("raise SystemExit('ran')")
    before = set(sys.modules)
    load_bundle(folder)
    assert not any(
        str(folder) in str(getattr(sys.modules[m], "__file__", ""))
        for m in set(sys.modules) - before
    )


def test_the_identity_changes_with_anything_in_the_manifest(tmp_path):
    one = load_bundle(write_bundle(tmp_path / "one"))
    two = load_bundle(write_bundle(tmp_path / "two", lambda m: m["reader"].update(size=128)))
    other = load_bundle(
        write_bundle(tmp_path / "three", lambda m: m["detector"].update(nms_iou=0.4))
    )
    assert one.sha256 == two.sha256 != other.sha256
    json.dumps(one.identity())


# ---- versions of the manifest ----------------------------------------------------------------


def as_version(number, folder):
    """A bundle as that version of the program wrote it."""
    write_bundle(folder, lambda m: m.update(version=number), confirms=True)
    names = ("manifest.json", "detector.onnx", "reader.onnx")
    (folder / SUMS).write_text(sums_of(folder, names))
    return folder


@pytest.mark.parametrize("number", [1, 2])
def test_manifests_of_older_versions_read_as_the_newest(tmp_path, number):
    old = load_bundle(as_version(number, tmp_path / "old")).manifest
    assert old.object_types == ("nucleated cell", "red cell", "platelet")
    assert (old.roles.classified, old.roles.ruler) == ("nucleated cell", "red cell")
    assert old.untrained.classes == ("monoblast",) and "monoblast" not in old.trained_leaves
    assert old.classifier.verifies and old.classifier.file == "reader.onnx"
    assert old.detector.vote_thresholds == old.detector.thresholds
    written = read_manifest(json.dumps(old.to_json()).encode(), "m")
    assert written.model_copy(update={"version": number}) == old
    assert written.version == VERSION


def test_a_manifest_is_written_with_the_checksums_of_its_graphs(tmp_path):
    folder = summed(tmp_path)
    manifest = load_bundle(folder).manifest
    graph = reader(confirms=True)
    data = manifest.to_json()
    data["classifier"]["verifies"] = True
    changed = read_manifest(json.dumps(data).encode(), "m").with_figures(ap={"all": 0.5})
    changed.with_threshold("nucleated cell", 0.25).write(folder, {"reader.onnx": graph})
    again = load_bundle(folder)
    again.classifier("cpu")
    assert again.manifest.metrics == {"ap": {"all": 0.5}}
    assert again.manifest.detector.thresholds["nucleated cell"] == 0.25
    # What takes part in voting is not what is reported.
    assert again.manifest.detector.vote_thresholds["nucleated cell"] == 0.6


def test_figures_of_other_parts_and_graphs_are_kept(tmp_path):
    manifest = load_bundle(write_bundle(tmp_path)).manifest
    first = manifest.with_figures(validation={"detector": {"ap": 0.5}}, parity={"boxes": 0.1})
    again = first.with_figures(validation={"outlines": {"dice": 0.9}}, parity={"maps": 0.2})
    assert again.metrics["validation"] == {"detector": {"ap": 0.5}, "outlines": {"dice": 0.9}}
    assert again.metrics["parity"] == {"boxes": 0.1, "maps": 0.2}
    once_more = again.with_figures(validation={"outlines": {"iou": 0.8}})
    assert once_more.metrics["validation"]["outlines"] == {"iou": 0.8}


def test_a_manifest_that_does_not_hold_together_cannot_be_made(tmp_path):
    manifest = load_bundle(write_bundle(tmp_path)).manifest
    with pytest.raises(ValueError, match="one score per object type"):
        manifest.with_threshold("shoe", 0.5)
    with pytest.raises(ValueError, match="number from 0 to 1"):
        manifest.with_threshold("red cell", 1.5)


def test_the_roles_of_object_types_are_the_bundles_own(tmp_path):
    data = load_bundle(write_bundle(tmp_path)).manifest.to_json()
    names = {"nucleated cell": "leukocyte", "red cell": "disc"}

    def renamed(value):
        if isinstance(value, dict):
            return {names.get(k, k): renamed(v) for k, v in value.items()}
        if isinstance(value, list):
            return [renamed(v) for v in value]
        return names.get(value, value) if isinstance(value, str) else value

    data = renamed(data) | {"taxonomy": renamed(data["taxonomy"])}
    data["taxonomy"] = [
        {**node, "aliases": [a for a in node["aliases"] if a != "leukocyte"]}
        for node in data["taxonomy"]
    ]
    manifest = read_manifest(json.dumps(data).encode(), "m")
    assert (manifest.roles.classified, manifest.roles.ruler) == ("leukocyte", "disc")
    for roles, says in [
        ({"classified": "shoe"}, "roles: 'shoe' is not in object_types"),
        ({"classified": "leukocyte", "ruler": "leukocyte"}, "the ruler cannot be"),
        ({"classified": "disc"}, "leaves must be the taxonomy's leaves under 'disc'"),
    ]:
        with pytest.raises(BundleError, match=says):
            read_manifest(json.dumps(data | {"roles": roles}).encode(), "m")
