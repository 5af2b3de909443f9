"""Results kept on disk as they come, so that a run that stops loses nothing and can go on.

One JSON line a file, in the order of the files: first a line that says what the run is, then
`{"field": ...}` or `{"failure": ...}`. A line counts once its newline is written.
"""

import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import open_new
from bloodfilm.core.results import (
    FieldFailure,
    FieldOutcome,
    FieldResult,
    StoredFields,
    json_line,
)

JOURNAL_VERSION = 2


class ResultsLog:
    """The results of a run in a file that only ever grows.

    Attributes:
        path: the file.
        failures: so far, in order.
        done: how many files have an outcome.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], resume: bool = False) -> None:
        """Start a new journal, or with `resume` go on with the one that is there, if any.

        `run` is plain data that says what is analysed with what; a journal of another run is
        refused with `ConfigError`.
        """
        self.path = path
        self.failures: list[FieldFailure] = []
        self.done = 0
        self._offsets: list[int] = []
        head = {"journal": JOURNAL_VERSION, **run}
        if resume and path.exists():
            self._end = self._take_up(head)
            self._file: FileIO = path.open("r+b", buffering=0)
            self._file.truncate(self._end)
            self._file.seek(self._end)
        else:
            self._file = open_new(path)
            self._end = 0
            self._write(head)

    def append(self, outcome: FieldOutcome) -> None:
        """Add what came of the next file; it is with the operating system when this returns."""
        start = self._end
        if isinstance(outcome, FieldFailure):
            self._write({"failure": outcome.to_json()})
            self.failures.append(outcome)
        else:
            self._write({"field": outcome.to_json()})
            self._offsets.append(start)
        self.done += 1

    @property
    def fields(self) -> Sequence[FieldResult]:
        """The results so far, read from the file as they are asked for."""
        return StoredFields(self.path, tuple(self._offsets), lambda line: line["field"])

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        if not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise _trouble(self.path, error) from None
            finally:
                self._file.close()

    def __enter__(self) -> "ResultsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: Mapping[str, Any]) -> None:
        line = json_line(data).encode() + b"\n"
        try:
            # Unbuffered, so that closing after a failure has nothing left to write.
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _trouble(self.path, error) from None
        self._end += len(line)

    def _take_up(self, head: Mapping[str, Any]) -> int:
        """Read what is there; returns where its last whole line ends."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                try:
                    data = json.loads(line)
                except ValueError:
                    raise DataError(
                        f"{self.path}: line {number + 1} is damaged; start anew with --overwrite"
                    ) from None
                if number == 0:
                    _same_run(self.path, data, json.loads(json_line(head)))
                elif "failure" in data:
                    self.failures.append(FieldFailure.from_json(data["failure"]))
                    self.done += 1
                else:
                    self._offsets.append(end)
                    self.done += 1
                end += len(line)
        if end == 0:
            raise DataError(f"{self.path}: holds nothing to go on from; start with --overwrite")
        return end


def _same_run(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise DataError(f"{path}: not the log of an analysis; start with --overwrite")
    if found.get("journal") != JOURNAL_VERSION:
        raise ConfigError(
            f"{path}: log version {found.get('journal')!r}, this program resumes version "
            f"{JOURNAL_VERSION}; finish the run with the program that started it, or start anew "
            "with --overwrite"
        )
    unlike = [k for k in wanted if _identity(found.get(k)) != _identity(wanted[k])]
    if unlike:
        raise ConfigError(
            f"{path}: the run to go on with differs in {', '.join(unlike)}; give the same files "
            "and options as before, or start anew with --overwrite"
        )


def _identity(value: Any) -> Any:
    """Return what tells a setting from another: of a bundle its SHA-256, which covers the rest."""
    return value["sha256"] if isinstance(value, dict) and "sha256" in value else value


def _trouble(path: Path, error: OSError) -> DataError:
    why = error.strerror or "writing failed"
    return DataError(f"{path}: {why}; mend that and go on with --resume, what is done is kept")
