#!/bin/sh
# Full-resolution triplanes from low-resolution ones. SCALE picks the configuration.
set -eu
. "$(dirname "$0")/common.sh"
exec "$python" -m triavatar sample-upsampler --config "$configs/sample_upsampler.yaml" "$@"
