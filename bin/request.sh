#!/usr/bin/env bash
# bin/request.sh [N] [URL]
#
# Sends N requests (500) to URL (http://127.0.0.1:8080/, or the port in PORT) in parallel, waits for all of them
# and prints how many succeeded, by status, and how long they took. A request succeeds if its complete response
# arrives within 30 seconds with a status from 200 to 399. The exit status is 1 if any request fails.

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

count=500
url=http://127.0.0.1:${PORT:-8080}/

main() {
    local argument
    for argument; do
        case $argument in
            -h | --help) help ;;
            *://*) url=$argument ;;
            '' | 0* | *[!0-9]*) fail 2 "'$argument' is neither a number of requests nor a URL, see --help" ;;
            *) count=$argument ;;
        esac
    done
    check_curl
    directory=$(mktemp -d)
    trap 'rm -rf "$directory"' EXIT
    # Each transfer needs two descriptors, and some systems start with 256.
    ulimit -S -n 2048 2>/dev/null || true
    local TIMEFORMAT=%R seconds
    seconds=$({ time send >"$directory/results" 2>"$directory/errors"; } 2>&1)
    cat "$directory/errors" >&2
    report "$seconds"
}

check_curl() {
    local found wanted=7.75 # the first with an exit code per transfer
    found=$(curl --version 2>/dev/null | sed -n '1s/^curl \([0-9.]*\).*/\1/p') || true
    if [ -z "$found" ] || ! at_least "$found" "$wanted"; then
        fail 1 "needs curl $wanted or newer (found: ${found:-none})." \
            "Debian: sudo apt install curl, Fedora: sudo dnf install curl, macOS: brew install curl"
    fi
}

# Prints a line per finished transfer. The lines contain the errors, so curl's exit status is ignored. Older versions of
# curl support at most 300 parallel transfers. Each opens a new connection instead of waiting for one in use.
send() {
    transfers | curl --disable --silent --no-progress-meter --globoff --config - \
        --parallel --parallel-immediate --parallel-max 300 \
        --connect-timeout 10 --max-time 30 --noproxy localhost,127.0.0.1,::1 \
        --write-out '%{exitcode} %{http_code} %{time_total} %{errormsg}\n' || true
}

# The transfers, in the syntax of a curl config file.
transfers() {
    local quoted=${url//\\/\\\\}
    quoted=${quoted//\"/\\\"}
    local i
    for ((i = 0; i < count; i++)); do
        printf 'url = "%s"\noutput = /dev/null\n' "$quoted"
    done
}

report() {
    LC_ALL=C sort -k 3,3n "$directory/results" | LC_ALL=C awk -v count="$count" -v seconds="$1" '
        # The lines come sorted by latency.
        $1 == 0 { latency[++complete] = $3 * 1000; status[$2]++ }
        $1 == 0 && $2 >= 200 && $2 < 400 { succeeded++ }
        $1 != 0 { error[$1]++; code = $1; $1 = $2 = $3 = ""; sub(/^ +/, ""); reason[code] = $0 }
        function percentile(p,   rank) {
            rank = int((p * complete + 99) / 100)
            return latency[rank < 1 ? 1 : rank]
        }
        END {
            printf "%d of %d requests succeeded in %.2f s\n", succeeded, count, seconds
            for (code = 0; code < 1000; code++)
                if (code in status) printf "%7d  status %s\n", status[code], code
            for (code = 0; code < 1000; code++)
                if (code in error) printf "%7d  curl error %s: %s\n", error[code], code, reason[code]
            if (NR < count) printf "%7d  never finished\n", count - NR
            if (complete) printf "latency in ms: min %.1f, median %.1f, p99 %.1f, max %.1f\n",
                percentile(0), percentile(50), percentile(99), percentile(100)
            exit succeeded != count
        }'
}

main "$@"
