#!/bin/sh
# Stage 1: the shared decoder, fitted over many subjects. SCALE picks the configuration.
set -eu
. "$(dirname "$0")/common.sh"
exec "$python" -m triavatar fit-decoder --config "$configs/fit_decoder.yaml" "$@"
