"""What `worker add --install` brings to a host: a container engine, by the host's own package manager, and our rclone.

The first needs root rights there, or sudo without a password; the second does not. What is there already is left alone.
"""

from __future__ import annotations

import json
import secrets
import shlex
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from scitq.errors import HostUnfit
from scitq.remote.bootstrap import Talk, lines

INSTALL_S = 900.0
SEND_S = 900.0
_PIECE_BYTES = 1 << 20

# The installation itself goes on when the connection ends; the next one waits for it (DPkg::Lock::Timeout) and finds it done.
_ENGINE = r"""
say() {{
    text=$(printf %s "$2" | tr -dc 'A-Za-z0-9 .,:;()/_=+-' | cut -c 1-300)
    printf '\n%s {{"ok": %s, "text": "%s"}}\n' '{mark}' "$1" "$text"
    exit 0
}}
for name in docker podman apptainer singularity; do
    if command -v $name > /dev/null 2>&1; then say true "$name was there"; fi
done
sudo=
if [ "$(id -u)" != 0 ]; then
    sudo -n true > /dev/null 2>&1 || say false "installing needs root rights there, or sudo without a password"
    sudo='sudo -n'
fi
log=$(mktemp)
if command -v apt-get > /dev/null 2>&1; then
    work="apt-get -o DPkg::Lock::Timeout=300 update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends docker.io"
elif command -v dnf > /dev/null 2>&1; then work="dnf install -y -q podman"
elif command -v zypper > /dev/null 2>&1; then work="zypper -n -q install podman"
else say false "there is no package manager that scitq knows (apt-get, dnf, zypper); install docker or podman there"
fi
setsid $sudo sh -c "$work" > "$log" 2>&1 < /dev/null &
wait $! || say false "the installation failed: $(grep . "$log" | tail -n 1)"
rm -f "$log"
if command -v docker > /dev/null 2>&1; then
    $sudo systemctl enable --now docker > /dev/null 2>&1 || $sudo service docker start > /dev/null 2>&1
    [ -z "$sudo" ] || $sudo usermod -aG docker "$(id -un)" > /dev/null 2>&1
    say true "docker installed"
fi
say true "podman installed"
"""

_RECEIVER = """
import os, subprocess, sys, zlib
path, fresh = sys.argv[1], sys.argv[1] + ".%d" % os.getpid()
os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
unpack = zlib.decompressobj()
try:
    with open(fresh, "wb") as file:
        while not unpack.eof:
            piece = sys.stdin.buffer.read1(1 << 20)
            if not piece:
                sys.exit("it did not arrive whole")
            file.write(unpack.decompress(piece))
    os.chmod(fresh, 0o755)
    if subprocess.run([fresh, "version"], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        sys.exit("it does not run there")
    os.replace(fresh, path)
    fresh = None
finally:
    if fresh and os.path.exists(fresh):
        os.unlink(fresh)
print()
print("@scitq-received", flush=True)
"""


def engine(talk: Talk, host: str) -> str:
    """See that there is a container engine, with what is sent to a shell there; what was done.

    Raises:
        HostUnfit: it cannot be installed, and why.
    """
    mark = f"@scitq-{secrets.token_hex(8)}"
    talk.send(_ENGINE.format(mark=mark).encode())
    for line in lines(talk, host, INSTALL_S):
        word, _, rest = line.decode(errors="replace").strip().partition(" ")
        if word == mark:
            told = json.loads(rest)
            if told["ok"]:
                return str(told["text"])
            raise HostUnfit(f"{host}: {told['text']}.", host=host)
    raise HostUnfit(f"{host}: the installation of a container engine ended without a word.", host=host)


def receiver(python: str, path: str) -> str:
    """The command that receives a program there."""
    return shlex.join([python, "-I", "-S", "-c", _RECEIVER, path])


def send(talk: Talk, host: str, program: Path) -> None:
    """Send a program of this machine to the receiver.

    Raises:
        HostUnfit: it does not run there.
    """
    for piece in _packed(program):
        talk.send(piece)
    said: deque[str] = deque(maxlen=2)
    for line in lines(talk, host, SEND_S):
        if line.strip() == b"@scitq-received":
            return
        said.append(line.decode(errors="replace").strip())
    raise HostUnfit(f"{host}: {program.name} could not be put there: {' / '.join(said)}.", host=host)


def _packed(program: Path) -> Iterator[bytes]:
    pack = zlib.compressobj(1)
    with program.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield pack.compress(piece)
    yield pack.flush()
