"""The kinds of faults, by their names on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.fault_injection.disks import full_disks, read_only_disks
from tests.fault_injection.files import flipped_files, foreign_files, torn_files
from tests.fault_injection.processes import interrupts, kills, pairs, whole_pipeline
from tests.fault_injection.project import Case, Project
from tests.fault_injection.stores import killed_publishes
from tests.fault_injection.trials import Trial

KINDS: dict[str, Callable[[Project, Case, int, int], Iterator[Trial]]] = {
    "kill": kills,
    "interrupt": interrupts,
    "full": full_disks,
    "read-only": read_only_disks,
    "flipped": flipped_files,
    "torn": torn_files,
    "foreign": foreign_files,
    "pair": pairs,
    "store": killed_publishes,
    "whole": whole_pipeline,
}
"""The trials of each kind for a step; their number, and a seed."""
COUNTS = {
    "kill": 50,
    "interrupt": 20,
    "full": 20,
    "read-only": 0,
    "flipped": 200,
    "torn": 10,
    "foreign": 0,
    "pair": 20,
    "store": 20,
    "whole": 50,
}
"""How many trials of each: for a step, or for each file of each step that reads it; 0: all that there are."""
