#!/bin/sh
# Stage 2: one triplane per object, decoder frozen. SCALE picks the configuration (common.sh);
# NGPU, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT share out the objects (launch.sh).
set -eu
. "$(dirname "$0")/common.sh"
. "$here/scripts/launch.sh"
launch fit-triplanes --config "$configs/fit_triplanes.yaml" "$@"
