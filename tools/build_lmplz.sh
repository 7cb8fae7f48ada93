#!/usr/bin/env bash
# Builds KenLM's lmplz (trains n-gram models) and query (scores text) into a folder, from the source package of the
# kenlm version that constraints.txt pins: the Python module of that package only scores.
#
#     tools/build_lmplz.sh PYTHON BIN_DIR        for example  tools/build_lmplz.sh .venv/bin/python .venv/bin
#
# PYTHON is only asked for its pip. Nothing is done where both programs already lie in $KENLM_BIN, in a folder of PATH or
# in BIN_DIR. A compiler, cmake and Boost are installed when this runs as root on a machine with apt-get. One to two minutes.
# Boost is linked statically, so that the two files can be copied to a machine or an image without it.
set -euo pipefail

readonly PACKAGES=(g++ make cmake libboost-program-options-dev libboost-thread-dev libboost-system-dev libboost-test-dev)
readonly JOBS=2

say() { echo "lmplz: $*" >&2; }
fail() { # MESSAGE [LOG]: end with the log's last lines and the reason
    if [ $# -gt 1 ]; then tail -n 25 "$2" >&2; fi
    echo "error: $1" >&2
    exit 69
}

holds_kenlm() { [ -x "$1/lmplz" ] && [ -x "$1/query" ]; }

has_build_tools() {
    command -v c++ >/dev/null && command -v make >/dev/null && command -v cmake >/dev/null &&
        printf '#include <boost/%s.hpp>\n' program_options thread system/error_code test/unit_test |
        c++ -x c++ -fsyntax-only - 2>/dev/null
}

install_build_tools() {
    has_build_tools && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "building lmplz needs a C++ compiler, make, cmake and Boost with its static libraries. Install them, on Debian \
or Ubuntu with: sudo apt-get install ${PACKAGES[*]}. Or set KENLM_BIN to a folder that holds lmplz and query."
    fi
    say "installing ${PACKAGES[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends "${PACKAGES[@]}"; } >"$work/apt.log" 2>&1 ||
        fail "apt-get could not install ${PACKAGES[*]} (its last lines are above)" "$work/apt.log"
}

say_percentages() { # stdin: make's output, whose lines begin with [ 42%]
    local line next=0
    while read -r line; do
        if [[ $line =~ ^\[\ *([0-9]+)% ]] && [ "${BASH_REMATCH[1]}" -ge "$next" ]; then
            say "${BASH_REMATCH[1]}%"
            next=$((BASH_REMATCH[1] + 20))
        fi
    done
}

if [ $# != 2 ]; then
    echo "usage: $0 PYTHON BIN_DIR" >&2
    exit 2
fi
python=$1 bin=$2
constraints=$(dirname "$0")/../constraints.txt

if [ -n "${KENLM_BIN:-}" ]; then
    given=$KENLM_BIN
    if [ -f "$given" ]; then given=$(dirname "$given"); fi
    holds_kenlm "$given" || fail "KENLM_BIN is $KENLM_BIN, where lmplz and query are not: correct it or unset it"
    say "found in $given (KENLM_BIN)"
    exit
fi
for folder in "$bin" "$(dirname "$(command -v lmplz || echo "$bin/lmplz")")"; do
    if holds_kenlm "$folder"; then
        say "found in $folder"
        exit
    fi
done

version=$(sed -n 's/^kenlm==\([^ ;#]*\).*/\1/p' "$constraints")
[ -n "$version" ] || fail "$constraints pins no version of kenlm (a line such as kenlm==0.3.0)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_build_tools

say "fetching the source package of kenlm $version"
"$python" -m pip download --no-deps --no-binary kenlm --dest "$work" "kenlm==$version" >"$work/pip.log" 2>&1 ||
    fail "pip could not download the source package of kenlm $version (its last lines are above)" "$work/pip.log"
mkdir "$work/source"
tar -xzf "$work/kenlm-$version.tar.gz" -C "$work/source" --strip-components=1

say "compiling (one to two minutes)"
cmake -S "$work/source" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBoost_USE_STATIC_LIBS=ON \
    -DCMAKE_DISABLE_FIND_PACKAGE_{ZLIB,BZip2,LibLZMA,Eigen3}=ON >"$work/cmake.log" 2>&1 ||
    fail "cmake could not configure kenlm $version (its last lines are above)" "$work/cmake.log"
cmake --build "$work/build" --target lmplz query --parallel "$JOBS" 2>&1 | tee "$work/build.log" | say_percentages ||
    fail "kenlm $version did not compile (the compiler's last lines are above)" "$work/build.log"

printf 'a\n' | "$work/build/bin/lmplz" -o 2 -S 64M -T "$work" --discount_fallback >"$work/model.arpa" 2>"$work/lmplz.log" ||
    fail "lmplz was built but does not run (its last lines are above)" "$work/lmplz.log"
mkdir -p "$bin"
for program in query lmplz; do
    install -m 755 "$work/build/bin/$program" "$bin/.$program.$$"
    mv "$bin/.$program.$$" "$bin/$program"  # in one step: an interrupted run leaves no half a program
done
say "built $bin/lmplz and $bin/query"
