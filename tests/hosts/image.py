"""What a host of these tests is made of: its disk over this machine's own system, its sshd, the steps of its boot."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.hosts.system import run

# Of this machine's root folder, what a host sees too; EMPTY: what it has of its own; all else is hidden from it.
_SHARED = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var", "opt"}
_EMPTY = ("root", "home", "srv", "mnt", "media", "tmp", "run", "proc", "sys", "dev", "var/tmp", "var/log",
          "var/lib/docker", "var/lib/containerd", "var/lib/containers")  # fmt: skip
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SSHD = """Port 22
HostKey /etc/ssh/host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
PidFile none
Subsystem sftp internal-sftp
"""

# In the machine's own namespaces: into the host's cgroups, then into namespaces of its own.
LAUNCH = r"""
for group in $CGROUPS; do echo $$ > "$group/cgroup.procs"; done
exec ip netns exec "$NETNS" unshare --mount --uts --ipc --pid --cgroup --fork --kill-child --propagation private \
    sh -ec "$BOOT"
"""

# The host's pid 1, up to where it becomes sshd.
BOOT = rf"""
mount -t overlay overlay -o "lowerdir=/,upperdir=$DISK/upper,workdir=$DISK/over" "$PLACE"
cd "$PLACE"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
if [ -n "$V1" ]; then
    for kind in $V1; do mkdir sys/fs/cgroup/$kind; mount -t cgroup -o $kind cgroup sys/fs/cgroup/$kind; done
    mkdir sys/fs/cgroup/systemd; mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mount -t tmpfs -o mode=755,size=1m tmpfs dev
for name in null zero full random urandom tty fuse; do
    if [ -e /dev/$name ]; then : > dev/$name; mount --bind /dev/$name dev/$name; fi
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o "mode=1777,size=$TMP_SIZE" tmpfs tmp
mkdir run/sshd run/lock run/old
mount --bind "$DISK/docker" var/lib/docker
cat /proc/sys/kernel/random/uuid > run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
hostname "$NAME"
pivot_root . run/old
exec chroot . /usr/bin/env -i PATH={_PATH} LOGIN="$LOGIN" sh -ec '
    umount -l /run/old; rmdir /run/old
    id "$LOGIN" > /dev/null 2>&1 || useradd -m -s /bin/bash -p "*" "$LOGIN"
    home=$(getent passwd "$LOGIN" | cut -d: -f6); HOME=$(getent passwd 0 | cut -d: -f6); export home HOME
    if [ ! -e "$home/.ssh/authorized_keys" ]; then
        mkdir -p "$home/.ssh"; cp /etc/ssh/authorized "$home/.ssh/authorized_keys"
        chmod 700 "$home" "$home/.ssh"; chown -R "$LOGIN": "$home/.ssh"
    fi
    if [ -x /etc/at-boot ]; then /etc/at-boot > /var/log/at-boot.log 2>&1; fi
    exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_host'
"""

# A command on the host's console, which does not go through its network.
CONSOLE = rf"""
for group in $1; do echo $$ > "$group/cgroup.procs"; done
exec nsenter -t "$2" -m -u -i -n -p -C -r -w /usr/bin/env -i PATH={_PATH} \
    sh -c 'HOME=$(getent passwd 0 | cut -d: -f6); export HOME; cd; eval "$1"' sh "$3"
"""


@dataclass(frozen=True)
class Keys:
    """What a cloud's machine gets before its first boot: its host key (a private one; '': its own), and who may log in."""

    host: str = ""
    users: tuple[str, ...] = ()


def give(disk: Path, keys: Keys) -> str:
    """Put them on a host's disk; its host key, as known_hosts has it, if it got one."""
    ssh = disk / "upper/etc/ssh"
    (ssh / "authorized").write_text("".join(f"{key}\n" for key in keys.users))
    if not keys.host:
        return ""
    (ssh / "host_key").write_text(keys.host)
    (ssh / "host_key").chmod(0o600)
    public = run("ssh-keygen", "-y", "-f", ssh / "host_key").stdout
    (ssh / "host_key.pub").write_text(public)
    return " ".join(public.split()[:2])


def fill(disk: Path, name: str, hosts: str, authorized: Path, sshd: str, at_boot: str) -> str:
    """What is on a host's disk before its first boot; its host key, as known_hosts has it."""
    upper = disk / "upper"
    for place in (upper, disk / "over", disk / "docker"):
        place.mkdir()
    for entry in Path("/").iterdir():
        if entry.name not in _SHARED and entry.name not in _EMPTY:
            os.mknod(upper / entry.name, 0o020000, os.makedev(0, 0))  # to an overlay: deleted
    for own in _EMPTY:
        (upper / own).mkdir(parents=True)
        os.setxattr(upper / own, "trusted.overlay.opaque", b"y")
    for own in ("tmp", "var/tmp"):
        (upper / own).chmod(0o1777)
    (upper / "root").chmod(0o700)
    ssh = upper / "etc/ssh"
    ssh.mkdir(parents=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", ssh / "host_key")
    (ssh / "sshd_host").write_text(sshd + _SSHD)  # of each option sshd takes the first that it reads
    shutil.copy(authorized, ssh / "authorized")
    (upper / "etc/hostname").write_text(f"{name}\n")
    (upper / "etc/hosts").write_text(hosts)
    (upper / "etc/resolv.conf").write_text("# no name server\n")
    if at_boot:
        (upper / "etc/at-boot").write_text(f"#!/bin/sh -e\n{at_boot}\n")
        (upper / "etc/at-boot").chmod(0o755)
    return " ".join((ssh / "host_key.pub").read_text().split()[:2])
