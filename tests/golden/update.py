"""Write the golden records anew, or compare them with what the program gives now.

    python tests/golden/update.py                 write every record
    python tests/golden/update.py fix audit       write these
    python tests/golden/update.py --check [NAME]  change nothing; print what differs, exit with 1

What is under `old_versions` is what programs of the past wrote; it is never written anew.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected"


def main() -> int:
    """Do what the command line says; 0 if all is well, 1 if a record differs."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "src")]
    from golden.cases import CASES, Workshop
    from golden.compare import differences, to_text
    from golden.running import read_json

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--fast", action="store_true", help="leave the slow ones out")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}")
    chosen = options.names or [n for n, c in CASES.items() if not (options.fast and c.slow)]
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Workshop(Path(folder))
        for name in chosen:
            begin = time.perf_counter()
            now = json.loads(json.dumps(CASES[name].make(work)))
            file = EXPECTED / f"{name}.json"
            found = ["is not there yet"]
            if file.is_file():
                found = differences(read_json(file), now, CASES[name].tolerance)
            different += bool(found)
            if found and not options.check:
                EXPECTED.mkdir(exist_ok=True)
                file.write_text(to_text(now), encoding="utf-8", newline="\n")
            said = f"{len(found)} differences" if found else "the same"
            print(f"{name}: {said} ({time.perf_counter() - begin:.1f} s)")
            for line in found:
                print(f"  {line}")
    return 1 if different and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
