#!/bin/sh
# Runs a command, and leaves nothing of what it started: guard.sh DIRECTORY PARENT COMMAND [ARGUMENT...]
#
# The command's TMPDIR is in DIRECTORY, and all that it starts inherits that, processes in sessions of their own
# too: by it they are found. The kernel sends SIGTERM when PARENT, which started this with
# `setpriv --pdeathsig TERM`, has ended in whatever way.

directory=$1
temporary=$directory/t
parent=$2
shift 2

# Processes that have the variable from their start. This shell has not, nor what it runs itself.
started() {
  grep -lzxF "TMPDIR=$temporary" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}

# Until there are none. What is killed may have started another meanwhile.
kill_all() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    pids=$(started)
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086 # one word each
    kill -KILL $pids 2>/dev/null
    sleep 0.1
  done
}

stop() {
  trap '' TERM INT HUP
  # Those that have something to put in order get some seconds for it.
  # shellcheck disable=SC2046 # one word each
  kill -TERM $(started) 2>/dev/null
  tries=30
  while [ "$tries" -gt 0 ] && [ -n "$(started)" ]; do
    tries=$((tries - 1))
    sleep 0.1
  done
  kill_all
  rm -rf "$directory"
  exit 143
}
trap stop TERM INT HUP

# It may have ended before the kernel was asked to tell.
[ "$PPID" = "$parent" ] || stop

mkdir -p "$temporary"
env "TMPDIR=$temporary" "$@" &
wait $!
status=$?
kill_all
exit "$status"
