# Sourced by the training scripts: launch SUBCOMMAND … through accelerate.
#   NGPU         processes on this machine (1)
#   NNODES       machines (1), with NODE_RANK (0), MASTER_ADDR and MASTER_PORT as usual
#   LAUNCH_ARGS  more flags for accelerate, e.g. "--debug"
launch() {
    count=$((${NGPU:-1} * ${NNODES:-1}))
    threads=${OMP_NUM_THREADS:-$(($(getconf _NPROCESSORS_ONLN) / ${NGPU:-1}))}
    if [ "$threads" -lt 1 ]; then threads=1; fi
    flags="--quiet --num_processes $count --num_machines ${NNODES:-1} --mixed_precision no"
    flags="$flags --dynamo_backend no --num_cpu_threads_per_process $threads"
    if [ "$count" -gt 1 ]; then flags="$flags --multi_gpu"; fi
    if [ "${NNODES:-1}" -gt 1 ]; then
        flags="$flags --machine_rank ${NODE_RANK:-0} --main_process_ip ${MASTER_ADDR:?}"
    fi
    if [ -n "${MASTER_PORT:-}" ]; then flags="$flags --main_process_port $MASTER_PORT"; fi
    flags="$flags ${LAUNCH_ARGS:-}"
    case " $* " in
        *" --dry-run "* | *" --help "*)
            echo "# accelerate launch $flags -m triavatar $*" >&2
            exec "$python" -m triavatar "$@" ;;
    esac
    # shellcheck disable=SC2086  # the flags are words on purpose
    exec "$python" -m accelerate.commands.launch $flags -m triavatar "$@"
}
