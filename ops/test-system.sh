#!/bin/sh
# Installs what `make test-system` needs from the system: a second Redis implementation, a client
# that understands docker-compose.yml, promtool, systemd-analyze, and a browser. Needs root where
# something is missing.
set -eu
missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v docker-compose >/dev/null 2>&1 || docker compose version >/dev/null 2>&1 || missing="$missing docker-compose"
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || missing="$missing chromium"
command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null 2>&1 || {
  echo "Please install:$missing (there is no apt-get here)." >&2
  exit 2
}
[ "$(id -u)" = 0 ] || {
  echo "Please run as root once, or: sudo apt-get install$missing" >&2
  exit 2
}
export DEBIAN_FRONTEND=noninteractive
# Installing starts no service: tests start the server that they need. What forbids it may have
# been there before, and comes back whatever ends this script.
policy="${POLICY_FILE:-/usr/sbin/policy-rc.d}"
kept=""
restore() {
  rm -f "$policy"
  [ -z "$kept" ] || mv "$kept" "$policy"
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -e "$policy" ] || [ -L "$policy" ]; then
  kept="$policy.kept-by-segrelay"
  mv "$policy" "$kept"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod +x "$policy"
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
