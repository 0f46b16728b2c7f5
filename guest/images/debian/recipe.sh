# shellcheck shell=bash
# debian: Debian 12 with systemd, for what expects an ordinary machine.

# shellcheck disable=SC2034 # read by the build
{
  description='Debian 12 with OpenSSH and systemd'
  packages=(systemd systemd-sysv dbus openssh-server iproute2 iputils-ping procps kmod less apt curl
    ca-certificates)
  size_mib=1024
  filesystem_uuid=8d6b1f0e-5c53-4c5f-9a0b-0d0c6b3f5a02
  hash_seed=2f7b4d0a-91f0-4a57-8f0c-6a8f1f0e7c02
}

# What costs seconds or waits for hardware that a microVM does not have. The network is up before init is.
masked_units=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
  systemd-tmpfiles-clean.timer e2scrub_reap.service systemd-firstboot.service systemd-networkd-wait-online.service
  systemd-hwdb-update.service systemd-udev-settle.service systemd-binfmt.service systemd-machine-id-commit.service
  systemd-pstore.service systemd-modules-load.service systemd-sysusers.service systemd-remount-fs.service
  systemd-update-utmp.service systemd-update-utmp-runlevel.service modprobe@loop.service modprobe@dm_mod.service
  getty@tty1.service getty-static.service modprobe@configfs.service modprobe@drm.service
  modprobe@fuse.service modprobe@efi_pstore.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount
  sys-kernel-config.mount)
# The serial console is the operator's record; a getty on it would wait for a device that no udev announces.
masked_generators=(systemd-getty-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator
  systemd-cryptsetup-generator systemd-veritysetup-generator systemd-integritysetup-generator
  systemd-bless-boot-generator systemd-rc-local-generator systemd-sysv-generator)

# What is started when it is first asked for, over D-Bus, and not at each boot.
on_demand=(systemd-logind.service dbus.service)

# Usage: prepare_image TREE
prepare_image() {
  local tree=$1 unit generator wants=$1/etc/systemd/system/multi-user.target.wants
  for unit in "${masked_units[@]}"; do ln -sf /dev/null "$tree/etc/systemd/system/$unit"; done
  mkdir -p "$tree/etc/systemd/system-generators"
  for generator in "${masked_generators[@]}"; do
    ln -sf /dev/null "$tree/etc/systemd/system-generators/$generator"
  done
  ln -sf /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
  mkdir -p "$wants"
  for unit in "${on_demand[@]}"; do ln -sf /dev/null "$wants/$unit"; done
  ln -sf /lib/systemd/system/ssh.service "$wants/ssh.service"
}
