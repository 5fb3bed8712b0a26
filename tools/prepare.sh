#!/bin/sh
# Brings a Debian or Ubuntu machine to where `make demo` and `make test` can work. Does only what is missing.
#   tools/prepare.sh venv       a compiler, Python's headers, and .venv with Python 3.11 or newer
#   tools/prepare.sh postgres   a PostgreSQL server's programs (no server is started)
#   tools/prepare.sh mariadb    a MariaDB server's programs (no server is started)
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"

install() {
    say "installing with apt-get: $*"
    [ -z "$as_root" ] || command -v sudo >/dev/null 2>&1 || { say "need root or sudo to install: $*"; exit 1; }
    command -v apt-get >/dev/null 2>&1 || { say "no apt-get here; install these yourself: $*"; exit 1; }
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The first Python that is new enough; python3 first, since it is the one whose packages are likely there.
find_python() {
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null 2>&1 &&
            "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    return 1
}

venv() {
    if ! python=$(find_python); then
        install python3 || true
        python=$(find_python) || { install python3.11; python=$(find_python); } ||
            { say "no Python 3.11 or newer"; exit 1; }
    fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    missing=""
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python$version-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || missing="$missing python$version-dev"
    # shellcheck disable=SC2086 # a list of words on purpose
    [ -z "$missing" ] || install $missing
    if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "making .venv with $python ($version)"
        rm -rf .venv
        "$python" -m venv .venv
    fi
}

postgres() {
    for bin in /usr/lib/postgresql/*/bin; do
        [ -x "$bin/initdb" ] && return 0
    done
    command -v initdb >/dev/null 2>&1 && return 0
    # The package would start a cluster of its own; we want the programs only.
    if [ ! -e /etc/postgresql-common/createcluster.conf ] && [ "$(id -u)" -eq 0 ]; then
        mkdir -p /etc/postgresql-common
        printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
    fi
    install postgresql postgresql-contrib
}

mariadb() {
    if PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v mariadbd >/dev/null 2>&1; then
        return 0
    fi
    # The package would start a server of its own: while it is unpacked, starting one is forbidden.
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        install mariadb-server
        return
    fi
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    install mariadb-server
}

case "${1:-}" in
    venv) venv ;;
    postgres) postgres ;;
    mariadb) mariadb ;;
    *) say "usage: tools/prepare.sh venv|postgres|mariadb"; exit 2 ;;
esac
