"""No secret that an address carries is shown, whoever tells of the address."""

import pytest

from textvae.addresses import masked, shown


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://me:pass@word@host:5000/mlflow", "https://host:5000/mlflow"),
        ("https://me@host", "https://host"),
        ("https://host/a?token=SECRET", "https://host/a"),
        ("https://host/a?token=SEC@RET", "https://host/a"),
        ("https://me:SEC/RET@host/a", "https://host/a"),
        ("https://me:SEC?RET@host/a", "https://***"),
        ("https://host/a.tgz?sig=SECRET#member.txt", "https://host/a.tgz#member.txt"),
        ("https://host/#/experiments/1", "https://host/#/experiments/1"),
        ("http://[::1]:5000/a?b=http://c", "http://[::1]:5000/a"),
        ("postgresql+psycopg://me:SECRET@host:5432/db?password=SECRET", "postgresql+psycopg://host:5432/db"),
        ("mlflow.example/?token=SECRET", "mlflow.example/"),
        ("sqlite:////home/a@b/mlflow.db?key=SECRET", "sqlite:////home/a@b/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, wanted: str) -> None:
    assert shown(address) == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            "Max retries with url: /?token=S%2FECRET/api/2.0 (refused)",
            "Max retries with url: /?token=***/api/2.0 (refused)",
        ),
        ("no token S/ECRET, no me:pa:ss", "no token ***, no me:***"),
        ("https://me:pa:ss@host/?token=S%2FECRET: no", "https://host/: no"),
        ("at 'https://host/x?other=SECRET' and <ftp://you:SECRET@there/>", "at 'https://host/x' and <ftp://there/>"),
        ("nothing odd? no, a@b", "nothing odd? no, a@b"),
    ],
)
def test_what_a_library_says_is_shown_without_them(said: str, wanted: str) -> None:
    assert masked(said, "https://me:pa:ss@host/?token=S%2FECRET") == wanted


def test_a_page_without_a_space_is_not_looked_through_to_its_end() -> None:
    """Its square would take minutes. What is shown of an error is its beginning anyway."""
    page = f"https://me:secret@host/?token=secret {'x' * 10**7}"
    assert masked(page).startswith("https://host/ xxx")
    assert len(masked(page)) < 5000
