#!/bin/sh
# Half an hour on a machine with a GPU and no network, in four calls of less than ten minutes each
# (docs/gpu.md says what to carry there and what comes back):
#
#   sh benchmarks/gpu_session.sh 1    kernels' tests, memory and race checker, every trainer against
#                                     the CPU, benchmarks; people are drawn meanwhile
#   sh benchmarks/gpu_session.sh 2    VAE, features, shared decoder, triplanes, likeness
#   sh benchmarks/gpu_session.sh 3    base model by the clock
#   sh benchmarks/gpu_session.sh 4    upsampler by the clock
#
# A call given again does what is left of it. Results are few files of at most 16 MB in OUT;
# benchmarks/gpu/judge.sh puts the models together and compares them with the shipped one.
#
#   OUT       results of this call (runs/gpu)
#   WORK      what stays between calls (/tmp/triavatar-gpu)
#   PYTHON    the interpreter that has PyTorch (python3)
#   WHEELS    folder of packages that are missing there; they go behind those on PYTHONPATH
#   ASSETS    the studio's assets: their folder, or what benchmarks/gpu/shrink_assets.py made of it
#   SECONDS_A_CALL   when a call must have ended (570)
#   REHEARSE=1       every line on the CPU with tiny counts
set -u
cd "$(dirname "$0")/.."
call=${1:?"which call: 1, 2, 3 or 4"}
out=${OUT:-runs/gpu}
work=${WORK:-/tmp/triavatar-gpu}
python=${PYTHON:-python3}
assets=${ASSETS:-${TRIAVATAR_ASSETS:-}}
rehearse=${REHEARSE:-}
end=$(($(date +%s) + ${SECONDS_A_CALL:-570}))
mkdir -p "$out" "$work/done" "$work/logs" "$work/background"
out=$(cd "$out" && pwd)
work=$(cd "$work" && pwd)

PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
    if [ ! -e "$work/done/packages" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade \
            --target "$work/packages" "$WHEELS"/*.whl || exit 1
        echo 0 >"$work/done/packages"
    fi
    PYTHONPATH=$PYTHONPATH:$work/packages
fi
export PYTHONPATH
export PYTHONUNBUFFERED=1
if [ -f "$assets" ]; then
    if [ ! -e "$work/done/assets" ]; then
        mkdir -p "$work/assets"
        "$python" -m tarfile -e "$assets" "$work/assets" || exit 1
        echo 0 >"$work/done/assets"
    fi
    assets=$work/assets
fi
if [ -n "$rehearse" ]; then
    device=cpu memcheck=env racecheck=env cores=2 patience=100 marked="not cuda"
else
    device=cuda cores=$(nproc) patience=1 marked=cuda
    memcheck="compute-sanitizer --tool memcheck --error-exitcode 9"
    racecheck="compute-sanitizer --tool racecheck --error-exitcode 9"
    export TRIAVATAR_REQUIRE_CUDA=1
fi
. benchmarks/gpu/steps.sh

triavatar="$python -m triavatar"
people=$work/people
here=benchmarks/gpu
mini=configs/mini

check_kernels() {
    nvidia-smi >"$work/logs/device.txt" 2>&1
    step first-use 200 "$python" $here/first_use.py --device "$device"
    step compile-table 60 "$python" benchmarks/compile_table.py --architectures 90 --chosen \
        --json "$work/logs/compile.json" $(only "" "--cuda 12")
    # Tests take the likely best cut; one of them runs all.
    export TRIAVATAR_MEASURE=0
    file=tests/renderer/cuda/test_device.py
    for test in $("$python" -m pytest --collect-only -q "$file" 2>/dev/null |
        sed -n 's/.*::\([a-z_]*\).*/\1/p' | sort -u | only_first); do
        step "$test" 90 "$python" -m pytest -q -m cuda -p no:cacheprovider "$file::$test"
    done
    some="test_march or test_occupancy or test_plane or test_cuts or (test_field and 1-)"
    for tool in memcheck racecheck; do
        eval "checker=\$$tool"
        step "$tool" 100 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 $checker \
            "$python" -m pytest -q -m cuda -p no:cacheprovider "$file" -k "$some"
    done
    step trainers 100 "$python" -m pytest -q -m "$marked" -p no:cacheprovider \
        tests/stages/test_devices.py $(only "" "-k train-base-cpu")
    unset TRIAVATAR_MEASURE
}

measure() {
    step kernels 90 "$python" benchmarks/cuda_kernels.py --device "$device" \
        --rays $(only 262144 4) --plane_size $(only 512 4) --repeats $(only 20 1) --layouts \
        --json "$work/logs/kernels.json" $(only "" "--hidden 64")
    step bench-render 60 $triavatar bench render --device "$device" --json "$work/logs/render.json" \
        $(only "--plane_size 512 --channels 32 --color_channels 24 --hidden 128" \
            "--plane_size 16 --samples 256 --rays 64 --image_size 16 --steps 32 --grid 16 --repeats 1")
    step bench-fit 60 $triavatar bench fit --device "$device" --root data/example \
        --json "$work/logs/fit.json" \
        $(only "--plane_size 512 --channels 32 --color_channels 24 --hidden 128 --fit.rays 8192" \
            "--plane_size 16 --warm_steps 1 --repeats 1 --fit.rays 16 --fit.steps 16 --fit.grid 16")
}

# Those of configs/mini.yaml: the held-out ones are the same on every machine.
draw_people() {
    if [ -z "$assets" ]; then
        echo "ASSETS names no folder: nobody is drawn, and calls 2 to 4 learn from data/example"
        people=$PWD/data/example
        return
    fi
    background studio $triavatar studio render --assets "$assets" --config $mini/studio.yaml \
        --subjects_at_once $((cores > 4 ? cores - 2 : cores)) --threads 1 --output_dir "$people" \
        $(only "--n_subjects 1296" "--n_subjects 5 --test_subjects 1 --validation_subjects 1 \
            --n_views 4 --size 32 --supersampling 1 --portraits 0 --test_view_every 3")
}

await_people() {
    draw_people
    if [ "$people" != "$work/people" ]; then return; fi
    await studio "$1"
    if [ ! -e "$work/done/studio" ]; then
        echo "the people are not all drawn yet: give this call again" >&2
        exit 3
    fi
}

fit() {
    await_people 300
    step train-vae 80 $triavatar train-vae --config $here/vae.yaml --root "$people" \
        --device "$device" --output_dir "$work/vae" --minutes $(only 0.75 1) \
        $(only "" "--steps 2 --image_size 32 --block_out_channels 8 8 16 16 --norm_num_groups 4 \
            --batch_size 2")
    step encode-features 60 $triavatar encode-features --config $here/features.yaml \
        --root "$people" --vae "$work/vae/snapshots/model" --device "$device" \
        --output_dir "$work/features" $(only "" "--image_size 32")
    step fit-decoder 150 $triavatar fit-decoder --config $mini/fit_decoder.yaml --root "$people" \
        --device "$device" --output_dir "$work/stage1" $(only "" "$tiny_decoder")
    step fit-many 60 $triavatar bench fit-many --device "$device" --root "$people" \
        --decoder "$work/stage1" --json "$work/logs/fit_many.json" --subjects 1 \
        --iterations 240 --measured_steps $(only 60 2) \
        --subjects_at_once $(only "1 6 12" 1) \
        $(only "" "--fit.rays 16 --fit.steps 16 --fit.grid 16")
    # What is fitted when the time is over is learnt from.
    budget=$(($(left) - $(only 230 60)))
    step fit-triplanes "$budget" $triavatar fit-triplanes --config $mini/fit_triplanes.yaml \
        --root "$people" --decoder "$work/stage1" --identities train --device "$device" \
        --output_dir "$work/stage2" --threads 1 --subjects_at_once "$(fastest)" $tiny_fit
    step train-likeness 200 $triavatar train-likeness --root "$people" --encoder.epochs $(only 40 1) \
        --triplanes "$work/stage2" --output_dir "$work/likeness"
    # Triplanes know their decoder, and diffusion models their VAE, by the weights' hash.
    bring vae "$work/vae/snapshots/model" --exact
    bring decoder "$work/stage1/decoder" --exact
    bring likeness "$work/likeness" --exact
}

# How many fits at once were fastest a person.
fastest() {
    "$python" -c 'import json, sys
try:
    rows = json.load(open(sys.argv[1]))["rows"]
    print(min(rows, key=lambda row: row["seconds_per_subject"])["at_once"])
except (OSError, KeyError, ValueError):
    print(1)' "$work/logs/fit_many.json"
}

# train STAGE: until little of the call is left, then bring the model back. Again: go on.
train() {
    require "$work/stage2/manifest.json" 2
    if [ -z "$assets" ]; then people=$PWD/data/example; fi
    stage=$1
    shift
    rm -f "$work/done/train-$stage"
    step "train-$stage" 600 $triavatar "train-$stage" --config "$here/$stage.yaml" \
        --root "$people" --triplanes "$work/stage2" --features "$work/features" \
        --device "$device" --output_dir "$work/$stage" --minutes "$(minutes 85)" "$@"
    bring "$stage" "$work/$stage/snapshots/model"
}

tiny_fit=$(only "" "--iterations 2 --fit.rays 16 --fit.steps 16 --fit.grid 16")
tiny_decoder="--channels 8 --color_channels 4 --hidden 32 --plane_size 16 --inner_steps 2 --rounds 1
    --end_idx 2 --subjects_per_step 2 --fit.rays 16 --fit.steps 16 --fit.grid 16"
tiny="--model.width 8 --model.head_channels 8 --model.token_width 8 --model.latent_width 8
    --model.multipliers 1 2 --model.feature_patches 8 4 2 --steps 2 --save_every 2 --workers 0
    --batch_size 1 --mixed_precision no"
case $call in
    1)
        draw_people
        check_kernels
        if [ "$people" = "$work/people" ]; then await studio 300; fi
        measure
        ;;
    2) fit ;;
    3) train base $(only "" "--plane_size 8 $tiny --model.attention_sizes 8 4 --model.blocks 1") ;;
    4)
        train upsampler $(only "" "--low_res_size 8 --plane_size 16 $tiny \
            --model.attention_sizes 8 --model.blocks 1 1 --render.patch_size 8 --render.steps 16 \
            --render.grid 16")
        ;;
    *)
        echo "error: there is no call $call: 1, 2, 3 or 4" >&2
        exit 2
        ;;
esac
tar -czf "$out/logs_$call.tar.gz" -C "$work" logs
ls -l "$out"
check_size
failed=$(grep -Lx 0 "$work"/done/* | xargs -r -n 1 basename | tr '\n' ' ')
if [ -n "$failed" ]; then
    echo "failed: $failed"
    exit 1
fi
