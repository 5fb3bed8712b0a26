"""Which sink shows a run: the command line asks here, so that ``progress`` need not know how a terminal is drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

from rowferry.engine.progress import JsonSink, PlainSink, QuietSink, Sink


def make(
    stream: TextIO,
    *,
    quiet: bool = False,
    log_json: bool = False,
    scrub: Callable[[str], str] = str,
) -> Sink:
    """The sink that fits: by the options, else by whether the stream is a terminal."""
    if quiet:
        return QuietSink()
    if log_json:
        return JsonSink(stream, scrub)
    if stream.isatty() or os.environ.get("FORCE_COLOR"):
        from rowferry.engine import live  # drawing takes a while to load, and a pipe does without

        return live.sink(stream, scrub) or PlainSink(stream, scrub)
    return PlainSink(stream, scrub)
