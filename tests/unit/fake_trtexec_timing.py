# ruff: noqa: T201 - a program speaks on standard output.
"""trtexec's command line for timing: strict about each version's options, times nothing, and obeys its defaults.

FAKE_TRTEXEC_VERSION says which version it is, FAKE_TRTEXEC_FAILS makes it fail, FAKE_TRTEXEC_CALLS names a file that
gets every command.
"""

import json
import os
import sys
from pathlib import Path

VERSION = os.environ["FAKE_TRTEXEC_VERSION"]
OPTIONS = json.loads((Path(__file__).parents[1] / "jetson" / "trtexec_options.json").read_text())[VERSION].split()
IS_NEW = int(VERSION.partition(".")[0]) >= 11


def main():
    given = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[1:])
    unknown = [name for name in given if name not in OPTIONS]
    if unknown or len(given) != len(sys.argv) - 1:
        print(f"[E] Unknown option: --{unknown}")
        return 1
    with Path(os.environ["FAKE_TRTEXEC_CALLS"]).open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    if "FAKE_TRTEXEC_FAILS" in os.environ:
        print("[E] Error[1]: [runtime.cpp] Serialization (magic tag does not match)")
        return 1
    for pair in given["loadInputs"].split(","):
        Path(pair.rpartition(":")[2]).read_bytes()
    copies = "noDataTransfers" not in given and (not IS_NEW or "includeDataTransfers" in given)
    graph = "useCudaGraph" in given or (IS_NEW and "noCudaGraph" not in given)
    compute, copy = (1.0 if graph else 2.0), (0.25 if copies else 0.0)
    entries = []
    for number in range(int(given["iterations"]) * int(given["streams"])):
        start = 10.0 * number
        entries.append(
            {
                "startEnqMs": start,
                "endEnqMs": start + 0.125,
                "startH2dMs": start,
                "endH2dMs": start + copy,
                "startComputeMs": start + copy,
                "endComputeMs": start + copy + compute,
                "startD2hMs": start + copy + compute,
                "endD2hMs": start + 2 * copy + compute,
                "h2dMs": copy,
                "computeMs": compute,
                "d2hMs": copy,
                "latencyMs": 2 * copy + compute,
            }
        )
    Path(given["exportTimes"]).write_text(json.dumps(entries))
    return 0


sys.exit(main())
