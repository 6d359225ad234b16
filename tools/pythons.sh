#!/bin/sh
# Lists the CPythons of this machine that the wheel is for, newest first, one of each version: "3.13 <executable>".
#
# Looked for on PATH and where pyenv, uv, Homebrew and the official installers put them. Left out, because the abi3
# wheel or a virtual environment cannot be made for them: other implementations, free-threaded builds, pre-releases,
# versions before 3.11, and Pythons without the modules venv and ensurepip (Debian's without python3-venv).
#
# pythons.sh          all of them
# pythons.sh newest   the executable of the newest; fails with advice if there is none
set -u

# -S: what a user's site does at start is nobody's business here; -I: nor are PYTHON* variables.
probe='
import sys, sysconfig
import ensurepip, venv
v = sys.version_info
ok = sys.implementation.name == "cpython" and v >= (3, 11) and v.releaselevel == "final"
if ok and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(f"{v.major}.{v.minor} {v.micro} {sys.executable}")
'

candidates() {
    old_ifs=$IFS
    IFS=:
    for directory in $PATH; do
        for python in "$directory"/python3 "$directory"/python3.1[1-9] "$directory"/python3.[2-9][0-9]; do
            [ -x "$python" ] && echo "$python"
        done
    done
    IFS=$old_ifs
    for python in \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-*/bin/python3 \
        /opt/homebrew/bin/python3.* /usr/local/bin/python3.* \
        /Library/Frameworks/Python.framework/Versions/*/bin/python3; do
        [ -x "$python" ] && echo "$python"
    done
}

# The sort keeps the newest patch release of each version; awk then takes the first of each.
pythons() {
    candidates | while read -r python; do
        "$python" -IS -c "$probe" 2>/dev/null
    done | sort -t' ' -k1,1Vr -k2,2nr | awk '!seen[$1]++ { v = $1; $1 = $2 = ""; sub(/^ +/, ""); print v, $0 }'
}

case "${1:-all}" in
all) pythons ;;
newest)
    newest=$(pythons | head -n 1 | cut -d' ' -f2-)
    if [ -z "$newest" ]; then
        echo "No CPython 3.11 or newer with venv and ensurepip was found." >&2
        echo "Install one (apt install python3 python3-venv, brew install python, uv python install, python.org)," >&2
        echo "or name it: make PYTHON=<executable> ..." >&2
        exit 1
    fi
    echo "$newest"
    ;;
*)
    echo "usage: pythons.sh [all|newest]" >&2
    exit 2
    ;;
esac
