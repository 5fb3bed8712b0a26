"""No known secret leaves the process, whatever it looks like."""

import urllib.parse

import pytest

from rowferry.redaction import MASK, Redactor, for_urls

SECRETS = ["canary-s3cret", "p@ss:w/o?rd#%", "ünïcode 🚢 secret", "back\\slash'quote", "+plus plus+"]


@pytest.mark.parametrize("secret", SECRETS)
def test_passwords_of_urls_are_masked_in_every_form(secret: str) -> None:
    encoded = urllib.parse.quote(secret, safe="")
    redact = for_urls([f"postgresql://rf:{encoded}@host:5432/db", "sqlite:///x.db"], {})
    for form in (secret, encoded, urllib.parse.quote_plus(secret), repr(secret)):
        shown = redact(f"failed: {form}; again")
        assert secret not in shown
        assert encoded not in shown
        assert MASK in shown
    assert redact("postgresql://host:5432/db") == "postgresql://host:5432/db"


def test_passwords_of_urls_that_cannot_be_parsed_are_masked() -> None:
    assert "canary-s3cret" not in for_urls(["oracle://u:canary-s3cret@h:port:x/y"], {})("canary-s3cret")
    assert "a@b-canary" not in for_urls(["postgresql://u:a@b-canary@h/d"], {})("a@b-canary")


def test_passwords_of_options_and_environment_are_masked() -> None:
    redact = for_urls(["postgresql://h/d?password=opt-canary&sslmode=require"], {"PGPASSWORD": "env-canary"})
    assert redact("opt-canary env-canary require") == f"{MASK} {MASK} require"


def test_a_password_that_is_a_public_name_is_no_secret() -> None:
    redact = for_urls(["postgresql://postgres:postgres@h/postgres"], {})
    assert redact("postgresql://h/postgres") == "postgresql://h/postgres"


def test_a_short_password_is_masked_as_a_word_only() -> None:
    redact = Redactor(["abc"])
    assert redact("abc abcd 'abc'") == f"{MASK} abcd '{MASK}'"


def test_data_is_masked_through_and_through() -> None:
    redact = Redactor(["canary-s3cret"])
    data = {"canary-s3cret": ["x canary-s3cret", {"deep": "canary-s3cret"}], "n": 5, "none": None}
    assert redact.data(data) == {MASK: [f"x {MASK}", {"deep": MASK}], "n": 5, "none": None}
