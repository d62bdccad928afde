#!/bin/sh
# Everything worth doing in one go on a machine with a GPU: the GPU tests, the memory checker and
# the benchmarks. Runs from source, with no network.
#
#   sh benchmarks/gpu_session.sh [output folder]
#
# PYTHON names the interpreter that has PyTorch (python3). If packages are missing there, put their
# wheels into a folder and name it in WHEELS; they are unpacked into a temporary folder. Packages on
# PYTHONPATH stay there.
set -u
cd "$(dirname "$0")/.."
output=${1:-${OUT:-runs/gpu}}
python=${PYTHON:-python3}
mkdir -p "$output"
# What is on the path already may be packages that were brought along.
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$python" -m pip install -q --no-index --no-deps --target "$packages" "$WHEELS"/*.whl || exit 1
    PYTHONPATH=$PYTHONPATH:$packages
fi
export PYTHONPATH
TRIAVATAR_REQUIRE_CUDA=1
export TRIAVATAR_REQUIRE_CUDA
status=0

nvidia-smi >"$output/device.txt" 2>&1
"$python" - >"$output/compile.txt" 2>&1 <<'PYTHON' || status=1
import time

import torch

from renderer.cuda import unavailable_reason
from renderer.cuda.field_ops import layout_for
from renderer.cuda.layout import DecoderShape
from renderer.cuda.modules import load_module

print(torch.__version__, torch.version.cuda, unavailable_reason("cuda") or "kernels available")
device = torch.device("cuda")
torch.zeros(1, device=device)
start = time.time()
for name in ("march", "composite", "field_forward", "field_backward", "decoder_gradients"):
    layout = layout_for(DecoderShape(32, 24, 128, 2), device, backward=name != "field_forward")
    load_module(f"{name}.cu", layout.macros if "_" in name else {}, device)
print(f"first use: {time.time() - start:.1f} s of compilation")
PYTHON
cat "$output/compile.txt"

"$python" -m pytest -q -m cuda -p no:cacheprovider tests/renderer/cuda/test_device.py \
    >"$output/tests.txt" 2>&1 || status=1
tail -n 15 "$output/tests.txt"

if command -v compute-sanitizer >/dev/null 2>&1; then
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 240 compute-sanitizer --error-exitcode 9 \
        "$python" -m pytest -q -m cuda -p no:cacheprovider tests/renderer/cuda/test_device.py \
        -k "test_march or test_occupancy or test_plane or (test_field and 1-)" \
        >"$output/sanitizer.txt" 2>&1 || status=1
    tail -n 5 "$output/sanitizer.txt"
fi

"$python" benchmarks/cuda_kernels.py --json "$output/kernels.json" >"$output/kernels.txt" 2>&1 ||
    status=1
cat "$output/kernels.txt"
exit $status
