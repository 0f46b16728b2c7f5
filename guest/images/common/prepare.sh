# shellcheck shell=bash
# What every image of ours has done to it after its packages and files are in place.

# Usage: prepare_common TREE
prepare_common() {
  local tree=$1

  # No identity: it comes with the seed. No trace of the host that built this.
  rm -f "$tree"/etc/ssh/ssh_host_* "$tree"/etc/{machine-id,hostname,resolv.conf} "$tree/var/lib/dbus/machine-id"
  rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb \
    "$tree"/var/cache/ldconfig "$tree"/var/cache/debconf/*-old "$tree"/var/log/* "$tree"/tmp/* "$tree"/run/*
  rm -f "$tree"/etc/apt/apt.conf.d/99mmdebstrap "$tree"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- \
    "$tree"/etc/.pwd.lock
  rm -f "$tree"/etc/apt/sources.list
  sed -i '/force-unsafe-io/d' "$tree/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
  ln -sf ../proc/self/mounts "$tree/etc/mtab"

  # Each login would run scripts for a message of the day, and look for mail that nothing here delivers.
  sed -i -e '/pam_motd\.so/d' -e '/pam_mail\.so/d' "$tree/etc/pam.d/sshd"
  cat >>"$tree/etc/pam.d/sshd" <<'PAM'

# Tells the webhook of this machine, if it has one, about the login. Never fails a login, never delays it.
session    optional     pam_exec.so quiet type=open_session /usr/lib/computer-host/login-webhook
PAM
  chmod 0700 "$tree/root"
  find "$tree/usr/lib/computer-host" -type f -exec chmod 0755 {} +
}
