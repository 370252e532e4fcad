package executor

import (
	"strconv"
	"time"
)

// remoteScript runs a command on the far side so that it dies with the
// connection. The server gives a command whose connection is lost no signal:
// it only closes the standard input. So the shell keeps that open, starts the
// command in a session of its own, and a watcher kills the session when the
// input ends. `timeout` around the command serves when the connection dies
// without the server's noticing.
//
// $1 is the limit in seconds, the rest the command. Where there is no setsid,
// the process group of timeout or of `set -m` takes its place; where there is
// none of the three, killing reaches the command alone, and with the
// connection everything in the server's session. POSIX only: no local, no
// pkill, no arrays; the functions change $@ for themselves alone.
//
// What opens a session of its own on the far side survives.
const remoteScript = `
set -f
limit=$1
shift
exec 3<&0 </dev/null
timeout -k 1 1 true 2>/dev/null && set -- timeout -k 2 "$limit" "$@"
if command -v setsid >/dev/null 2>&1; then
	set -- setsid "$@"
else
	set -m 2>/dev/null
fi
( exec "$@" 3<&- ) &
c=$!
exec >/dev/null 2>&1
sweep() {
	n=0
	set +f
	for f in /proc/[0-9]*; do
		read -r l <"$f/stat" || continue
		l=${l##*) }
		set -f
		set -- $l
		set +f
		if [ "$4" = "$c" ] && [ "$1" != Z ]; then
			kill -KILL "${f#/proc/}" && n=1
		fi
	done
	return $n
}
end() {
	kill -KILL "-$c" || kill -KILL "$c"
	for again in 1 2 3 4 5 6 7 8; do
		sweep && break
	done
}
( while read -r x; do :; done; end; kill -KILL "-$$" ) <&3 &
w=$!
exec 3<&-
wait "$c"
s=$?
kill -KILL "$w"
kill -KILL "-$c"
exit "$s"
`

// remoteMargin is how much later than the job's own timeout the far side's
// comes: the near one, which kills at once and says so, is to be first.
const remoteMargin = 2 * time.Second

// longestRemote bounds a remote command that has no timeout of its own: the
// longest that any session lasts.
const longestRemote = 30 * time.Minute

// remoteLine is the command line that the login shell of the far side reads.
// It replaces that shell by /bin/sh as soon as it has read the words.
func remoteLine(argv []string, timeout time.Duration) string {
	if timeout == 0 {
		timeout = longestRemote
	}
	seconds := int64((timeout + remoteMargin + time.Second - 1) / time.Second)
	words := append([]string{"/bin/sh", "-c", remoteScript, "openscope-call", strconv.FormatInt(seconds, 10)}, argv...)
	return "exec " + Quote(words)
}
