#!/bin/sh
# Stage 1: the shared decoder, fitted over many subjects. SCALE picks the configuration (common.sh);
# NGPU, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT share out each step's subjects (launch.sh):
# --subjects_per_step says how many there are, a multiple of all processes.
set -eu
. "$(dirname "$0")/common.sh"
. "$here/scripts/launch.sh"
launch fit-decoder --config "$configs/fit_decoder.yaml" "$@"
