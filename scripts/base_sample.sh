#!/bin/sh
# Low-resolution triplanes from portrait features. SCALE picks the configuration.
set -eu
. "$(dirname "$0")/common.sh"
exec "$python" -m triavatar sample-base --config "$configs/sample_base.yaml" "$@"
