#!/bin/sh
# $1 is "remove" or "upgrade" in a .deb, and how many will be left in an .rpm.
set -e
case "$1" in upgrade|1) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now openscope.service
