"""Keeps secrets out of everything that is printed, logged or reported.

Messages are made without secrets in the first place (``Endpoint.safe_url``, errors that never
repeat a URL). This is the second line: the passwords that this process knows of are replaced
wherever they show, in the clear and percent-encoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
#: From this length on a secret is replaced inside words too; a shorter one only as a whole word,
#: or a password "a" would riddle every message.
INSIDE_WORDS_MIN = 6
#: Options of a URL and variables of the environment that hold secrets.
SECRET_OPTIONS = (
    "password", "sslpassword", "passwd", "pwd",
    "ssl-passphrase", "ssl_passphrase", "ssl-key-password", "ssl_key_password",
)  # fmt: skip
SECRET_VARIABLES = ("PGPASSWORD", "MYSQL_PWD")


class Redactor:
    """Replaces known secrets. Calling it with a text gives the text without them."""

    def __init__(self, secrets: Iterable[str] = (), public: Iterable[str] = ()) -> None:
        """secrets: as they are meant, not as they are encoded. public: words that are no secret
        whoever uses them as one (user and database names: ``postgres:postgres@…/postgres``)."""
        self._pattern: re.Pattern[str] | None = None
        known = {word.lower() for word in public if word}
        forms: set[str] = set()
        for secret in secrets:
            if secret and secret.lower() not in known:
                forms |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
        if forms:
            parts = [_pattern(form) for form in sorted(forms, key=len, reverse=True)]
            self._pattern = re.compile("|".join(parts))

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def data(self, value: Any) -> Any:
        """The same for JSON values, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(k) if isinstance(k, str) else k: self.data(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(v) for v in value]
        return value


def _pattern(secret: str) -> str:
    escaped = re.escape(secret)
    return escaped if len(secret) >= INSIDE_WORDS_MIN else rf"(?<!\w){escaped}(?!\w)"


_USER_INFO = re.compile(r"^[^/?#]*?//(?P<info>[^/]*)@", re.DOTALL)
_OPTION = re.compile(rf"[?&](?:{'|'.join(SECRET_OPTIONS)})=([^&#]*)", re.IGNORECASE)


def for_urls(urls: Iterable[str], environment: Mapping[str, str] = os.environ) -> Redactor:
    """A redactor for these URLs, whether or not they can be parsed, and for the environment."""
    secrets: set[str] = {environment[name] for name in SECRET_VARIABLES if environment.get(name)}
    public: set[str] = set()
    for url in urls:
        public.add(url.partition("://")[0])
        found = _USER_INFO.match(url)
        if found:
            user, colon, password = found["info"].partition(":")
            public.add(unquote(user))
            if colon:
                secrets |= {password, unquote(password)}
        secrets |= {form for value in _OPTION.findall(url) for form in (value, unquote(value))}
        public.add(unquote(url.partition("?")[0].rpartition("/")[2]))
    return Redactor(secrets, public)
