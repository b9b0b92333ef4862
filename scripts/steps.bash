# For the scripts beside it: steps that say what they do and how long it took, and daemons started by hand
# where process 1 is not systemd. Sourced, with `set -euo pipefail` in force.
# shellcheck shell=bash

umask 022
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
# shellcheck disable=SC2034 # for the script that sources this
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d) # gone at the end
step_name=
exec 3>&1
trap end_steps EXIT
trap 'exit 130' INT TERM

end_steps() {
    local status=$?
    if [ "$status" != 0 ] && [ -n "$step_name" ]; then
        { echo "failed:"; cat "$scratch/output"; } >&3
    fi
    rm -rf "$scratch"
}

step() { # NAME COMMAND...: one line with the name and the seconds; the command's output only if it fails
    local began=$EPOCHREALTIME
    step_name=$1
    shift
    printf '%-58s ' "$step_name" >&3
    "$@" >"$scratch/output" 2>&1
    local microseconds=$((${EPOCHREALTIME/[.,]/} - ${began/[.,]/}))
    printf '%4d.%d s\n' $((microseconds / 1000000)) $((microseconds / 100000 % 10)) >&3
    step_name=
}

need_root() {
    if [ "$(id -u)" != 0 ]; then
        echo "${0##*/} changes the whole machine; run it as root." >&2
        exit 77
    fi
}

has_systemd() {
    [ -d /run/systemd/system ]
}

setting() { # NAME: a value from labshell.toml
    /opt/labshell/venv/bin/python -Ic "from labshell.config import load; print(load().$1)"
}

start_by_hand() { # NAME COMMAND...: in the background, its pid in /run/labshell/NAME.pid, its output in a log
    local name=$1
    shift
    install -d /run/labshell /var/log/labshell
    setsid "$@" </dev/null >>"/var/log/labshell/$name.log" 2>&1 3>&- &
    echo $! >"/run/labshell/$name.pid"
}

is_running() { # NAME: what start_by_hand started still runs; a zombie does not
    local pid
    pid=$(cat "/run/labshell/$1.pid" 2>/dev/null) || return 1
    grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status"
}

stop_by_hand() { # NAME: end what start_by_hand started, if it runs
    if is_running "$1"; then
        kill "$(cat "/run/labshell/$1.pid")"
        wait_until 20 is_stopped "$1"
    fi
    rm -f "/run/labshell/$1.pid"
}

is_stopped() {
    ! is_running "$1"
}

wait_until() { # SECONDS COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "waited too long for: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}
