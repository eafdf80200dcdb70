# shellcheck shell=bash
# Shared by the scripts of deploy/local and by ./dev. To be sourced, not run.
#
# State of one checkout, all of it under $local_dir:
#   ports          NAME=PORT lines; chosen once, so that a restart keeps its address
#   env            what tests read: PENSTOCK_KAFKA (and _GUEST), PENSTOCK_PG, PENSTOCK_S3_ENDPOINT,
#                  PENSTOCK_MQTT
#   run/X.pid      "PID STARTED", the latter from /proc, so that a reused pid is not taken for ours
#   log/X.log      what the service prints
#   kafka/ postgres/ mosquitto/   data
# What is downloaded is shared by all checkouts and lives under $cache_dir.
#
# File descriptors: 6 cache lock, 7 state lock, 8 service lock, 9 ./dev's lock. Services inherit none.
set -euo pipefail

repo_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# A test that wants a broker of its own to stop and start gives another folder here.
local_dir=${PENSTOCK_LOCAL:-$repo_dir/.local}
: "${HOME:=/nonexistent}"
cache_dir=${PENSTOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/penstock}
# shellcheck disable=SC2034 # up and down use it
all_services=(kafka postgres s3 mosquitto)

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
[[ $local_dir == /* ]] || die "PENSTOCK_LOCAL must be an absolute path"

# ---- what must be installed -------------------------------------------------

# need_debian COMMAND:PACKAGE...: installs the packages whose command is missing.
need_debian() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  ((${#missing[@]} == 0)) || install_debian "${missing[@]}"
}

install_debian() {
  command -v apt-get >/dev/null || die "please install: $* (named as in Debian)"
  local log apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300)
  if [[ $EUID -ne 0 ]]; then
    # On a terminal sudo may ask for the password.
    sudo -n true 2>/dev/null || { command -v sudo >/dev/null && [[ -t 0 && -t 2 ]]; } ||
      die "packages are missing; please have root run: apt-get install $*"
    apt=(sudo "${apt[@]}")
  fi
  say "installing $*"
  log=$(mktemp)
  if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "apt-get could not install: $*"
  fi
  rm -f "$log"
  hash -r
}

# venv_dir NAME REQUIREMENTS: a Python environment in the cache with exactly these packages;
# sets the variable venv. A change of the requirements is another environment.
venv_dir() {
  local sum
  sum=$(sha256sum <"$2")
  venv=$cache_dir/venv-$1-${sum:0:12}
  [[ -f $venv/.complete ]] && return
  need_debian python3:python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
  mkdir -p "$cache_dir"
  exec 6>"$cache_dir/.lock-venv-$1"
  flock 6
  if [[ ! -f $venv/.complete ]]; then
    say "installing $1 from PyPI"
    rm -rf "$venv"
    # Checked by hand: a caller may have put us where set -e does not reach.
    python3 -m venv "$venv" || die "python3 -m venv failed"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$2" >&2 ||
      die "$1 could not be installed from PyPI"
    touch "$venv/.complete"
  fi
  exec 6>&-
}

# ---- state ------------------------------------------------------------------

prepare_state() { mkdir -p "$local_dir/run" "$local_dir/log"; }

# One start or stop of a service at a time.
lock_service() {
  prepare_state
  exec 8>"$local_dir/run/$1.lock"
  flock -w 300 8 || die "another start or stop of $1 has not ended in 300 s"
}

lock_state() {
  prepare_state
  exec 7>"$local_dir/run/state.lock"
  flock 7
}
unlock_state() { exec 7>&-; }

listening() { # PORT: does anybody listen there?
  local hex
  hex=$(printf '%04X' "$1")
  grep -qsE "^ *[0-9]+: [0-9A-F]+:$hex [0-9A-F]+:[0-9A-F]+ 0A " /proc/net/tcp /proc/net/tcp6
}

known_port() { # NAME
  sed -n "s/^$1=//p" "$local_dir/ports" 2>/dev/null || true
}

# choose_port NAME: the port from last time, or another when somebody took it; sets the variable
# port. Only for a service that is not running. Below the ports that outgoing connections use.
choose_port() {
  lock_state
  touch "$local_dir/ports"
  port=$(known_port "$1")
  if [[ -z $port ]] || listening "$port"; then
    while :; do
      port=$((20000 + RANDOM % 12000))
      grep -q "=$port\$" "$local_dir/ports" || listening "$port" || break
    done
    { grep -v "^$1=" "$local_dir/ports" || true; echo "$1=$port"; } >"$local_dir/ports.new"
    mv "$local_dir/ports.new" "$local_dir/ports"
  fi
  unlock_state
}

# Writes env anew: a line for each service that is running.
write_env() {
  lock_state
  {
    if running kafka; then
      echo "PENSTOCK_KAFKA=127.0.0.1:$(known_port KAFKA)"
      if [[ -n $(known_port KAFKA_GUEST) ]]; then
        echo "PENSTOCK_KAFKA_GUEST=10.0.2.2:$(known_port KAFKA_GUEST)"
      fi
      if [[ -n $(known_port KAFKA_TLS) ]]; then
        echo "PENSTOCK_KAFKA_TLS=127.0.0.1:$(known_port KAFKA_TLS)"
        echo "PENSTOCK_KAFKA_SASL=127.0.0.1:$(known_port KAFKA_SASL)"
        echo "PENSTOCK_KAFKA_SECRETS=$local_dir/kafka/tls"
      fi
    fi
    ! running postgres || echo "PENSTOCK_PG=postgres://penstock@127.0.0.1:$(known_port POSTGRES)/postgres"
    ! running s3 || echo "PENSTOCK_S3_ENDPOINT=http://127.0.0.1:$(known_port S3)"
    ! running mosquitto || echo "PENSTOCK_MQTT=mqtt://127.0.0.1:$(known_port MOSQUITTO)"
  } >"$local_dir/env.new"
  mv "$local_dir/env.new" "$local_dir/env"
  unlock_state
}

# ---- processes --------------------------------------------------------------

# When the process started, in clock ticks since boot; fails for one that is gone or a zombie.
started_at() { # PID
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name, in parentheses, may hold spaces; the state (field 3) follows it.
  read -ra stat <<<"${stat##*) }"
  [[ ${stat[0]} != Z ]] || return 1
  echo "${stat[19]}"
}

# running SERVICE: is the process that we started still there? Sets the variable pid.
running() {
  local started now
  read -r pid started 2>/dev/null <"$local_dir/run/$1.pid" || return 1
  now=$(started_at "$pid") && [[ $now == "$started" ]]
}

# spawn SERVICE COMMAND...: in a session of its own (Ctrl-C is not for it), output to its log.
spawn() {
  local service=$1
  shift
  setsid "$@" </dev/null >>"$local_dir/log/$service.log" 2>&1 6>&- 7>&- 8>&- 9>&- &
  echo "$! $(started_at $!)" >"$local_dir/run/$service.pid"
}

# wait_ready SERVICE SECONDS COMMAND...: until the command succeeds.
wait_ready() {
  local service=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! running "$service" || ((SECONDS >= deadline)); then
      say "the end of $local_dir/log/$service.log:"
      tail -n 25 "$local_dir/log/$service.log" >&2
      running "$service" || die "$service ended while starting"
      end_process "$service" KILL
      die "$service was not ready in time"
    fi
    sleep 0.1
  done
}

# end_process SERVICE SIGNAL: sends it, and waits until the process is gone.
end_process() {
  running "$1" || return 0
  local deadline=$((SECONDS + 60))
  kill "-$2" "$pid" 2>/dev/null || true
  while running "$1"; do
    if ((SECONDS >= deadline)); then
      say "$1 did not end on $2 in 60 s: killed"
      kill -KILL "$pid" 2>/dev/null || true
      deadline=$((SECONDS + 10))
    fi
    sleep 0.05
  done
  rm -f "$local_dir/run/$1.pid"
}

# stop_command SERVICE SIGNAL [--kill]: the whole of a simple stop script.
stop_command() {
  local service=$1 signal=$2
  case ${3-} in
    '') ;;
    --kill) signal=KILL ;;
    *) die "usage: $0 [--kill]" ;;
  esac
  lock_service "$service"
  end_process "$service" "$signal"
}

# wipe SERVICE: removes the data of a service that is not running.
wipe() {
  ! running "$1" || die "$1 is running"
  # Postgres's folder may be a link to a place that its user can reach.
  if [[ -L $local_dir/$1 ]]; then
    rm -rf "$(readlink "$local_dir/$1")"
  fi
  rm -rf "${local_dir:?}/$1"
}
