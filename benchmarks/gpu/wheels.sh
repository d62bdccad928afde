#!/bin/sh
# Download what a machine without network, with Python 3.12 and PyTorch, lacks to run the project.
#
#   sh benchmarks/gpu/wheels.sh FOLDER [NAME==VERSION ...]
#
# Versions are those of requirements.txt; more packages may be named. The list fits a machine that has
# accelerate, transformers, numba, opencv-python-headless and scipy, as PyTorch's images mostly do.
set -eu
folder=${1:?"which folder?"}
shift
python=${PYTHON:-python3}
list=$(dirname "$0")/../../requirements.txt
pinned() { grep -E "^($1)==" "$list"; }
fetch() {
    "$python" -m pip download -q --disable-pip-version-check --only-binary=:all: \
        --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "$folder" "$@"
}
fetch $(pinned "tyro|dacite|pydantic|loky") importlib-metadata
fetch --no-deps $(pinned diffusers) "$@"
ls -l "$folder"
du -sm "$folder"
