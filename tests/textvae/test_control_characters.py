"""What a terminal would obey is shown: in what commands print of a text, a table, JSON or an error."""

import json

import pytest

from textvae.control_characters import OBEYED, visible
from textvae.errors import DataError, exit_codes
from textvae.explore import printed

ODD = "a\x1b[31m\x9b31m\x07\x7f\u202e\u2028z"


def test_what_would_be_obeyed_is_shown_and_nothing_else_is_changed() -> None:
    assert visible(ODD) == r"a\u001b[31m\u009b31m\u0007\u007f\u202e\u2028z"
    for plain in ("tab\tand\nline", "naïve café", "我们 😀 👩\u200d👧", "مرحبا\u200f", "no\u00a0break", r"\u001b"):
        assert visible(plain) == plain


def test_json_stays_the_same_value() -> None:
    assert json.loads(visible(json.dumps({ODD: [ODD]}, ensure_ascii=False))) == {ODD: [ODD]}


@pytest.mark.parametrize("as_json", [True, False])
def test_explore_prints_none(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    with printed(as_json, "sentence") as show:
        show({"sentence": ODD}, [[ODD]])
    said = capsys.readouterr().out
    assert not OBEYED.search(said)
    assert r"a\u001b[31m\u009b31m\u0007" in said


def test_an_error_prints_none(capsys: pytest.CaptureFixture[str]) -> None:
    """It may name the member of an archive, which may be called anything."""
    with pytest.raises(SystemExit), exit_codes():
        raise DataError(f"{ODD} in the archive")
    assert capsys.readouterr().err == f"error: {visible(ODD)} in the archive\n"
