#!/usr/bin/env bash
# Usage: wire/model/run.sh [PROVERIF]
#
# Makes a file of handshake.pv.in for every scenario, runs ProVerif 2.05 on it,
# and compares what it says with the scenario's expectation. Needs proverif and
# cpp; takes minutes a scenario.
set -euo pipefail
cd "$(dirname "$0")"
proverif=${1:-proverif}
command -v "$proverif" cpp >/dev/null || { echo "proverif and cpp are needed: see wire/model/README.md" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
while read -r name defines expected; do
	case $name in '' | '#'*) continue ;; esac
	flags=()
	if [ "$defines" != - ]; then
		IFS=, read -ra names <<<"$defines"
		flags=("${names[@]/#/-D}")
	fi
	cpp -P -traditional-cpp "${flags[@]}" handshake.pv.in >"$work/$name.pv"
	"$proverif" "$work/$name.pv" >"$work/$name.out" || true
	# The first two results are that the end can be reached at all.
	got=$(grep -E '^RESULT' "$work/$name.out" | grep -oE '(is true|is false|cannot be proved)\.?$' | sed -E 's/is //; s/\.$//' | tail -n +3 | xargs || true)
	reached=$(grep -cE '^RESULT not event\(Reach.* is false' "$work/$name.out" || true)
	if [ "$got" = "$expected" ] && [ "$reached" = 2 ]; then
		echo "as expected  $name: $got"
	else
		echo "OTHERWISE    $name: $got (expected $expected; $reached of 2 ends reached)"
		bad=1
	fi
done <scenarios
exit $bad
