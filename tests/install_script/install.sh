#!/bin/sh
# Installs greeter, a service that greets whoever asks on its socket, from a release archive. Running it again upgrades.
#
#     install.sh ARCHIVE
set -eu

say() {
  printf 'greeter: %s\n' "$*"
}

fail() {
  code=$1
  shift
  say "$*" >&2
  exit "$code"
}

[ $# -eq 1 ] || fail 64 'usage: install.sh ARCHIVE'
[ "$(id -u)" -eq 0 ] || fail 77 'only root can install this'
archive=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Nothing of the system is touched before the archive has proven whole.
tar -xf "$archive" -C "$work" --no-same-owner 2>/dev/null ||
  fail 65 "$archive is damaged or no archive; nothing was changed"
for file in greeter greeter.conf greeter.socket greeter@.service; do
  [ -f "$work/greeter/$file" ] || fail 65 "$archive lacks $file; nothing was changed"
done

if id greeter >/dev/null 2>&1; then
  say 'kept the user greeter'
else
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin greeter
  say 'made the user greeter'
fi

install -D -m 755 "$work/greeter/greeter" /usr/local/lib/greeter/greeter
install -D -m 644 -t /etc/systemd/system "$work/greeter/greeter.socket" "$work/greeter/greeter@.service"
say 'installed the program and its units'

# What an administrator has written stays.
if [ -e /etc/greeter.conf ]; then
  say 'kept /etc/greeter.conf'
else
  install -m 640 -g greeter "$work/greeter/greeter.conf" /etc/greeter.conf
  say 'installed /etc/greeter.conf'
fi

# One reload for both the new units and their being enabled.
systemctl --quiet --no-reload enable greeter.socket
systemctl daemon-reload
systemctl restart greeter.socket
say 'listens on /run/greeter.socket, now and after every boot'
