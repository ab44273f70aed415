# shellcheck shell=sh disable=SC2034 # `status` is for the caller
# Long programs run in the background and are waited for: a shell hears Ctrl-C while it waits, not before.

# run_in FOLDER LOG OPTIONS COMMAND…: COMMAND in FOLDER with the options that the file OPTIONS holds, one a line, and
# its words in LOG. Sets `status`.
run_in() {
    run_folder=$1 run_log=$2 run_list=$3
    shift 3
    (cd -- "$run_folder" && with_options "$@") <"$run_list" >"$run_log" 2>&1 &
    await_child
}

# await_child: waits for what was started last, and sets `status`.
await_child() {
    child=$!
    status=0
    wait "$child" || status=$?
    child=''
}

# The program takes the shell's place, so that the process that is waited for can be ended.
with_options() {
    while IFS= read -r option; do set -- "$@" "$option"; done
    exec "$@"
}

# A board without a battery has another date once it has found a time server; this goes on evenly.
seconds_up() { cut -d . -f 1 /proc/uptime; }

# start_sampling FILE: reads the board into FILE every five seconds. It keeps no lock, and ends with this run.
start_sampling() {
    (while kill -0 $$ 2>/dev/null; do readings DURING; sleep 5; done) >>"$1" 2>/dev/null 9>&- &
    sampler=$!
}

stop_sampling() {
    [ -z "${sampler:-}" ] || kill -TERM "$sampler" 2>/dev/null || :
    sampler=''
}

# What still runs is ended; `timeout` passes the signal on, and kills what does not listen.
stop_all() {
    trap '' INT TERM HUP
    [ -z "${child:-}" ] || { kill -TERM "$child" 2>/dev/null && wait "$child" 2>/dev/null; } || :
    stop_sampling
}

# end_with CLEANING: the function that leaves nothing behind, whatever ends the run.
end_with() {
    # shellcheck disable=SC2064 # the name is known now
    trap "$1" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# tell_log WHAT FILE: the end of a log.
tell_log() {
    warn "$1 failed; the log ends with:"
    tail -n 15 -- "$2" | sed 's/^/    /' >&2
}
