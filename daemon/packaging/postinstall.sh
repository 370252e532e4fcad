#!/bin/sh
# After a first installation nothing runs: `openscope init` comes first. After
# an upgrade a daemon that runs is started anew; its sessions end, and both
# sides are told.
set -e
if [ -x /usr/bin/systemd-sysusers ]; then
	systemd-sysusers /usr/lib/sysusers.d/openscope.conf
elif ! getent passwd openscope-net >/dev/null; then
	useradd --system --user-group --home-dir / --shell /usr/sbin/nologin openscope-net
fi
[ ! -x /usr/bin/systemd-tmpfiles ] || systemd-tmpfiles --create /usr/lib/tmpfiles.d/openscope.conf
mkdir -p -m 0755 /etc/openscope
[ -d /var/lib/openscope ] || mkdir -p -m 0700 /var/lib/openscope
[ -d /run/systemd/system ] || exit 0
[ ! -x /usr/lib/systemd/systemd-sysctl ] || /usr/lib/systemd/systemd-sysctl /usr/lib/sysctl.d/60-openscope.conf || true
systemctl daemon-reload
systemctl try-restart openscope.service
