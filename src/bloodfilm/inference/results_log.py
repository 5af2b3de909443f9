"""Append-only log of results, so that an interrupted run loses nothing and can be resumed.

One line per record. Every line is a JSON object with the record (`entry`) and a checksum of its
text (`check`); a record carries its number, so changed, duplicated, missing or moved lines are
detected. The first record describes the run. The others are, by the number of the
file in the run: the SHA-256 of files that affect others (`inputs`), results (`field`) and files
without one (`failure`); and, by name, what samples of files tell of others (`sample`). A line
counts once its newline is written.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import DataError, OutputError
from bloodfilm.core.files import open_new, regular_file
from bloodfilm.core.json_text import loads
from bloodfilm.core.results import (
    FieldFailure,
    FieldOutcome,
    FieldResult,
    ParsedFields,
    StoredFields,
    json_line,
)

LOG_VERSION = 3
_START, _MIDDLE, _END = b'{"check": "', b'", "entry": ', b"}\n"
_FIELD = b'"field": '
_DIGITS = 16


class ResultsLog:
    """The results of a run in an append-only file.

    Attributes:
        path: the file.
        run: description of the run: the given record, or that of the resumed log.
        failures: files without a result, by number.
        inputs: SHA-256 of files, by number, as they were when they were used.
        samples: what samples of files tell of others, by name.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], resume: bool = False) -> None:
        """Start a new log, or with `resume` continue an existing one, if any.

        Args:
            path: the file.
            run: plain data that describes the inputs and settings.
            resume: whether to continue an existing log. The caller checks by `run` whether it
                is of the same run.

        Raises:
            OutputError: if the log is of another version.
            DataError: if a line of it is damaged.
        """
        self.path = path
        self.run = dict(run)
        self.failures: dict[int, FieldFailure] = {}
        self.inputs: dict[int, str] = {}
        self.samples: dict[str, Mapping[str, Any]] = {}
        self._offsets: dict[int, int] = {}
        self._parsed = ParsedFields()
        self._lines = 0
        if resume and os.path.lexists(path):
            regular_file(path)
            self._end = self._read()
            self._file: FileIO = path.open("r+b", buffering=0)
            self._file.truncate(self._end)
            self._file.seek(self._end)
        else:
            self._file = open_new(path)
            self._end = 0
            self._write({"log": LOG_VERSION, "run": self.run})

    @property
    def done(self) -> int:
        """How many files have an outcome."""
        return len(self._offsets) + len(self.failures)

    def append(self, number: int, outcome: FieldOutcome) -> None:
        """Add the outcome of a file; it is written to the operating system on return."""
        start = self._end
        if isinstance(outcome, FieldFailure):
            self._write({"file": number, "failure": outcome.to_json()})
            self.failures[number] = outcome
        else:
            record = outcome.to_json()
            line = self._write({"file": number, "field": record})
            self._parse(start, record, len(line))
            self._offsets[number] = start
            self.inputs[number] = outcome.image.sha256
            self.failures.pop(number, None)

    def _parse(self, start: int, record: Mapping[str, Any], size: int) -> None:
        """Keep a result as it is written, rounded, if there is room: it need not be read again."""
        if self._parsed.has_room(size):
            with suppress(DataError):  # reading it from the file names the place
                self._parsed.keep(start, FieldResult.from_json(record), size)

    def add_inputs(self, inputs: Mapping[int, str]) -> None:
        """Add the SHA-256 of files that affect the results of others, by number."""
        self._write({"inputs": {str(number): digest for number, digest in inputs.items()}})
        self.inputs |= inputs

    def add_sample(self, name: str, told: Mapping[str, Any]) -> None:
        """Add what a sample of files tells of others."""
        self._write({"sample": name, "told": told})
        self.samples[name] = told

    def has(self, number: int) -> bool:
        """Return whether a file has a result."""
        return number in self._offsets

    def field(self, number: int) -> FieldResult:
        """Return a file's result, read from the log."""
        return self._stored([self._offsets[number]])[0]

    @property
    def fields(self) -> Sequence[FieldResult]:
        """The results so far, in the order of the files, read lazily."""
        return self._stored(offset for _, offset in sorted(self._offsets.items()))

    def _stored(self, offsets: Iterable[int]) -> StoredFields:
        return StoredFields(self.path, tuple(offsets), _field_text, self._parsed)

    def close(self) -> None:
        """Flush everything to disk and close the file."""
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

    def _write(self, record: Mapping[str, Any]) -> bytes:
        """Append a record; returns its line."""
        self._lines += 1
        entry = json_line({"line": self._lines, **record}).encode()
        line = _START + _check(entry) + _MIDDLE + entry + _END
        try:
            # Unbuffered, so that nothing is left to write on closing after a failure.
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _trouble(self.path, error) from None
        self._end += len(line)
        return line

    # ---- resuming ----------------------------------------------------------------------------

    def _read(self) -> int:
        """Read the existing log; return the end of its last complete line."""
        end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._lines += 1
                if self._lines == 1:
                    self._take_head(line)
                else:
                    self._take(self._entry(line), end)
                end += len(line)
        if end == 0:
            raise OutputError(f"{self.path}: holds nothing to resume", ["overwrite"])
        return end

    def _take_head(self, line: bytes) -> None:
        try:
            data = loads(line)
        except (ValueError, RecursionError):
            data = None
        old = data.get("journal") if isinstance(data, dict) else None
        if old is not None:
            raise OutputError(
                f"{self.path}: log version {old!r}, this program resumes version {LOG_VERSION}; "
                "finish the run with the program that started it",
                ["overwrite"],
            )
        entry = self._entry(line)
        version = entry.get("log")
        if version != LOG_VERSION or not isinstance(entry.get("run"), dict):
            raise OutputError(
                f"{self.path}: log version {version!r}, this program resumes version {LOG_VERSION}",
                ["overwrite"],
            )
        self.run = entry["run"]

    def _entry(self, line: bytes) -> dict[str, Any]:
        """Return the record of a line whose checksum and number are right."""
        middle = len(_START) + _DIGITS
        entry = line[middle + len(_MIDDLE) : -len(_END)]
        form = line.startswith(_START) and line[middle:].startswith(_MIDDLE) and line.endswith(_END)
        if not form or line[len(_START) : middle] != _check(entry):
            raise self._damaged("is damaged")
        try:
            data = loads(entry)
            number = data["line"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._damaged("is damaged") from None
        if number != self._lines:
            raise self._damaged(f"was line {number}: lines were doubled, lost or moved")
        return dict(data)

    def _take(self, entry: dict[str, Any], offset: int) -> None:
        try:
            if "inputs" in entry:
                self.inputs |= {int(n): str(digest) for n, digest in entry["inputs"].items()}
                return
            if "sample" in entry:
                self.samples[str(entry["sample"])] = dict(entry["told"])
                return
            number = int(entry["file"])
            if "failure" in entry:
                self.failures[number] = FieldFailure.from_json(entry["failure"])
            else:
                self.inputs[number] = str(entry["field"]["sha256"])
                self._offsets[number] = offset
                self.failures.pop(number, None)
        except (KeyError, TypeError, ValueError, AttributeError, DataError):
            raise self._damaged("is no record of a file or of a sample") from None

    def _damaged(self, what: str) -> OutputError:
        return OutputError(f"{self.path}: line {self._lines} {what}", ["overwrite"])


def _check(entry: bytes) -> bytes:
    return sha256(entry).hexdigest()[:_DIGITS].encode()


def _field_text(line: bytes) -> bytes:
    """Return the JSON text of a field's record from its line."""
    # Before the record there are numbers only, so its key cannot stand elsewhere first.
    start = line.find(_FIELD)
    return line[start + len(_FIELD) : -len(_END) - 1] if start >= 0 else b""


def _trouble(path: Path, error: OSError) -> OutputError:
    why = (error.strerror or "writing failed").lower()
    return OutputError(f"{path}: {why}; what is done is kept; correct that", ["resume"])
