#!/bin/sh
# Avatars from portraits, on a machine without a GPU, with the model that comes with the project:
# two people of data/example whom it has never seen, and a photograph. Ends with report.png.
#   PHOTO ...         photographs of your own in place of these
#   --output_dir DIR  where everything goes (runs/portraits in the project)
#   --dry-run         print the commands only
# scripts/train_demo.sh trains everything from nothing instead.
set -eu
. "$(dirname "$0")/common.sh"
if [ ! -d "$here/data/bundle" ]; then
    echo "no model comes with this copy (data/bundle); training one" >&2
    exec sh "$here/scripts/train_demo.sh" "$@"
fi
out=$here/runs/portraits
dry=
photos=
while [ $# -gt 0 ]; do
    case $1 in
        --output_dir | --output-dir) out=${2:?"$1 needs a folder"}; shift 2 ;;
        --dry-run | --dry_run) dry=1; shift ;;
        -*) echo "error: unknown flag $1; use --output_dir or --dry-run." >&2; exit 2 ;;
        *) photos="$photos '$(printf %s "$1" | sed "s/'/'\\\\''/g")'"; shift ;;
    esac
done
stage() {
    echo
    echo "== triavatar $*"
    if [ -z "$dry" ]; then "$python" -m triavatar "$@"; fi
}
if [ -z "$dry" ]; then . "$here/scripts/install.sh"; fi
if [ -n "$photos" ]; then
    eval "stage generate $photos --scale mini --output_dir \"\$out\""
    exit
fi
root=$here/data/example
# The files for other programs take a minute more each: triavatar export makes them.
stage generate "$here/data/portraits" --scale mini --export --output_dir "$out/photographs"
stage generate --root "$root" --start_idx 8 --scale mini --output_dir "$out/people"
stage evaluate "$out/people" --root "$root" --lpips off --output_dir "$out/evaluation"
stage report "$out/evaluation" --root "$root" --output "$out/report.png"
echo
echo "avatars (open report.html):          $out/*/avatars/<name>/"
echo "portraits, generated and true views: $out/report.png"
echo "to turn them around:                 triavatar view $out/people"
echo "to take one elsewhere:               triavatar export $out/photographs --to glb rigged.glb ply html"
