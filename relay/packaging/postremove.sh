#!/bin/sh
# Removing leaves the configuration, the certificate and the tokens. Purging
# takes them: daemons have to be told another pin and another token.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ "$1" = purge ] || exit 0
rm -rf /etc/openscope-relay /var/lib/openscope-relay
