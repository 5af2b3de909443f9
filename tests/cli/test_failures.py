"""What a person sees when a command fails: one line, an exit code, no traceback."""

import errno
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from bloodfilm.cli.failures import ErrorHandlingGroup, explain
from bloodfilm.cli.main import Terminated
from bloodfilm.core.errors import BundleError, DataError, OutputError


def run(error: BaseException) -> Result:
    """Run a command that raises `error`, inside the group that the real one uses."""
    app = typer.Typer(cls=ErrorHandlingGroup, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command()
    def work() -> None:
        raise error

    @app.callback()
    def root() -> None:
        pass

    return CliRunner().invoke(app, ["work"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("a.png: not an image"), "error: a.png: not an image"),
        (BundleError("two\n  lines"), "error: two lines"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/report.html"),
            "error: out/report.html: no space left on the disk",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: x: permission denied"),
        (PermissionError(errno.EPERM, "no"), "error: operation not permitted"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            "error: torch is not installed; run: pip install 'bloodfilm[train]'",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(error: Exception, line: str) -> None:
    result = run(error)
    assert result.stderr == line + "\n"
    assert result.stdout == ""
    assert result.exit_code == 2


def test_the_debug_switch_shows_the_traceback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODFILM_DEBUG", "1")
    result = run(DataError("a.png: not an image"))
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("\nerror: a.png: not an image\n")
    assert result.exit_code == 2


def test_ctrl_c_is_one_line_and_exit_code_130() -> None:
    result = run(KeyboardInterrupt())
    assert result.stderr == "stopped\n"
    assert result.exit_code == 130


def test_a_reader_that_went_away_is_no_news() -> None:
    result = run(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert result.output == ""
    assert result.exit_code == 141


@pytest.mark.parametrize(
    "bug",
    [ValueError("bug\nof two lines"), ModuleNotFoundError("No module named 'tpyo'", name="tpyo")],
    ids=lambda bug: type(bug).__name__,
)
def test_a_bug_is_one_line_and_an_exit_code_of_its_own(
    bug: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explain(bug) is None
    result = run(bug)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"internal error: {type(bug).__name__}: ")
    assert result.exit_code == 70
    monkeypatch.setenv("BLOODFILM_DEBUG", "1")
    assert "Traceback" in run(bug).stderr


OS_ERRORS = sorted(set(errno.errorcode) - {errno.EPIPE, errno.ESHUTDOWN, errno.EINTR})


@pytest.mark.parametrize("number", OS_ERRORS, ids=lambda n: errno.errorcode[n])
def test_every_refusal_of_the_system_is_one_line_that_names_the_file(number: int) -> None:
    result = run(OSError(number, os.strerror(number), "out/x"))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "out/x" in line or number == errno.ENOMEM


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_called_so(error: Exception) -> None:
    result = run(error)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: not enough memory")


def test_remedies_are_worded_as_options() -> None:
    error = OutputError("out: holds a run", ["resume", "overwrite"])
    said = "error: out: holds a run; go on with --resume or start anew with --overwrite\n"
    assert run(error).stderr == said


def test_a_termination_is_one_line_and_exit_code_143() -> None:
    result = run(Terminated())
    assert result.stderr.startswith("stopped: ")
    assert result.exit_code == 143


def bloodfilm(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bloodfilm", *arguments]


def test_the_version_is_the_package_version() -> None:
    import bloodfilm as package

    done = subprocess.run(bloodfilm("--version"), capture_output=True, text=True, check=True)
    assert done.stdout == f"bloodfilm {package.__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    done = subprocess.run(bloodfilm("nonsense"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_closed_pipe_leaves_no_message(option: str) -> None:
    with subprocess.Popen(
        bloodfilm(option), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_command_cut_off_by_its_reader_ends_as_by_sigpipe() -> None:
    code = """
import sys
from bloodfilm.cli import app
app.app.command("chatter")(lambda: print("x" * 1_000_000))
sys.argv = ["bloodfilm", "chatter"]
app.main()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"x"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
