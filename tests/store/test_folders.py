"""Where a state file may be: parsing of mount tables as they look on real machines, and names of synchronised folders."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from scitq.errors import UnsafeFolder
from scitq.store.connection import Store
from scitq.store.folders import mount_of, network_reason, refuse_unsafe, synced_reason
from tests.store.small import SMALL

TABLE = r"""
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 28 0:26 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw
60 28 259:4 / /data rw,noatime shared:30 - xfs /dev/sda1 rw,attr2,inode64
61 28 0:50 /@home /srv/btr rw,relatime shared:31 - btrfs /dev/sdb rw,space_cache=v2,subvol=/@home
90 28 0:61 / /home rw,relatime shared:50 - nfs4 filer.lab.org:/export/home rw,vers=4.2,hard,proto=tcp
91 90 259:5 / /home/me/local rw,relatime shared:51 - ext4 /dev/sdc1 rw
92 28 0:62 / /mnt/share\040one rw,relatime - cifs //server/share rw,vers=3.1.1
93 28 0:63 / /mnt/s rw,nosuid - fuse.sshfs me@host:/data rw,user_id=1000
94 28 0:64 / /mnt/bucket rw - fuse.rclone remote: rw
95 28 0:65 / /mnt/c rw,noatime - 9p drvfs rw,dirsync,aname=drvfs;path=C:\;uid=1000
96 28 0:66 / /mnt/host rw - virtiofs myfs rw
97 28 0:67 / /scratch rw,flock - lustre 10.0.0.1@o2ib:/scratch rw
98 28 0:68 / /gpfs rw - gpfs gpfs0 rw
99 28 8:17 / /mnt/usb rw - fuseblk /dev/sdd1 rw,user_id=0
100 28 0:70 / /var/lib/c rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
101 28 0:71 / /data/afs ro - afs none rw
102 28 259:9 / /stacked rw - ext4 /dev/sde1 rw
103 102 0:73 / /stacked rw - nfs server:/x rw
104 28 0:74 / /mnt/agent rw - fuse.portal portal rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "fine"),
    [
        ("/root/lab.scitq", "ext4", True),
        ("/dev/shm/lab.scitq", "tmpfs", True),
        ("/data/lab.scitq", "xfs", True),
        ("/database/lab.scitq", "ext4", True),
        ("/srv/btr/lab.scitq", "btrfs", True),
        ("/home/me/lab.scitq", "nfs4", False),
        ("/home/me/local/lab.scitq", "ext4", True),
        ("/home/me/localized/lab.scitq", "nfs4", False),
        ("/mnt/share one/lab.scitq", "cifs", False),
        ("/mnt/s/lab.scitq", "fuse.sshfs", False),
        ("/mnt/bucket/lab.scitq", "fuse.rclone", False),
        ("/mnt/c/Users/me/lab.scitq", "9p", False),
        ("/mnt/host/lab.scitq", "virtiofs", False),
        ("/scratch/me/lab.scitq", "lustre", False),
        ("/gpfs/me/lab.scitq", "gpfs", False),
        ("/mnt/usb/lab.scitq", "fuseblk", True),
        ("/var/lib/c/lab.scitq", "overlay", True),
        ("/data/afs/lab.scitq", "afs", False),
        ("/stacked/lab.scitq", "nfs", False),
        ("/mnt/agent/lab.scitq", "fuse.portal", False),
    ],
)
def test_network_and_sharing_file_systems_are_told_from_local_ones(path: str, kind: str, fine: bool) -> None:
    mount = mount_of(TABLE, PurePosixPath(path))
    assert mount is not None
    assert mount.kind == kind
    assert (network_reason(mount) is None) == fine


def test_the_reason_names_the_file_system_and_where_it_is() -> None:
    mount = mount_of(TABLE, PurePosixPath("/home/me/lab.scitq"))
    assert mount is not None
    reason = network_reason(mount)
    assert reason is not None and "nfs4 filer.lab.org:/export/home at /home" in reason
    windows = mount_of(TABLE, PurePosixPath("/mnt/c/lab.scitq"))
    assert windows is not None and "Windows drive" in str(network_reason(windows))


def test_garbage_in_the_mount_table_is_passed_over() -> None:
    assert mount_of("\n\nnonsense\n1 2 3 - \n", PurePosixPath("/x")) is None


@pytest.mark.parametrize(
    ("folder", "product"),
    [
        ("/home/me/Dropbox/lab", "Dropbox"),
        ("/home/me/Dropbox (Institute)", "Dropbox"),
        ("/home/me/OneDrive", "OneDrive"),
        ("/mnt/x/OneDrive - University/a", "OneDrive"),
        ("/home/me/Google Drive/b", "Google Drive"),
        ("/Users/me/Library/CloudStorage/GoogleDrive-me@lab.org/My Drive", "Google Drive"),
        ("/Users/me/Library/CloudStorage/Box-Box", "a cloud service"),
        ("/Users/me/Library/Mobile Documents/com~apple~CloudDocs/lab", "iCloud Drive"),
        ("/home/me/Nextcloud/lab", "Nextcloud"),
        ("/home/me/dropbox-api/lab", None),
        ("/home/me/work", None),
        ("/srv/cloudstorage/lab", None),
    ],
)
def test_synchronised_folders_are_known_by_name(folder: str, product: str | None) -> None:
    reason = synced_reason(PurePosixPath(folder))
    assert (product in reason) if product and reason else reason is product


@pytest.mark.parametrize(
    ("mark", "is_folder"), [(".dropbox", False), (".nextcloudsync.log", False), (".stfolder", True)]
)
def test_synchronised_folders_are_known_by_their_marks(tmp_path: Path, mark: str, is_folder: bool) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    if is_folder:
        (tmp_path / mark).mkdir()
    else:
        (tmp_path / mark).touch()
    with pytest.raises(UnsafeFolder, match="local disk"):
        refuse_unsafe(tmp_path / "a" / "b" / "lab.scitq")


def test_dropboxs_settings_in_a_home_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / ".dropbox").mkdir()
    refuse_unsafe(tmp_path / "lab.scitq")


def test_a_refused_folder_is_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "Dropbox"
    folder.mkdir()
    with pytest.raises(UnsafeFolder) as caught:
        Store.open(folder / "lab.scitq", SMALL)
    assert "Dropbox" in str(caught.value) and "local disk" in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_link_into_a_synchronised_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "Dropbox").mkdir()
    (tmp_path / "short").symlink_to(tmp_path / "Dropbox")
    with pytest.raises(UnsafeFolder):
        Store.open(tmp_path / "short" / "lab.scitq", SMALL)
