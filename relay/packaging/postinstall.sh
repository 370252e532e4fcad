#!/bin/sh
# After a first installation nothing runs: the operator looks at relay.conf
# first. After an upgrade a relay that runs drains, and is started anew.
set -e
if [ -x /usr/bin/systemd-sysusers ]; then
	systemd-sysusers /usr/lib/sysusers.d/openscope-relay.conf
elif ! getent passwd openscope-relay >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/openscope-relay --shell /usr/sbin/nologin openscope-relay
fi
if [ -x /usr/bin/systemd-tmpfiles ]; then
	systemd-tmpfiles --create /usr/lib/tmpfiles.d/openscope-relay.conf
elif [ ! -d /var/lib/openscope-relay ]; then
	install -d -m 0700 -o openscope-relay -g openscope-relay /var/lib/openscope-relay
fi
[ -d /run/systemd/system ] || exit 0
[ ! -x /usr/lib/systemd/systemd-sysctl ] || /usr/lib/systemd/systemd-sysctl /usr/lib/sysctl.d/60-openscope-relay.conf || true
systemctl daemon-reload
systemctl try-restart openscope-relay.service
