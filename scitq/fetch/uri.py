"""The grammar of addresses: `proto[@option...]://path[|action...]`, and plain paths, which are the submitting machine's.

    s3://bucket/run 1/a.fastq.gz|gunzip          rclone remote `s3`; spaces and unicode stand for themselves
    https@aria2://host/genome.tar.gz|untar|mv:ref options are cumulative, actions run from left to right
    azure://c/run*/*.fastq.gz                    globs: * ? [..] within a segment, ** for any number of segments
    data/a||b.txt                                a bar that belongs to a name is written twice

In http, https and ftp addresses %XX means what it means in URLs; elsewhere a percent sign is a percent sign.
An address that exists under exactly that name is that file, whatever glob characters it has.

Pure: nothing here looks at a disk or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Union
from urllib.parse import quote, unquote

from scitq.fetch.errors import BadURI, EscapesFolder, Unsupported

PLAIN = ""  # the protocol of a plain path
URLS = ("http", "https", "ftp")
RUNS = ("run+fastq", "run+submitted")
OURS = (PLAIN, "file", *URLS, *RUNS)
OPTIONS = {
    "http": ("aria2",),
    "https": ("aria2",),
    "ftp": ("aria2",),
    "run+fastq": ("sra", "ftp", "aspera", "filter_r1"),
    "run+submitted": ("ftp", "aspera"),
}
ACTIONS = ("gunzip", "untar", "unzip", "mv")

_HEAD = re.compile(r"([^:/|@]*)((?:@[^:/|@]*)*)://(.*)", re.DOTALL)
# A remote's name may hold a space for rclone; not here, where it would be taken for two words.
_PROTO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_OPTION = re.compile(r"[a-z0-9_]+\Z")
_BAR = re.compile(r"\|\||\|")
_GLOB = re.compile(r"[*?\[]")
# `s3:bucket/x` and `http:/x` are slips of the pen far more often than files of that name.
_SLIP = re.compile(r"(?:https?|ftp|file|s3|azure|gs|gcs|run\+[a-z]+)(?:@\w+)*:(?!//)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ACCESSION = re.compile(r"[A-Z]{1,6}[0-9]+\Z")
_SECRET = re.compile(r"(?i)([?&;][^=&;]*(?:sig|token|key|secret|passw|credential)[^=&;]*=)[^&;]*")

TextOrPath = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True, order=True)
class Action:
    """What is done with what arrived."""

    name: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument.replace('|', '||')}" if self.name == "mv" else self.name


@dataclass(frozen=True, order=True)
class Address:
    """An address, taken apart and normalised. `path` is as the protocol wants it, `proto` is empty for a plain path."""

    proto: str
    options: tuple[str, ...]
    path: str
    actions: tuple[Action, ...] = ()

    def __str__(self) -> str:
        return "|".join([self.text, *map(str, self.actions)])

    @property
    def text(self) -> str:
        """The address without its actions."""
        path = self.path.replace("|", "||")
        if self.proto == PLAIN:
            return f"./{path}" if _is_misread(path) else path
        return "@".join([self.proto, *self.options]) + "://" + path

    @property
    def shown(self) -> str:
        """For messages: as written, without passwords and signatures."""
        return masked(str(self)) if self.proto in URLS else str(self)

    @property
    def is_local(self) -> bool:
        """Whether it names a file of the machine that looks at it."""
        return self.proto in (PLAIN, "file")

    @property
    def is_run(self) -> bool:
        """Whether a public archive has to be asked where the files are."""
        return self.proto in RUNS

    @property
    def remote(self) -> str | None:
        """The rclone remote, when that is what the protocol stands for."""
        return None if self.proto in OURS else self.proto

    @property
    def has_glob(self) -> bool:
        """Whether its path may be a pattern. In http a question mark begins the query: nothing lists there anyway."""
        return self.proto not in ("http", "https", *RUNS) and _GLOB.search(self.path) is not None

    @property
    def is_folder_like(self) -> bool:
        """Whether it ends in a slash or names a whole remote, so that only a folder can be meant."""
        return self.path.endswith("/") or (self.remote is not None and not self.path)

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path, without empty ones; of a URL: after the host, decoded, without the query."""
        path = self.path
        if self.proto in URLS:
            _, _, path = re.split(r"[?#]", path)[0].partition("/") if self.proto != "ftp" else path.partition("/")
            # A slash that came out of %2F would make another name of it.
            return tuple(part if "/" in (done := unquote(part)) else done for part in path.split("/") if part)
        return tuple(part for part in path.split("/") if part)

    @property
    def name(self) -> str:
        """The last segment: what a file from there is called here. Empty for a whole host, bucket list or root."""
        parts = self.segments
        return parts[-1] if parts and parts[-1] not in (".", "..") else ""

    @property
    def suffix(self) -> str:
        """The last ending of the name, with its dot."""
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> Address:
        """The folder that it is in; actions are dropped. The topmost is its own parent."""
        path = re.split(r"[?#]", self.path)[0] if self.proto in ("http", "https") else self.path
        head, slash, _ = path.rstrip("/").rpartition("/")
        if not slash:
            # A host or a bucket stays; a plain relative name lies in the current folder.
            head = "." if self.is_local else ("" if self.remote else path)
        elif not head:
            head = "/"
        return replace(self, path=head, actions=())

    def join(self, *parts: str) -> Address:
        """What lies below it; each part is taken literally, slashes separate."""
        path = self.path
        if self.proto in ("http", "https"):
            path = re.split(r"[?#]", path)[0]
        for part in parts:
            if "://" in part:
                raise BadURI(
                    f"{part}: a whole address cannot be joined to {self.shown}.", uri=self.shown, phase="parse"
                )
            pieces = [piece for piece in part.split("/") if piece not in ("", ".")]
            if ".." in pieces and not self.is_local:
                raise EscapesFolder(f"{part}: '..' leads out of {self.shown}.", uri=self.shown, phase="parse")
            if self.proto in URLS:
                pieces = [quote(piece, safe="!$&'()*+,;=:@~", errors="surrogatepass") for piece in pieces]
            below = "/".join(pieces) + ("/" if part.endswith("/") and pieces else "")
            if below:
                path = below if path in ("", ".") else f"{path.rstrip('/')}/{below}"
        return replace(self, path=path, actions=())

    def with_action(self, *actions: str) -> Address:
        """The same with these actions after its own."""
        return replace(self, actions=(*self.actions, *(_action(text, self.shown) for text in actions)))

    def with_option(self, *options: str) -> Address:
        """The same with these options too."""
        return replace(self, options=_options([*self.options, *options], self.proto, self.shown))

    @property
    def bare(self) -> Address:
        """The same without actions."""
        return replace(self, actions=())


def parse(text: TextOrPath | Address) -> Address:
    """Take an address apart; raises BadURI (or Unsupported, EscapesFolder) with what is wrong. A path object is literal."""
    if isinstance(text, Address):
        return text
    if not isinstance(text, str):
        return of_path(text)
    if not text:
        raise BadURI("An empty text is no address.", uri="", phase="parse")
    if "\0" in text:
        raise BadURI(f"{text!r}: an address holds no zero byte.", uri=text, phase="parse")
    head, *tail = _split(text)
    matched = _HEAD.match(head)
    shown = masked(head)
    if matched is None:
        if slip := _SLIP.match(head):
            meant = f"{slip.group()}//{head[slip.end() :].lstrip('/')}"
            raise BadURI(
                f"{shown}: write {masked(meant)} for the address, ./{shown} for a file of that name.",
                uri=shown,
                phase="parse",
            )
        options: list[str] = []
        proto, path = PLAIN, _plain(head)
    else:
        proto, named, path = matched.groups()
        if not _PROTO.match(proto):
            raise BadURI(
                f"{shown}: {proto!r} is no protocol: letters, digits and _ . + - only. An address is "
                "proto[@option]://path[|action].", uri=shown, phase="parse",
            )  # fmt: skip
        proto = proto.lower() if proto.lower() in OURS else proto
        options = named.split("@")[1:]
    address = Address(proto, _options(options, proto, shown), _path(proto, path, shown))
    return address.with_action(*tail) if tail else address


def masked(text: str) -> str:
    """Without the password and the signatures that a URL may hold."""
    return re.sub(r"(:/+[^/@:]*):[^/@]*@", r"\1:***@", _SECRET.sub(r"\1***", text))


def of_path(path: os.PathLike[str] | str) -> Address:
    """The address of a file of this machine: every character stands for itself."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise BadURI(f"{text!r} is no path.", uri=text, phase="parse")
    return Address(PLAIN, (), _plain(text))


def _is_misread(path: str) -> bool:
    return _SLIP.match(path) is not None or _HEAD.match(path) is not None


def _plain(path: str) -> str:
    slash = "/" if path.endswith(("/", "/.")) else ""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        return "/" + "/".join(parts) + (slash if parts else "")
    return ("/".join(parts) + slash) if parts else "."


def _path(proto: str, path: str, text: str) -> str:
    if proto in (PLAIN, "file"):
        if not path:
            raise BadURI(f"{text}: no path after file://.", uri=text, phase="parse")
        return _plain(path)
    if proto in RUNS:
        if not _ACCESSION.match(path):
            raise BadURI(f"{text}: {path!r} is no accession: capital letters, then digits.", uri=text, phase="parse")
        return path
    if proto in URLS:
        return _url(path, text)
    parts = path.split("/")
    if ".." in parts:
        raise EscapesFolder(f"{text}: '..' has no place in an address.", uri=text, phase="parse")
    whole = "/".join(part for part in parts if part not in ("", "."))
    return ("/" if path.startswith("/") else "") + whole + ("/" if path.endswith("/") and whole else "")


def _url(path: str, text: str) -> str:
    if _CONTROL.search(path):
        raise BadURI(f"{text!r}: a control character has no place in a URL.", uri=text, phase="parse")
    host = re.split(r"[/?#]", path)[0]
    name = host.rpartition("@")[2]
    if not re.match(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:[0-9]{1,5})?\Z", name):
        raise BadURI(f"{text}: {name!r} is no host name.", uri=text, phase="parse")
    if ".." in unquote(re.split(r"[?#]", path)[0]).split("/"):
        raise EscapesFolder(f"{text}: '..' has no place in an address.", uri=text, phase="parse")
    return path


def _options(options: Iterable[str], proto: str, text: str) -> tuple[str, ...]:
    kept: list[str] = []
    for option in options:
        known = OPTIONS.get(proto, ())
        if not _OPTION.match(option) or option not in known:
            can = f"it knows {', '.join(known)}" if known else "it knows none"
            raise BadURI(f"{text}: {proto or 'a plain path'} has no option {option!r}; {can}.", uri=text, phase="parse")
        if option not in kept:
            kept.append(option)
    return tuple(kept)


def _action(text: str, whole: str) -> Action:
    name, colon, argument = text.partition(":")
    if name not in ACTIONS or (colon and name != "mv"):
        raise BadURI(
            f"{whole}: there is no action {text!r}; there are gunzip, untar, unzip and mv:FOLDER. A bar that belongs to "
            "a name is written twice.", uri=whole, phase="parse",
        )  # fmt: skip
    if name != "mv":
        return Action(name)
    parts = argument.rstrip("/").split("/")
    if argument.startswith("/") or ".." in parts:
        raise EscapesFolder(f"{whole}: mv:{argument} leads out of the folder.", uri=whole, phase="parse")
    parts = [part for part in parts if part not in ("", ".")]
    if not parts:
        raise BadURI(f"{whole}: mv: needs the name of a folder.", uri=whole, phase="parse")
    return Action(name, "/".join(parts))


def _split(text: str) -> list[str]:
    """At single bars; two bars are one bar of the name. From left to right, so that a||| b is `a|`, then an action."""
    parts, begin = [""], 0
    for bar in _BAR.finditer(text):
        parts[-1] += text[begin : bar.start()]
        if bar.group() == "||":
            parts[-1] += "|"
        else:
            parts.append("")
        begin = bar.end()
    parts[-1] += text[begin:]
    return parts


def refuse_runs(address: Address, phase: str) -> None:
    """Public archives parse, and are fetched from stage 10 on."""
    if address.is_run:
        raise Unsupported(
            f"{address.shown}: {address.proto} comes with stage 10; until then give the files' own addresses.",
            uri=address.shown, phase=phase,
        )  # fmt: skip
