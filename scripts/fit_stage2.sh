#!/bin/sh
# Stage 2: one triplane per object, decoder frozen. SCALE picks the configuration.
set -eu
. "$(dirname "$0")/common.sh"
exec "$python" -m triavatar fit-triplanes --config "$configs/fit_triplanes.yaml" "$@"
