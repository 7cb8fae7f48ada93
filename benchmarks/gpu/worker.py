"""Runs sections one after the other and prints a line of JSON for each; started by `benchmarks.gpu` as a script.

The one argument is JSON: `checkout` (the project that is measured: this one or an older), `sizes`, `settings`,
`corpus`, `sections` (names with their options).
"""

import importlib
import json
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
plan = json.loads(sys.argv[1])
sys.path[0] = plan["checkout"]
for package in ("textvae", "components"):
    importlib.import_module(package)  # the checkout's
sys.path[0] = str(ROOT)  # `benchmarks` is this one's
from benchmarks.gpu import checks, measures  # noqa: E402
from benchmarks.gpu.workload import CUDA, Workload  # noqa: E402


def main() -> None:
    """All sections of the plan. After an error on a GPU no more of them: what it leaves there may spoil the next."""
    work = Workload(plan["sizes"], plan["settings"], plan["corpus"])
    for name, options in plan["sections"]:
        started = time.perf_counter()
        try:
            section = getattr(checks, name, None) or getattr(measures, name)
            result = section(work, **({"plan": plan} if name == "in_processes" else options))
        except Exception:
            said = {"ends": name, "error": traceback.format_exc()[-3000:], "goes_on": not CUDA}
            print(json.dumps(said), flush=True)
            if CUDA:
                raise
        else:
            seconds = time.perf_counter() - started
            print(json.dumps({"ends": name, "seconds": round(seconds, 2), "result": result}), flush=True)


if __name__ == "__main__":
    main()
