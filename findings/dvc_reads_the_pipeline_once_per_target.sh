#!/usr/bin/env bash
# dvc 3.67.1: each target that is named reads and parses all of dvc.yaml anew.
#
# `dvc status` without targets opens dvc.yaml once. With the names of all N stages of the same file (a matrix of 40 here) it
# opens it N times more: naming what one wants to know takes quadratic time, and is slower than asking about everything
# and throwing the rest away. The targets of `dvc repro` are collected by the same code. Whoever asks about the stages of
# a grid of runs by name meets it (15 names took 1.26 s, everything 0.19 s).
#
# Seen:  dvc.yaml was opened 1 time(s) for all of 40 stages, 40 times for the same 40 by name
# Ends with 0 while dvc does this, with 1 when it does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check dvc==3.67.1
mkdir "$folder/project"
cd "$folder/project"
cat > dvc.yaml <<'END'
stages:
  made:
    matrix: {n: [NUMBERS]}
    cmd: echo ${item.n} > out${item.n}
    outs: ["out${item.n}"]
END
sed -i "s/NUMBERS/$(seq -s, 40)/" dvc.yaml
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=true
dvc init -q --no-scm
dvc repro -q > /dev/null
python - <<'END'
import sys

opened = 0


def count(event: str, arguments: tuple) -> None:
    global opened
    opened += event == "open" and str(arguments[0]).endswith("dvc.yaml")


sys.addaudithook(count)
from dvc.repo import Repo  # noqa: E402

seen = []
for targets in (None, [f"made@{n}" for n in range(1, 41)]):
    with Repo() as repo:
        before = opened
        assert repo.status(targets=targets) == {}
        seen.append(opened - before)
print(f"dvc.yaml was opened {seen[0]} time(s) for all of 40 stages, {seen[1]} times for the same 40 by name")
sys.exit(0 if seen[0] <= 2 and seen[1] >= 40 else 1)
END
