#!/bin/sh
# The whole method at debug scale on data/example, on a machine without a GPU: from multi-view
# pictures to avatars made from portraits, ending with report.png and its figures. Started again,
# it goes on where it stopped.
#   --output_dir DIR  where everything goes (runs/demo in the project)
#   --root SET        multi-view set to learn from (data/example)
#   --dry-run         print the commands only
set -eu
SCALE=${SCALE:-debug}
export SCALE
. "$(dirname "$0")/common.sh"
out=$here/runs/demo
root=$here/data/example
dry=
while [ $# -gt 0 ]; do
    case $1 in
        --output_dir | --output-dir) out=${2:?"$1 needs a folder"}; shift 2 ;;
        --root) root=${2:?"$1 needs a folder"}; shift 2 ;;
        --dry-run | --dry_run) dry=1; shift ;;
        *) echo "error: unknown flag $1; use --output_dir, --root or --dry-run." >&2; exit 2 ;;
    esac
done
began=$(date +%s)
timings=
stage() {
    echo
    echo "== $*"
    if [ -n "$dry" ]; then return; fi
    since=$(date +%s)
    "$@"
    timings="$timings$(printf '%6d s  %s' $(($(date +%s) - since)) "$2" | sed "s|$here/scripts/||")
"
}
triavatar() {
    "$python" -m triavatar "$@"
}
if [ -z "$dry" ]; then . "$here/scripts/install.sh"; fi
installed=$(date +%s)
s=$here/scripts
stage triavatar train-vae --config "$configs/vae.yaml" --root "$root" --output_dir "$out/vae"
stage sh "$s/encode_multiscale_feature.sh" --root "$root" --vae "$out/vae/snapshots/model" \
    --output_dir "$out/features"
stage sh "$s/fit_stage1.sh" --root "$root" --output_dir "$out/stage1"
stage sh "$s/fit_stage2.sh" --root "$root" --decoder "$out/stage1" --output_dir "$out/stage2"
stage sh "$s/base_train.sh" --root "$root" --triplanes "$out/stage2" \
    --features "$out/features" --output_dir "$out/base"
stage sh "$s/upsample_train.sh" --root "$root" --triplanes "$out/stage2" \
    --features "$out/features" --output_dir "$out/upsampler"
stage sh "$s/base_sample.sh" --model "$out/base" --features "$out/features" \
    --triplanes "$out/stage2" --output_dir "$out/sampled_base"
stage sh "$s/upsample_sample.sh" --model "$out/upsampler" --features "$out/features" \
    --triplanes "$out/sampled_base" --output_dir "$out/sampled"
stage triavatar bundle --vae "$out/vae/snapshots/model" --base "$out/base" \
    --upsampler "$out/upsampler" --decoder "$out/stage1" --storage float32 --license CC0-1.0 \
    --output_dir "$out/model"
stage triavatar generate --config "$configs/generate.yaml" --model "$out/model" --root "$root" \
    --output_dir "$out/avatars"
stage triavatar evaluate --config "$configs/evaluate.yaml" --triplanes "$out/stage2" \
    --root "$root" --output_dir "$out/evaluation_fitted"
stage triavatar evaluate --config "$configs/evaluate.yaml" --triplanes "$out/avatars" \
    --root "$root" --output_dir "$out/evaluation"
stage triavatar report --evaluation "$out/evaluation" --fitted "$out/evaluation_fitted" \
    --root "$root" --output "$out/report.png"
if [ -n "$dry" ]; then exit 0; fi
echo
printf '%6d s  installing\n%s' $((installed - began)) "$timings"
printf '%6d s  in all\n' $(($(date +%s) - began))
echo
echo "avatars (turntable.mp4, still views, sheet.png): $out/avatars/avatars/<subject>/"
echo "the model, for generate --model:                 $out/model"
echo "figures of each subject:                         $out/evaluation/metrics.json"
echo "portraits, generated and true views:             $out/report.png"
