#!/bin/sh
# Train the upsampler. SCALE picks the configuration (common.sh); NGPU, NNODES,
# NODE_RANK, MASTER_ADDR and MASTER_PORT spread it (launch.sh).
set -eu
. "$(dirname "$0")/common.sh"
. "$here/scripts/launch.sh"
launch train-upsampler --config "$configs/upsampler.yaml" "$@"
