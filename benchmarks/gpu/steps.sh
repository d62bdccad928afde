# Sourced by gpu_session.sh: steps that end in time, and are done once in all calls.
# It reads $rehearse, $patience, $end, $work, $out, $python.

# only WHOLE REHEARSED: the first on a GPU, the second in a rehearsal.
only() { if [ -n "$rehearse" ]; then echo "$2"; else echo "$1"; fi; }

# All lines; the first in a rehearsal.
only_first() { if [ -n "$rehearse" ]; then head -n 1; else cat; fi; }

left() { echo $((end - $(date +%s))); }

# minutes SHARE: so many hundredths of the time that is left, for --minutes.
minutes() { awk "BEGIN { printf \"%.2f\", $(left) * $1 / 6000 }"; }

record() { printf '%-28s exit %3s %5s s\n' "$1" "$2" "$3" | tee -a "$work/logs/summary.txt"; }

# step NAME SECONDS COMMAND: once in all calls, for at most that long. What ran out of time is done
# again in the next call, what failed is not: its log says why.
step() {
    name=$1 most=$(($2 * patience))
    shift 2
    if [ -e "$work/done/$name" ]; then return; fi
    if [ "$(left)" -lt 10 ]; then
        echo "$name: no time left in this call"
        return
    fi
    if [ "$(left)" -lt "$most" ]; then most=$(($(left) - 5)); fi
    if [ "$most" -lt 5 ]; then most=5; fi
    began=$(date +%s)
    timeout -k 5 -s INT "$most" "$@" >"$work/logs/$name.txt" 2>&1
    code=$?
    record "$name" "$code" $(($(date +%s) - began))
    if [ $code -ne 124 ] && [ $code -ne 137 ]; then echo $code >"$work/done/$name"; fi
    if [ $code -ne 0 ]; then tail -n 4 "$work/logs/$name.txt" | sed 's/^/    /'; fi
}

# background NAME COMMAND: goes on between calls; started again if it was killed.
background() {
    name=$1
    shift
    pid=$(cat "$work/background/$name" 2>/dev/null)
    if [ -e "$work/done/$name" ] || { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }; then return; fi
    setsid sh -c 'done=$1; shift; "$@"; echo $? >"$done"' sh "$work/done/$name" "$@" \
        >"$work/logs/$name.txt" 2>&1 &
    echo $! >"$work/background/$name"
}

# await NAME SECONDS: until a background command has ended.
await() {
    most=$(($2 * patience))
    if [ "$(left)" -lt "$most" ]; then most=$(($(left) - 5)); fi
    until [ -e "$work/done/$1" ] || [ "$most" -le 0 ]; do
        sleep 1
        most=$((most - 1))
    done
    record "$1" "$(cat "$work/done/$1" 2>/dev/null || echo '...')" -
}

# bring NAME FOLDER: a model to OUT, in pieces; anew in every call.
bring() {
    name=$1 folder=$2
    shift 2
    rm -f "$work/done/bring-$name"
    step "bring-$name" 60 "$python" benchmarks/gpu/pieces.py split "$folder" "$out/$name" "$@"
}

require() {
    if [ ! -e "$1" ]; then
        echo "error: $1 is not there: this machine has not done call $2" >&2
        exit 2
    fi
}

# What comes back is at most 8 files of 16 MiB, 64 MiB together.
check_size() {
    files=$(find "$out" -type f | wc -l)
    large=$(find "$out" -type f -size +16384k | wc -l)
    together=$(du -sk "$out" | cut -f 1)
    if [ "$files" -gt 8 ] || [ "$large" -gt 0 ] || [ "$together" -gt 65536 ]; then
        echo "error: $files files, $large too large, $together KiB: not all would come back" >&2
        exit 4
    fi
}
