"""Nothing is reported to anybody, and nothing is written but what was asked for.

Every command runs as a user would run it: a process of its own, with an empty home, in an empty
folder, with none of the variables that hold libraries back. What is seen: the files afterwards,
Python's own audit events of sockets, and where `strace` is installed the system calls, also those
of compiled libraries. Where it is possible the process has no network at all, and must do without.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import bloodfilm
from bloodfilm._telemetry import VARIABLES
from bloodfilm.cli.app import app
from fake_bundle import draw, lay_out, save, write_bundle

KEPT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")
SPY = """
import os, sys
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        if not isinstance(address, (str, bytes)) or event.startswith("socket.get"):  # not AF_UNIX
            with open(os.environ["SPY_LOG"], "a") as file:
                file.write(f"{event} {address!r}\\n")
sys.addaudithook(hook)
"""
CALLS = "connect,sendto,sendmsg,sendmmsg,openat,mkdir,mkdirat"
STRACE = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o"]
NO_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]
NETWORK_CALL = re.compile(r"sa_family=AF_INET|\bsin6?_addr|/etc/resolv\.conf")
WRITTEN = re.compile(
    r'(?:openat\([^"]*"(/[^"]*)", [^)]*O_(?:WRONLY|RDWR|CREAT)'
    r'|mkdir(?:at)?\([^"]*"(/[^"]*)").* = (?!-1)'
)
SYSTEM = ("/dev/", "/proc/", "/sys/")
# PyTorch makes it in the temporary folder when torchvision is imported, and leaves it empty.
OF_TORCH = re.compile(r"/temporary/torchinductor_[^/\"]*$")
NEEDS_NETWORK = {"data fetch": "fetches the data set that the user names, when told to"}


def works(command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@dataclass(frozen=True)
class Seen:
    """What a process did: its exit code, what it said, whom it tried to reach, what it wrote."""

    code: int
    output: str
    network: list[str]
    strays: list[str]


@dataclass(frozen=True)
class World:
    """A place with inputs, an empty home, an empty working folder and one for outputs."""

    root: Path
    isolated: bool
    traced: bool

    def path(self, name):
        return self.root / name

    def run(self, *command):
        """Run a Python command line and look what it did."""
        empty = [self.path(name) for name in ("home", "work", "temporary")]
        for folder in empty:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        spied, traced = self.path("spied.log"), self.path("trace.log")
        for log in (spied, traced):
            log.unlink(missing_ok=True)
        prefix = NO_NETWORK if self.isolated else []
        prefix = [*prefix, *STRACE, str(traced)] if self.traced else prefix
        before = self.inputs()
        done = subprocess.run(
            [*prefix, sys.executable, *map(str, command)],
            cwd=self.path("work"),
            env=self.environment(spied),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        network = spied.read_text().splitlines() if spied.exists() else []
        strays = [str(path) for folder in empty for path in folder.rglob("*")]
        strays = [path for path in strays if not OF_TORCH.search(Path(path).as_posix())]
        strays += [str(path) for path in before.items() ^ self.inputs().items()]
        for line in traced.read_text(errors="replace").splitlines() if self.traced else ():
            if NETWORK_CALL.search(line):
                network.append(line)
            if (found := WRITTEN.search(line)) and self.elsewhere(found[1] or found[2]):
                strays.append(line)
        return Seen(done.returncode, done.stdout + done.stderr, network, strays)

    def environment(self, log):
        source = str(Path(bloodfilm.__file__).parents[1])
        return {
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            "HOME": str(self.path("home")),
            "USERPROFILE": str(self.path("home")),
            "TMPDIR": str(self.path("temporary")),
            "PYTHONPATH": os.pathsep.join([str(self.path("spy")), source]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "SPY_LOG": str(log),
        }

    def inputs(self):
        """When the inputs were last written."""
        files = (path for name in ("fields", "discs", "bed") for path in self.path(name).rglob("*"))
        return {path: path.stat().st_mtime_ns for path in files}

    def elsewhere(self, path):
        """Whether an absolute path lies outside of the outputs and of the system's own files."""
        allowed = (*SYSTEM, *(f"{self.path(name)}{os.sep}" for name in ("out", "temporary")))
        logs = {str(self.path("spied.log")), str(self.path("out"))}
        return not path.startswith(allowed) and path not in logs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world").resolve()
    (root / "spy").mkdir()
    (root / "spy" / "sitecustomize.py").write_text(SPY)
    (root / "out").mkdir()
    for i in range(2):
        discs = lay_out(120.0, 80.0, [(40.0 + 8 * i, 40.0, "lymphocyte")])
        save(root / "fields" / f"{i}.png", draw(discs, (480, 320)))
    write_bundle(root / "bundle")
    isolated = works([*NO_NETWORK, "true"])
    prefix = NO_NETWORK if isolated else []
    return World(root, isolated, works([*prefix, *STRACE, os.devnull, "true"]))


def held(seen, codes=(0,)):
    assert seen.code in codes, seen.output[-2000:]
    assert "Traceback" not in seen.output
    assert seen.network == []
    assert seen.strays == []


LIBRARY = """
import multiprocessing, sys
WORK = '''
from bloodfilm import load_model
found = load_model(sys.argv[1], device="cpu").analyze(sys.argv[2])
assert len(found.cells) > 5
'''
if __name__ == "__main__":
    import bloodfilm
    for method in {"spawn", "forkserver"} & set(multiprocessing.get_all_start_methods()):
        worker = multiprocessing.get_context(method).Process(
            target=exec, args=("import sys\\nsys.argv = " + repr(sys.argv) + WORK,)
        )
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    exec(WORK)
"""


@pytest.mark.slow
def test_the_library_and_its_workers_keep_to_themselves(world):
    held(world.run("-c", LIBRARY, world.path("bundle"), world.path("fields") / "0.png"))


def test_analyze_keeps_to_itself(world):
    command = ["analyze", world.path("fields"), "--bundle", world.path("bundle")]
    held(world.run("-m", "bloodfilm", *command, "--out", world.path("out") / "analyze"))
    assert (world.path("out") / "analyze" / "report.html").is_file()


def test_it_was_seen_without_a_network_and_down_to_the_system_calls(world):
    if not world.isolated:
        pytest.skip("this system makes no network namespaces: the processes had a network")
    if not world.traced:
        pytest.skip("strace is not installed: only what Python itself did was seen")


def test_a_look_up_and_a_stray_file_would_be_noticed(world):
    seen = world.run(
        "-c",
        "import pathlib, socket\n"
        "pathlib.Path.home().joinpath('id').write_text('x')\n"
        "pathlib.Path('note').write_text('x')\n"
        f"pathlib.Path({str(world.path('elsewhere'))!r}).write_text('x')\n"
        "try:\n    socket.getaddrinfo('events.invalid', 443)\nexcept OSError:\n    pass",
    )
    assert seen.code == 0
    assert "socket.getaddrinfo 'events.invalid'" in seen.network
    written = " ".join(seen.strays)
    assert str(world.path("home") / "id") in written
    assert str(world.path("work") / "note") in written
    if world.traced:
        assert str(world.path("elsewhere")) in written
        assert any("resolv.conf" in line for line in seen.network)


def test_the_variables_hold_whatever_was_set_before():
    code = "import os, sys, bloodfilm\nprint(*(os.environ[n] for n in sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *VARIABLES],
        env={**os.environ, **dict.fromkeys(VARIABLES, "0")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1"] * len(VARIABLES)


def commands(root):
    """Every command but the first: name, arguments, exit codes that are no failure."""
    out, discs, bundle = root / "out", root / "discs", root / "bundle"
    by = ("--bundle", bundle)
    runs = (out / "detector", out / "classifier")
    return {
        "analyze": (("analyze", root / "fields", *by, "--out", out / "again"), (0,)),
        "compare": (("compare", out / "again", out / "again", "--json", out / "c.json"), (0, 2)),
        "report": (("report", out / "again", "--explain", 1, *by), (0,)),
        "demo": (("demo", "--out", out / "demo"), (0,)),
        "evaluate": (("evaluate", discs, *by, "--bootstrap", 20, "--json", out / "e.json"), (0,)),
        "annotate plan": (("annotate", "plan", root / "fields", *by, "--out", out / "plan"), (0,)),
        "annotate complete": (
            ("annotate", "complete", discs, *by, "--every", 4, "--out", out / "completed"),
            (0, 2),
        ),
        "annotate names": (
            ("annotate", "names", discs, *by, "--out", out / "named"),
            (0, 2),
        ),
        "annotate scale": (("annotate", "scale", discs, *by, "--out", out / "scaled"), (0,)),
        "annotate cost": (("annotate", "cost", discs), (0,)),
        "films": (("films", out / "films", "--fields", 1), (0,)),
        "data info": (("data", "info", discs), (0,)),
        "data convert": (
            ("data", "convert", discs, out / "coco", "--to", "coco", "--copy-images"),
            (0,),
        ),
        "data audit": (
            (
                "data",
                "audit",
                root / "bed",
                *by,
                "--html",
                out / "a.html",
                "--json",
                out / "a.json",
            ),
            (0, 1),
        ),
        "data fix": (("data", "fix", root / "bed", "--out", out / "fixed"), (0,)),
        "data split": (("data", "split", root / "bed", "--out", out / "split.json"), (0,)),
        "data stats": (("data", "stats", root / "bed", "--html", out / "stats.html"), (0,)),
        "data overlaps": (("data", "overlaps", root / "bed", "--json", out / "o.json"), (0,)),
        "data transfer": (
            ("data", "transfer", discs, discs / "t0.png", "--out", out / "carried"),
            (0,),
        ),
        "train": (
            ("train", root / "detector.toml", "--data", root, "--out", runs[0], "--device", "cpu"),
            (0,),
        ),
        "adapt": (
            ("adapt", "default", "--target", root / "fields", "--out", out / "adapted"),
            (0, 2),  # there may be too few cells
        ),
        "learn": (
            (
                "learn",
                "default",
                discs,
                "--new",
                "hairy cell=lymphocyte lineage",
                "--out",
                out / "l",
            ),
            (2,),  # none of these cells is of the class
        ),
        "exemplars": (
            ("exemplars", "default", "--data", root, "--out", out / "described"),
            (2,),  # the data it was trained on are not there
        ),
        "attributes": (
            ("attributes", "default", "--data", root, "--out", out / "measured"),
            (2,),  # the data it was trained on are not there
        ),
        "export": (("export", *runs, "--data", root, "--out", out / "made", "--int8"), (0, 2)),
    }


def names(group, above=""):
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from names(command, f"{above}{name} ")
        else:
            yield f"{above}{name}"


def test_every_command_is_tried_or_is_for_the_network():
    every = set(names(typer.main.get_command(app)))
    assert every == set(commands(Path())) | set(NEEDS_NETWORK)


@pytest.fixture(scope="module")
def stocked(world):
    """The world with data sets and with configurations to train on."""
    from tiny import config, to_toml, write_set

    write_set(world.root / "discs", 3, 3)
    for task, epochs in (("detector", 1), ("classifier", 1)):
        data = config(task, optim={"epochs": epochs})
        (world.root / f"{task}.toml").write_text(to_toml(data))
    bed = ["films", world.root / "bed", "--lld", "H_40X_C2", "--fields", 1, "--patients", 6]
    done = subprocess.run(
        [sys.executable, "-m", "bloodfilm", *map(str, bed), "--side", "320"],
        env=world.environment(os.devnull),
        check=False,
    )
    assert done.returncode == 0
    return world


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(commands(Path())) - {"export"}))
def test_every_command_keeps_to_itself(stocked, name):
    arguments, codes = commands(stocked.root)[name]
    held(stocked.run("-m", "bloodfilm", *arguments), codes)


@pytest.mark.slow
def test_export_keeps_to_itself(stocked):
    for task in ("detector", "classifier"):
        run = ["train", stocked.path(f"{task}.toml"), "--data", stocked.root, "--restart"]
        held(stocked.run("-m", "bloodfilm", *run, "--out", stocked.path("out") / task))
    arguments, codes = commands(stocked.root)["export"]
    held(stocked.run("-m", "bloodfilm", *arguments), codes)
    assert (stocked.path("out") / "made" / "manifest.json").is_file()
