"""Give made-up inputs to every reader: what is neither taken nor refused in one line of the project's is a bug.

`python tests/fuzz.py --help`; `make fuzz` is 100,000 inputs. pytest does not collect it: tests/test_fuzz.py has a
thousand of them.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "helpers")]  # where it is run as a script

from fuzz_files import left  # noqa: E402
from fuzz_given import Made, given  # noqa: E402
from fuzzing import Reader, Tally, at, fuzz  # noqa: E402

from textvae.command_line import run  # noqa: E402
from textvae.errors import SettingsError, exit_codes  # noqa: E402
from textvae.progress import progress  # noqa: E402

BLOCK = 250
"""Inputs of a reader between two lines of progress, and of one seed."""


def main(
    readers: Annotated[list[str] | None, typer.Argument(help="Words of the readers' names; all without any.")] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Of all readers together.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first inputs; each block of them has the next one.")] = 0,
) -> None:
    """Give made-up inputs to every reader, and what it takes to the next step at a tiny size; a table at the end.

    The same seed makes the same inputs. To go on after an interruption, or on another machine, give the seed that the
    table names. Exit code 1 where a reader surprised.

    \b
    Examples:
      python tests/fuzz.py                                  # 100,000 inputs, about half an hour
      python tests/fuzz.py --inputs 5000 --seed 400         # others
      python tests/fuzz.py corpus params.yaml --inputs 2000 # of these readers
    """
    with exit_codes(), tempfile.TemporaryDirectory(prefix="textvae-fuzz-") as folder, at(Path(folder)):
        warnings.simplefilter("ignore")
        made = Made(Path(folder))
        known = [*given(made), *left(made)]
        chosen = [reader for reader in known if not readers or any(word in reader.name for word in readers)]
        if not chosen:
            raise SettingsError(f"no reader is called so; there are: {', '.join(reader.name for reader in known)}")
        tallies = counted(chosen, inputs, seed)
    surprises = sum(tally.surprises.total() for tally in tallies.values())
    print(table(tallies))
    for name, tally in tallies.items():
        for surprise, count in tally.surprises.most_common():
            print(f"\n{name}: {count} times {surprise}\n  {tally.smallest[surprise][:2000]}")
    raise SystemExit(surprises > 0)


def counted(readers: list[Reader], inputs: int, seed: int) -> dict[str, Tally]:
    """What came of the inputs, by the reader; all readers in turn, so that a part of it is a part of each."""
    tallies = {reader.name: Tally() for reader in readers}
    left = {r.name: round(inputs * r.share / sum(reader.share for reader in readers)) for r in readers}
    with progress("fuzz", sum(left.values()), "inputs") as bar:
        try:
            while any(left.values()):
                for reader in readers:
                    if count := min(left[reader.name], BLOCK):
                        tallies[reader.name].merge(fuzz(reader, seed, count))
                        left[reader.name] -= count
                        bar.advance(count)
                seed += 1
        except KeyboardInterrupt:
            print("interrupted: the table is of what was done", file=sys.stderr)
    print(f"the next seed is {seed}")
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """A line a reader."""
    lines = [f"{'reader':24}{'inputs':>9}{'refused':>9}{'taken':>9}{'run on':>9}{'refused then':>14}{'surprises':>11}"]
    total = Tally()
    for tally in tallies.values():
        total.merge(tally)
    for name, tally in {**tallies, "all": total}.items():
        numbers = (tally.inputs, tally.refused, tally.taken, tally.ran_on)
        lines.append(
            f"{name:24}"
            + "".join(f"{n:9,}" for n in numbers)
            + f"{tally.refused_later:14,}{tally.surprises.total():11,}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
