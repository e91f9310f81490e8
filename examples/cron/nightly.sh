#!/bin/sh
# One nightly run, for cron. It says nothing when all is well, so that cron writes a mail only when
# somebody has to look. Arguments are those of `lookalike index`, but for --store and --metrics:
#
#   STORE=/srv/lookalike/store nightly.sh --config /srv/lookalike/nightly.yaml --images /srv/photos
#
# Settings, from the environment:
#   STORE      the store (required)
#   METRICS    file for node_exporter's textfile collector; its name ends in .prom (default: none)
#   LOG        what the runs said (default: $STORE.log)
#   TRIES      runs until one does not end with status 1 (default 3)
#   PAUSE      seconds between them (default 300)
#   KEEP_LAST, KEEP_DAYS   snapshots that gc keeps after a good night (default 3 and 14)
#   LOOKALIKE  the command (default: lookalike)
#
# Exit status: that of the last run.
#   0  published, or nothing had changed
#   2  the request is wrong: trying again cannot help
#   3  finished, but a limit stopped publication; the last snapshot still answers queries
#   4  a fault that ends the same way every time: trying again cannot help
#   1  anything else (a machine, a disk, a network; another run that holds the store): the same
#      command continues where it was, so it is tried again
# No flock is needed: a run holds its store itself, and a second one ends with status 1.
set -u
: "${STORE:?name the store: STORE=/srv/lookalike/store}"
LOG=${LOG:-${STORE%/}.log}
LOOKALIKE=${LOOKALIKE:-lookalike}
exec 3>&1 >>"$LOG" 2>&1  # 3 goes to cron

try=1
while :; do
    echo "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) run $try"
    lines=$(wc -l <"$LOG")
    # Unquoted, as the command may be several words: "python -m lookalike.pipelines.cli".
    $LOOKALIKE index "$@" --store "$STORE" ${METRICS:+--metrics "$METRICS"}
    status=$?
    [ "$status" -eq 1 ] && [ "$try" -lt "${TRIES:-3}" ] || break
    try=$((try + 1))
    sleep "${PAUSE:-300}"
done

if [ "$status" -eq 0 ]; then
    $LOOKALIKE gc --store "$STORE" --keep-last "${KEEP_LAST:-3}" --keep-days "${KEEP_DAYS:-14}"
    swept=$?
    [ "$swept" -eq 0 ] || echo "lookalike gc: exit status $swept; see $LOG" >&3
else
    {
        echo "lookalike index: exit status $status after $try of ${TRIES:-3} tries; store $STORE"
        tail -n "+$((lines + 1))" "$LOG" | tail -n 20
    } >&3
fi
exit "$status"
