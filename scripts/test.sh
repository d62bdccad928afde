#!/bin/sh
# Install into a virtual environment (install.sh) and run the tests; arguments go to pytest.
set -eu
. "$(dirname "$0")/common.sh"
case " $* " in *" --dry-run "*) echo "pytest in $here with $venv"; exit 0 ;; esac
requirements="requirements.txt requirements-checks.txt"
. "$here/scripts/install.sh"
cd "$here"
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest -n 2 --dist loadgroup "$@"
