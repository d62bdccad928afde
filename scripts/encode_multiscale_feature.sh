#!/bin/sh
# The VAE features of every portrait of a set. SCALE picks the configuration.
set -eu
. "$(dirname "$0")/common.sh"
exec "$python" -m triavatar encode-features --config "$configs/features.yaml" "$@"
