#!/bin/sh
# A model of people from nothing, on a CPU: a set of synthetic people with portraits as photographs
# are, one decoder for all, every person's triplane, the model of people's differences, the head that
# expressions move, and all that as one folder for `generate --model`. Started again, it goes on where
# it stopped.
#   --output_dir DIR  where everything goes (runs/mini in the project)
#   --people N        how many people to make, the held-out ones included (2096); a larger number
#                     later adds people, the held-out ones stay the same
#   --dry-run         print the commands only
# It needs the studio's assets: TRIAVATAR_ASSETS names their folder (data/README.md).
set -eu
SCALE=mini
export SCALE
. "$(dirname "$0")/common.sh"
out=$here/runs/mini
people=2096
dry=
while [ $# -gt 0 ]; do
    case $1 in
        --output_dir | --output-dir) out=${2:?"$1 needs a folder"}; shift 2 ;;
        --people) people=${2:?"$1 needs a number"}; shift 2 ;;
        --dry-run | --dry_run) dry=1; shift ;;
        *) echo "error: unknown flag $1; use --output_dir, --people or --dry-run." >&2; exit 2 ;;
    esac
done
stage() {
    echo
    echo "== triavatar $*"
    if [ -z "$dry" ]; then "$python" -m triavatar "$@"; fi
}
if [ -z "$dry" ]; then . "$here/scripts/install.sh"; fi
stage studio render --config "$configs/studio.yaml" --n_subjects "$people" --output_dir "$out/people"
stage fit-decoder --config "$configs/fit_decoder.yaml" --root "$out/people" \
    --output_dir "$out/decoder"
stage fit-triplanes --config "$configs/fit_triplanes.yaml" --root "$out/people" \
    --decoder "$out/decoder" --output_dir "$out/triplanes"
stage train-likeness --root "$out/people" --triplanes "$out/triplanes" --output_dir "$out/likeness"
stage train-rig --root "$out/people" --triplanes "$out/triplanes" --output_dir "$out/rig"
stage bundle --decoder "$out/decoder" --likeness "$out/likeness" --rig "$out/rig" \
    --root "$out/people" \
    --license CC0-1.0 --name mini --output_dir "$out/model"
