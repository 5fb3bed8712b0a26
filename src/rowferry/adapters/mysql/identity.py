"""Which server this is, however it is reached: an alias, a proxy or a socket leads to the same one."""

from __future__ import annotations

from rowferry.adapters.mysql.session import MysqlSession

#: MySQL has the UUID, MariaDB the UID. A copied data folder brings them along: host, port and folder tell it apart.
_NAMES = ("server_uuid", "server_uid", "hostname", "port", "datadir")


def server_identity(session: MysqlSession) -> str:
    """Equal for two sessions exactly where they are on one server. Raises the session's error."""
    names = ", ".join(f"'{name}'" for name in _NAMES)
    rows = session.query(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    return "mysql " + " ".join(f"{name}={value}" for name, value in sorted((str(n).lower(), v) for n, v in rows))
