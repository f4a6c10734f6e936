# Finds what a disk boots from: the root file system, and a kernel with its modules. Runs in the helper, with the disk as $1, which
# is only read. Prints lines NAME=VALUE; what it found stays mounted below /mnt.
set -u
disk=$1
modprobe -a xfs btrfs vfat 2>/dev/null
mkdir -p /mnt/root /mnt/boot /mnt/top

kind_of() { blkid -p -s TYPE -o value "$1" 2>/dev/null; }

# Mounts file system $1 of kind $2 on $3 with more options $4. A journal is not replayed: the disk can't be written.
mount_it() {
  case $2 in
    ext2 | ext3 | ext4) mount -t ext4 -o "ro,noload$4" "$1" "$3" ;;
    xfs) mount -t xfs -o "ro,norecovery,nouuid$4" "$1" "$3" ;;
    btrfs) mount -t btrfs -o "ro,rescue=nologreplay$4" "$1" "$3" || mount -t btrfs -o "ro$4" "$1" "$3" ;;
    vfat) mount -t vfat -o ro "$1" "$3" ;;
    *) return 1 ;;
  esac 2>/dev/null
}

here() { [ -e "$1" ] || [ -L "$1" ]; }
is_root() { here "$1/etc/os-release" || here "$1/usr/lib/os-release" || here "$1/sbin/init" || here "$1/bin/sh"; }

found() { # part kind flags
  case $2 in ext2 | ext3) kind=ext4 ;; *) kind=$2 ;; esac
  echo "part=${1#"$disk"}"
  echo "kind=$kind"
  echo "flags=$3"
}

seen=
parts=
for part in "$disk" "$disk"?*; do
  [ -b "$part" ] || continue
  kind=$(kind_of "$part")
  [ -n "$kind" ] || continue
  seen="$seen $kind"
  case $kind in
    ext2 | ext3 | ext4 | xfs | btrfs) ;;
    vfat) parts="$parts $part" && continue ;;
    *) continue ;;
  esac
  if [ -z "${root:-}" ] && mount_it "$part" "$kind" /mnt/root ""; then
    if is_root /mnt/root; then
      root=$part
      found "$part" "$kind" ""
      continue
    fi
    umount /mnt/root
  fi
  # A root below the top of a btrfs: where distributions put it, or anywhere just below the top.
  if [ -z "${root:-}" ] && [ "$kind" = btrfs ] && mount_it "$part" btrfs /mnt/top ,subvolid=5; then
    for top in /mnt/top/root /mnt/top/@ /mnt/top/@/.snapshots/1/snapshot /mnt/top/*; do
      if [ -d "$top" ] && is_root "$top"; then
        flags=subvol=${top#/mnt/top/}
        umount /mnt/top
        mount_it "$part" btrfs /mnt/root ",$flags" || exit 1
        root=$part
        found "$part" btrfs "$flags"
        break
      fi
    done
    mountpoint -q /mnt/top && umount /mnt/top
    [ "${root:-}" = "$part" ] && continue
  fi
  parts="$parts $part"
done
echo "seen=$(echo $seen)"
[ -n "${root:-}" ] || exit 0

kernels() {
  for kernel in "$@"; do
    [ -f "$kernel" ] && readlink -f "$kernel"
  done
}
in_boot() { kernels "$1"/vmlinuz* "$1"/*/*/linux "$1"/bzImage* "$1"/kernel-*; }

list=$(in_boot /mnt/root/boot; kernels /mnt/root/usr/lib/modules/*/vmlinuz /mnt/root/lib/modules/*/vmlinuz)
if [ -z "$list" ]; then
  # A /boot of its own.
  for part in $parts; do
    mount_it "$part" "$(kind_of "$part")" /mnt/boot "" || continue
    list=$(in_boot /mnt/boot; in_boot /mnt/boot/boot)
    [ -n "$list" ] && break
    umount /mnt/boot
  done
fi
echo "$list" | sort -uV | grep -E '^/mnt/(root|boot)/' | sed 's/^/kernel=/'
for directory in /mnt/root/lib/modules/* /mnt/root/usr/lib/modules/*; do
  [ -f "$directory/modules.dep" ] && readlink -f "$directory"
done | sort -uV | grep '^/mnt/root/' | sed 's/^/modules=/'
exit 0
