"""Seconds that starting bloodfilm takes, beside a bare interpreter: `python benchmarks/startup.py`.

Each command runs in a new interpreter; the rounds are interleaved and the median is printed.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 11
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import bloodfilm": ["-c", "import bloodfilm"],
    "bloodfilm --help": ["-m", "bloodfilm", "--help"],
    "import numpy": ["-c", "import numpy"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    for arguments in COMMANDS.values():
        seconds(arguments)  # write the byte code, fill the disk cache
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    print(f"{'command':<20}{'median s':>10}{'worst s':>10}")
    for name, values in taken.items():
        print(f"{name:<20}{statistics.median(values):>10.3f}{max(values):>10.3f}")


if __name__ == "__main__":
    main()
