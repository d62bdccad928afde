#!/bin/sh
# What a GPU session brought back, put together, bundled, and compared with the shipped model.
#
#   sh benchmarks/gpu/judge.sh PIECES OUTPUT_DIR
#
# The new model takes the shipped one's head model (rig), which serves every decoder. Given again, it
# does what is left.
#
# PIECES is the folder of all that came back (vae.000, decoder.000, likeness.000, base.000, …).
#   ROOT      the set whose held-out people are judged (data/example)
#   PYTHON    the project's interpreter (python3)
#   FLAGS     more settings of generate, of both models
set -eu
pieces=$(cd "${1:?"which folder has the pieces?"}" && pwd)
mkdir -p "${2:?"where to?"}"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
root=${ROOT:-data/example}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
for part in vae decoder likeness base upsampler; do
    if [ ! -d "$out/$part" ]; then
        "$python" benchmarks/gpu/pieces.py join "$pieces/$part".[0-9]* --output_dir "$out/$part"
    fi
done
if [ ! -d "$out/model" ]; then
    "$python" -m triavatar bundle --decoder "$out/decoder" --likeness "$out/likeness" \
        $([ ! -d data/bundle/rig ] || echo "--rig data/bundle/rig") \
        --vae "$out/vae" --base "$out/base" --upsampler "$out/upsampler" --root "$root" \
        --license CC0-1.0 --name "mini, GPU" --output_dir "$out/model"
fi
judge() {
    "$python" -m triavatar generate --root "$root" --scale mini --model "$2" \
        --txt_file "$out/held_out.txt" --output_dir "$out/$1" ${FLAGS:-}
    "$python" -m triavatar evaluate "$out/$1" --root "$root" --txt_file "$out/held_out.txt" \
        --lpips off --output_dir "$out/$1-evaluation"
}
"$python" -c 'import json, sys
print(*json.load(open(sys.argv[1]))["splits"]["identities"]["test"], sep="\n")' \
    "$root/dataset.json" >"$out/held_out.txt"
for model in new:"$out/model" shipped:data/bundle; do
    echo
    echo "== ${model#*:}, people held out of $root"
    judge "${model%%:*}" "${model#*:}"
done
