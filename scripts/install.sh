# Sourced by test.sh and the demos after common.sh: $python becomes that of a virtual environment
# with the project in it. An active environment is used as it is found; otherwise TRIAVATAR_VENV
# or .venv is made, with PYTHON (default: the newest of python3.11, python3.12, … python3).
usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}
find_python() {
    for name in ${PYTHON:-python3.11 python3.12 python3.10 python3.13 python3}; do
        if usable "$name"; then command -v "$name"; return; fi
    done
    echo "error: Python 3.10 or newer is needed; name one with PYTHON=/path/to/python3.11." >&2
    return 2
}
if [ ! -x "$venv/bin/python" ]; then
    base=$(find_python)
    echo "making the virtual environment $venv with $("$base" --version)"
    "$base" -m venv "$venv"
fi
python=$venv/bin/python
if ! usable "$python"; then
    echo "error: $venv has a Python older than 3.10; remove it or activate another one." >&2
    exit 2
fi
# requirements: the lists to install; a stamp says which ones the environment has already.
for list in ${requirements:-requirements.txt}; do
    stamp=$(cat "$here/$list" "$here/setup.py" | cksum)-$here
    if [ "$(cat "$venv/.triavatar-$list" 2>/dev/null)" = "$stamp" ]; then continue; fi
    echo "installing $list (once)"
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile -r "$here/$list"
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile \
        --no-build-isolation --no-deps -e "$here"
    echo "$stamp" > "$venv/.triavatar-$list"
done
