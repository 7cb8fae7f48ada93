#!/usr/bin/env bash
# dvc 3.67.1: `dvc exp run -S` and YAML anchors in params.yaml.
#
# Two entries share a mapping: `b: *shared`. Expected of `-S b.KEY=VALUE`: b has the value, a does not, or an error.
# Seen, exit code 0 each time:
#   -S +b.new=3      the key is lost: neither a nor b has it
#   -S b.old=2       a has it as well: dvc writes through the alias
# With a merge key (`c: {<<: *shared, y: 1}`) in the file too, a new key in the mapping that is merged is a KeyError.
# So params.yaml of this project has no anchor; systems share their settings by `like:`.
#
# Ends with 0 while dvc does this, with 1 when it does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check dvc==3.67.1
export PATH="$folder/venv/bin:$PATH"
mkdir "$folder/project"
cd "$folder/project"
git init -q
git config user.email someone@example.org
git config user.name Someone
dvc init -q
cat >params.yaml <<'END'
a: &shared {old: 1}
b: *shared
END
cat >dvc.yaml <<'END'
stages:
  copy:
    cmd: cp params.yaml seen.yaml
    params: [a, b]
    outs: [seen.yaml]
END
git add --all
git commit -q -m start

value() { "$folder/venv/bin/python" - "$1" <<'END'
import sys
from ruamel.yaml import YAML
content = YAML(typ="safe").load(open("params.yaml"))
print(content["a"].get(sys.argv[1]), content["b"].get(sys.argv[1]))
END
}
changed=0
compare() { # KEY EXPECTED-WHILE-NOTHING-HAS-CHANGED
    seen=$(value "$1")
    echo "a and b have $1: $seen"
    [ "$seen" = "$2" ] || changed=1
}
dvc exp run -q -S +b.new=3
compare new "None None"
git checkout -q params.yaml
dvc exp run -q -S b.old=2
compare old "2 2"
exit $changed
