# shellcheck shell=bash
# Debian bookworm's archive, apart from the packages of the host: an apt with lists of its own under the cache, so
# that the build works the same on a host with another release and installs nothing on it.
#
# Needs say.sh. Begin with debian_open.

debian_cache=''
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Prints the sources of bookworm, one line each: the mirror that this host uses if it is a bookworm itself,
# otherwise Debian's own.
debian_sources() {
  local lines=''
  # shellcheck disable=SC2016 # apt fills these in, not the shell
  lines=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' \
    'Created-By: Packages' 2>/dev/null |
    awk -v key="$debian_keyring" '$2 ~ /^bookworm(-updates|-security)?$/ && $3 == "main" && $4 == "Debian" {
      print "deb [arch=amd64 signed-by=" key "] " $1 " " $2 " main" }' | sort -u)
  if ! grep -q ' bookworm main$' <<<"$lines"; then
    lines="deb [arch=amd64 signed-by=$debian_keyring] http://deb.debian.org/debian bookworm main
deb [arch=amd64 signed-by=$debian_keyring] http://deb.debian.org/debian bookworm-updates main
deb [arch=amd64 signed-by=$debian_keyring] http://deb.debian.org/debian-security bookworm-security main"
  fi
  printf '%s\n' "$lines"
}

# Prints the host's settings for reaching an archive (proxies, time checks), as apt's configuration.
debian_transport() {
  apt-config dump | grep -E '^Acquire::(http|https|Check|Retries)' | grep -v '"";$' || true
}

# Usage: debian_open CACHE  Brings the private lists up to date; CACHE is the folder that is kept between builds.
debian_open() {
  [ -z "$debian_cache" ] || return 0
  debian_cache=$1
  local apt=$debian_cache/apt
  mkdir -p "$debian_cache/debs" "$apt/lists/partial" "$apt/archives/partial" "$apt/empty"
  debian_sources >"$apt/sources.list"
  : >"$apt/status"
  debian_apt apt-get update || die "cannot reach Debian's archive: $(head -n 1 "$apt/sources.list")"
}

# Usage: debian_apt PROGRAM ARGUMENT…  Runs apt-get or apt-cache on the private lists. Its settings are arguments,
# because files in the host's apt.conf.d would win over a configuration file of ours.
debian_apt() {
  local program=$1 apt=$debian_cache/apt
  shift
  LC_ALL=C "$program" -qq \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/empty" \
    -o Dir::Etc::trusted="$debian_keyring" \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$apt/empty" \
    -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
    -o Dir::Cache::archives="$apt/archives" \
    -o Dir::Cache::pkgcache="$apt/pkgcache.bin" -o Dir::Cache::srcpkgcache="$apt/srcpkgcache.bin" \
    "$@"
}

# Usage: debian_unpack FOLDER PACKAGE…  Unpacks the files of packages into a folder; installs nothing.
debian_unpack() {
  local folder=$1 files file
  shift
  files=$(debian_apt apt-get --print-uris download "$@" | awk '{ print $2 }') ||
    die "Debian's archive does not have all of: $*"
  for file in $files; do
    if [ ! -e "$debian_cache/debs/$file" ]; then
      (cd "$debian_cache/debs" && debian_apt apt-get download "$@") || die "cannot download $*"
      break
    fi
  done
  for file in $files; do
    dpkg-deb -x "$debian_cache/debs/$file" "$folder" || die "cannot unpack $file"
  done
}

# Usage: debian_version PACKAGE  Prints the version that the archive offers now.
debian_version() {
  debian_apt apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }'
}

# Usage: debian_depends PACKAGE PATTERN  Prints the first package matching PATTERN that PACKAGE depends on.
debian_depends() {
  debian_apt apt-cache depends --no-recommends --no-suggests "$1" |
    awk -v pattern="$2" '$1 == "Depends:" && $2 ~ pattern { print $2; exit }'
}
