#!/bin/sh
# Removing leaves configuration, identity and log where they are. Purging takes
# the configuration; the identity and the log are what recipients and auditors
# hold on to, and only an operator throws them away.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ "$1" = purge ] || exit 0
rm -rf /etc/openscope
[ ! -d /var/lib/openscope ] || echo "the identity and the log are left in /var/lib/openscope"
