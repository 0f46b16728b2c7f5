# shellcheck shell=bash
# Progress and errors of the build, on standard error: a step's line ends with the seconds that it took.

step_started=''

# Usage: step WORDS…  Says what begins now; the step before it ends here.
step() {
  step_end
  printf '  %s … ' "$*" >&2
  step_started=$(date +%s%N)
}

# Ends the step that runs, if one does, with its time.
step_end() {
  [ -n "$step_started" ] || return 0
  local elapsed_ms=$((($(date +%s%N) - step_started) / 1000000))
  printf '%d.%d s\n' $((elapsed_ms / 1000)) $((elapsed_ms % 1000 / 100)) >&2
  step_started=''
}

# Usage: die WORDS…  Ends the program with a sentence that a person can act on.
die() {
  [ -z "$step_started" ] || printf '\n' >&2
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Usage: need COMMAND PACKAGE…  Each pair is a program and Debian's package that has it; names all that are missing.
need() {
  local missing=()
  while [ $# -gt 1 ]; do
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} -eq 0 ] || die "missing programs; install them with: apt-get install ${missing[*]}"
}
