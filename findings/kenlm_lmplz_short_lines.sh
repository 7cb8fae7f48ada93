#!/usr/bin/env bash
# kenlm 0.3.0 (lmplz, query): a text whose sentences are all shorter than the order is called "small or artificial".
#
# Input: 20,000 different-enough lines of one or two words (names, queries), Zipf-distributed over 3,000 words. With its
# two markers such a line has at most four tokens, so that the text has no 5-gram.
# Expected of `lmplz -o 5`: a model of the orders that occur, or a message that no sentence is long enough for a 5-gram.
# Seen: it aborts (SIGABRT, exit code 134): "Could not calculate Kneser-Ney discounts for 5-grams with adjusted count 2
# because we didn't observe any 5-grams with adjusted count 1; Is this small or artificial data? Try deduplicating the
# input. To override this error for e.g. a class-based model, rerun with --discount_fallback". None of this helps to see
# that `-o 4` works, needs no fallback, and gives the very numbers of `-o 5 --discount_fallback`.
#
# Exits non-zero if any of this changes. Needs python3, pip, a C++ compiler, cmake and Boost's libraries.
set -euo pipefail

readonly VERSION=0.3.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m pip download -q --no-deps --no-binary kenlm --dest . "kenlm==$VERSION" >pip.log 2>&1 || { cat pip.log >&2; exit 1; }
mkdir source
tar -xzf "kenlm-$VERSION.tar.gz" -C source --strip-components=1
cmake -S source -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_DISABLE_FIND_PACKAGE_{ZLIB,BZip2,LibLZMA,Eigen3}=ON >cmake.log 2>&1
cmake --build build --target lmplz query --parallel 2 >build.log 2>&1 || { tail -n 20 build.log >&2; exit 1; }

python3 - <<'PYTHON'
import random

rng = random.Random(1)
words, weights = [f"w{i}" for i in range(3000)], [1 / rank for rank in range(1, 3001)]
for name, count in (("train", 20_000), ("test", 300)):
    with open(name, "w") as text:
        for _ in range(count):
            print(*rng.choices(words, weights, k=rng.choice([1, 2, 2])), file=text)
PYTHON

lmplz() { (ulimit -c 0; build/bin/lmplz -S 64M -T "$work/" "$@" <train 2>"$work/stderr"); }
perplexity() { build/bin/query -v summary "$1" <test 2>/dev/null | grep '^Perplexity including OOVs'; }

code=0
lmplz -o 5 --arpa 5.arpa || code=$?
echo "lmplz -o 5: exit code $code"
grep -A 2 'discounts for' stderr
[ "$code" = 134 ]
grep -q 'for 5-grams with adjusted count 2 because we' stderr
grep -q 'Is this small or artificial data' stderr

lmplz -o 4 --arpa 4.arpa
lmplz -o 5 --discount_fallback --arpa fallback.arpa
echo "lmplz -o 4:                     $(perplexity 4.arpa)"
echo "lmplz -o 5 --discount_fallback: $(perplexity fallback.arpa)"
[ "$(perplexity 4.arpa)" = "$(perplexity fallback.arpa)" ]
