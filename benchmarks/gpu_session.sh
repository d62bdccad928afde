#!/bin/sh
# Half an hour on a machine with a GPU and no network, in four calls of less than ten minutes each:
#
#   sh benchmarks/gpu_session.sh 1    kernels' tests, memory and race checker, every trainer against
#                                     the CPU, benchmarks; people are drawn meanwhile
#   sh benchmarks/gpu_session.sh 2    VAE, features, shared decoder, one triplane for each person
#   sh benchmarks/gpu_session.sh 3    base model by the clock
#   sh benchmarks/gpu_session.sh 4    upsampler by the clock
#
# A call given again does what is left of it. Results are few files of at most 16 MB in OUT; models are
# put together by benchmarks/gpu/pieces.py and bundled with triavatar bundle.
#
#   OUT       results of this call (runs/gpu)
#   WORK      what stays between calls (/tmp/triavatar-gpu)
#   PYTHON    the interpreter that has PyTorch (python3)
#   WHEELS    folder of packages that are missing there; they go behind those on PYTHONPATH
#   ASSETS    the studio's assets (benchmarks/gpu/shrink_assets.py makes them travel)
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

PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
    if [ ! -e "$work/done/packages" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade \
            --target "$work/packages" "$WHEELS"/*.whl || exit 1
        touch "$work/done/packages"
    fi
    PYTHONPATH=$PYTHONPATH:$work/packages
fi
export PYTHONPATH
export PYTHONUNBUFFERED=1
small=benchmarks/gpu
if [ -n "$rehearse" ]; then
    device=cpu memcheck=env racecheck=env cores=2 patience=20
else
    device=cuda cores=$(nproc) patience=1
    memcheck="compute-sanitizer --tool memcheck --error-exitcode 9"
    racecheck="compute-sanitizer --tool racecheck --error-exitcode 9"
    export TRIAVATAR_REQUIRE_CUDA=1
fi

# only WHOLE REHEARSED: the first on a GPU, the second in a rehearsal.
only() { if [ -n "$rehearse" ]; then echo "$2"; else echo "$1"; fi; }

left() { echo $((end - $(date +%s))); }

record() { printf '%-28s exit %3s %5s s\n' "$1" "$2" "$3" | tee -a "$work/logs/summary.txt"; }

# step NAME SECONDS COMMAND: once in all calls, for at most that long. What ran out of time is done
# again in the next call, what failed is not: its log says why.
step() {
    name=$1 most=$(($2 * patience))
    shift 2
    if [ -e "$work/done/$name" ]; then return; fi
    if [ "$(left)" -lt 10 ]; then
        echo "$name: no time left in this call"
        return
    fi
    if [ "$(left)" -lt "$most" ]; then most=$(($(left) - 5)); fi
    began=$(date +%s)
    timeout -k 5 -s INT "$most" "$@" >"$work/logs/$name.txt" 2>&1
    code=$?
    record "$name" "$code" $(($(date +%s) - began))
    if [ $code -ne 124 ] && [ $code -ne 137 ]; then echo $code >"$work/done/$name"; fi
    if [ $code -ne 0 ]; then tail -n 4 "$work/logs/$name.txt" | sed 's/^/    /'; fi
}

# background NAME COMMAND: goes on between calls; started again if it was killed.
background() {
    name=$1
    shift
    pid=$(cat "$work/background/$name" 2>/dev/null)
    if [ -e "$work/done/$name" ] || { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }; then return; fi
    setsid sh -c 'done=$1; shift; "$@"; echo $? >"$done"' sh "$work/done/$name" "$@" \
        >"$work/logs/$name.txt" 2>&1 &
    echo $! >"$work/background/$name"
}

# await NAME SECONDS: until a background command has ended.
await() {
    most=$(($2 * patience))
    if [ "$(left)" -lt "$most" ]; then most=$(($(left) - 5)); fi
    until [ -e "$work/done/$1" ] || [ "$most" -le 0 ]; do
        sleep 1
        most=$((most - 1))
    done
    record "$1" "$(cat "$work/done/$1" 2>/dev/null || echo '...')" -
}

# minutes SHARE: so many hundredths of the time that is left, for --minutes.
minutes() { awk "BEGIN { printf \"%.2f\", $(left) * $1 / 6000 }"; }

triavatar="$python -m triavatar"
set_of_people=$work/set

check_kernels() {
    nvidia-smi >"$work/logs/device.txt" 2>&1
    step first-use 120 "$python" benchmarks/gpu/first_use.py --device "$device"
    step compile-table 120 "$python" benchmarks/compile_table.py \
        --json "$work/logs/compile.json" --architectures $(only "90" "90")
    file=tests/renderer/cuda/test_device.py
    for test in $("$python" -m pytest --collect-only -q "$file" 2>/dev/null |
        sed -n 's/.*::\([a-z_]*\).*/\1/p' | sort -u); do
        step "$test" 90 "$python" -m pytest -q -m cuda -p no:cacheprovider "$file::$test"
    done
    some="test_march or test_occupancy or test_plane or (test_field and 1-)"
    for tool in memcheck racecheck; do
        eval "checker=\$$tool"
        step "$tool" 100 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 $checker \
            "$python" -m pytest -q -m cuda -p no:cacheprovider "$file" -k "$some"
    done
}

measure() {
    step compare-devices 150 "$python" benchmarks/gpu/compare_devices.py \
        --devices cpu "$device" --work "$work/compare" --steps $(only 6 1) \
        --json "$work/logs/compare_devices.json"
    step kernels 90 "$python" benchmarks/cuda_kernels.py --device "$device" \
        --rays $(only 262144 2) --plane_size $(only 512 4) --repeats $(only 20 1) --layouts \
        --json "$work/logs/kernels.json"
    step bench-render 60 $triavatar bench render --device "$device" --json "$work/logs/render.json" \
        $(only "--plane_size 512 --channels 32 --color_channels 24 --hidden 128" \
            "--plane_size 16 --samples 256 --rays 64 --image_size 16 --steps 32 --grid 16 --repeats 1")
    step bench-fit 60 $triavatar bench fit --device "$device" --root data/example \
        --json "$work/logs/fit.json" \
        $(only "--plane_size 512 --channels 32 --color_channels 24 --hidden 128 --fit.rays 8192" \
            "--plane_size 16 --warm_steps 1 --repeats 1 --fit.rays 16 --fit.steps 16 --fit.grid 16")
    step bench-fit-many 60 $triavatar bench fit-many --device "$device" --root data/example \
        --decoder "$work/compare/first/fit-decoder" --json "$work/logs/fit_many.json" \
        --subjects $(only 2 1) --measured_steps $(only 50 2) --subjects_at_once $(only "1 4 8" 1) \
        --fit.rays $(only 8192 16)
}

draw_people() {
    if [ -z "$assets" ]; then
        echo "ASSETS names no folder: nobody is drawn, and calls 2 to 4 train on data/example"
        set_of_people=$PWD/data/example
        return
    fi
    background studio $triavatar studio render --assets "$assets" --config $small/studio.yaml \
        --subjects_at_once "$cores" --threads 1 --output_dir "$set_of_people" \
        $(only "" "--n_subjects 4 --test_subjects 1 --validation_subjects 1 --n_views 4 --size 64")
}

people() {
    draw_people
    if [ "$set_of_people" != "$work/set" ]; then return; fi
    await studio 300
    if [ ! -e "$work/done/studio" ]; then
        echo "the people are not all drawn yet: give this call again" >&2
        exit 3
    fi
}

fit() {
    people
    step train-vae 120 $triavatar train-vae --config $small/vae.yaml --root "$set_of_people" \
        --device "$device" --output_dir "$work/vae" --minutes $(only 1.5 0) \
        $(only "" "--steps 2 --image_size 64")
    step fit-decoder 180 $triavatar fit-decoder --config $small/fit_decoder.yaml \
        --root "$set_of_people" --device "$device" --output_dir "$work/stage1" \
        $(only "" "--inner_steps 2 --end_idx 2 --subjects_per_step 2 --fit.rays 32")
    step encode-features 60 $triavatar encode-features --root "$set_of_people" \
        --vae "$work/vae/snapshots/model" --device "$device" --output_dir "$work/features" \
        --image_size $(only 256 64)
    step fit-triplanes 400 $triavatar fit-triplanes --config $small/fit_triplanes.yaml \
        --root "$set_of_people" --decoder "$work/stage1" --device "$device" \
        --output_dir "$work/stage2" --subjects_at_once $(only 8 1) \
        $(only "" "--iterations 2 --fit.rays 32")
    bring vae "$work/vae/snapshots/model"
    bring decoder "$work/stage1/decoder"
}

# train STAGE: until little of the call is left, then bring the model back.
train() {
    require "$work/stage2/manifest.json" 2
    stage=$1
    shift
    rm -f "$work/done/train-$stage"
    step "train-$stage" 600 $triavatar "train-$stage" --config "$small/$stage.yaml" \
        --root "$set_of_people" --triplanes "$work/stage2" --features "$work/features" \
        --device "$device" --output_dir "$work/$stage" --minutes "$(minutes 80)" \
        --save_every $(only 1000 2) "$@"
    bring "$stage" "$work/$stage/snapshots/model"
}

bring() {
    rm -f "$work/done/bring-$1"
    step "bring-$1" 60 "$python" benchmarks/gpu/pieces.py split "$2" "$out/$1"
}

require() {
    if [ ! -e "$1" ]; then
        echo "error: $1 is not there: this machine has not done call $2" >&2
        exit 2
    fi
}

tiny="--model.width 8 --model.head_channels 8 --model.token_width 8 --model.latent_width 8 --steps 3"
case $call in
    1)
        draw_people
        check_kernels
        measure
        ;;
    2) fit ;;
    3)
        if [ -z "$assets" ]; then set_of_people=$PWD/data/example; fi
        train base $(only "" "--batch_size 2 --plane_size 16 $tiny")
        ;;
    4)
        if [ -z "$assets" ]; then set_of_people=$PWD/data/example; fi
        train upsampler $(only "" "--batch_size 1 --low_res_size 16 --plane_size 32 $tiny")
        ;;
    *)
        echo "error: there is no call $call: 1, 2, 3 or 4" >&2
        exit 2
        ;;
esac
tar -czf "$out/logs_$call.tar.gz" -C "$work" logs
ls -l "$out"
failed=$(grep -Lx 0 "$work"/done/* 2>/dev/null | grep -v /packages | xargs -r -n 1 basename | tr '\n' ' ')
if [ -n "$failed" ]; then
    echo "failed: $failed"
    exit 1
fi
