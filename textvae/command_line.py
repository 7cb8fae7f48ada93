"""A function as a command line."""

from collections.abc import Callable

import typer


def run(function: Callable[..., None]) -> None:
    """`typer.run`, but with plain help and, of a bug, Python's own traceback: typer's shows variables (secrets)."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(function)
    app()
