"""rowferry carries rows between databases and proves that they arrived.

The public names are imported when first asked for, so that ``import rowferry`` costs nothing
and a tool that only needs an error class does not load the kernels.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("copy", "jobs", "plan", "resume", "retry_quarantined", "verify"), "rowferry.api"),
    **dict.fromkeys(("JobSummary", "PlanReport", "Report", "TableReport"), "rowferry.engine.report"),
    **dict.fromkeys(
        (
            "ConfigError",
            "DataError",
            "DifferenceError",
            "LedgerError",
            "RefusedError",
            "RowferryError",
            "SourceError",
            "StoppedError",
            "TargetError",
        ),
        "rowferry.errors",
    ),
}

if TYPE_CHECKING:
    from rowferry.api import copy as copy
    from rowferry.api import jobs as jobs
    from rowferry.api import plan as plan
    from rowferry.api import resume as resume
    from rowferry.api import retry_quarantined as retry_quarantined
    from rowferry.api import verify as verify
    from rowferry.engine.report import JobSummary as JobSummary
    from rowferry.engine.report import PlanReport as PlanReport
    from rowferry.engine.report import Report as Report
    from rowferry.engine.report import TableReport as TableReport
    from rowferry.errors import ConfigError as ConfigError
    from rowferry.errors import DataError as DataError
    from rowferry.errors import DifferenceError as DifferenceError
    from rowferry.errors import LedgerError as LedgerError
    from rowferry.errors import RefusedError as RefusedError
    from rowferry.errors import RowferryError as RowferryError
    from rowferry.errors import SourceError as SourceError
    from rowferry.errors import StoppedError as StoppedError
    from rowferry.errors import TargetError as TargetError

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
