# Sourced by the other scripts; works from any folder.
#   $here     the project          $python  its interpreter: the active virtual environment's,
#   $configs  configs/$SCALE       TRIAVATAR_VENV's, the project's .venv's, or python3
#             ($configs/base.yaml: the part base of configs/$SCALE.yaml)
#   SCALE     debug (CPU, minutes), small (one GPU, hours; the default), paper (8 or more GPUs)
here=$(cd "$(dirname "$0")/.." && pwd)
configs=$here/configs/${SCALE:-small}
venv=${VIRTUAL_ENV:-${TRIAVATAR_VENV:-$here/.venv}}
python=python3
if [ -x "$venv/bin/python" ]; then python=$venv/bin/python; fi
# Without byte code every stage would compile its imports again: ten seconds each.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
if [ ! -f "$configs.yaml" ]; then
    echo "error: SCALE=${SCALE:-small} is unknown; use debug, mini, small or paper." >&2
    exit 2
fi
