#!/bin/sh
# Installs the one abi3 wheel of a directory on every CPython of this machine but .venv's, and runs the smoke tests there.
#
# smoke.sh <directory of the wheel>
set -eu

wheel=$(ls "$1"/*.whl)
main=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

tools/pythons.sh | while read -r version python; do
    [ "$version" = "$main" ] && continue
    venv=.venv-$version
    if [ ! -x "$venv/bin/python" ] || [ requirements-dev.txt -nt "$venv/.tools" ]; then
        echo "$python -m venv $venv"
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --constraint requirements-dev.txt \
            msgspec pytest pytest-timeout hypothesis
        touch "$venv/.tools"
    fi
    if [ ! -e "$venv/.wheel" ] || [ "$wheel" -nt "$venv/.wheel" ]; then
        "$venv/bin/python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
        touch "$venv/.wheel"
    fi
    echo "CPython $version"
    # Two Pythons share one tree: neither leaves its cache there.
    # The file by its name: others need what only the main environment has.
    "$venv/bin/python" -B -m pytest -p no:cacheprovider -m smoke tests/python/test_smoke.py </dev/null
done
