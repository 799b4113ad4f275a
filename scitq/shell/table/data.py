"""The rows of `scitq fetch`, which is `scitq-fetch` too. Light, as the table of all other commands is."""

from __future__ import annotations

from scitq.shell.table.codes import FETCH_CODES
from scitq.shell.table.rows import Argument, Command, Option

HELP = f"""Move data and look at it, from and to any address.

\b
Addresses:
  data/x.gz, /data, file:///data     files of this machine
  https://…, ftp://…                 (https@aria2:// : several connections at once)
  s3://bucket/x, azure://…, any://…  whatever `rclone config` has, by its name there
  …|gunzip  |untar  |unzip  |mv:sub  done with what arrives, from left to right
  run*/*.fastq.gz                    a pattern stands for what matches; quote it for the shell

\b
Exit codes:
{chr(10).join(f"  {code:>3}  {meaning}" for code, meaning in FETCH_CODES)}
"""

_URI = Argument("uri", metavar="URI", takes="uri")
_INCLUDE = Option(
    ("--include",),
    "Only files whose name matches: *.bam, /top/**, *.{fa,fq}; repeatable.",
    many=True,
    metavar="PATTERN",
)
_MD5 = Option(("--md5",), "With MD5: as the storage has it; read for it only here and over ftp.", "flag")
_YES = Option(("-y", "--yes"), "Do it without asking.", "flag")
_DRY = Option(("--dry-run", "--dryrun"), "Say what would be done; change nothing.", "flag", key="dry_run")
_PARALLEL = Option(("-p", "--process", "--parallel"), "Files at once; 4 if not given.", "whole", metavar="N")
_LIMITS = (
    _PARALLEL,
    Option(("--retry",), "Further tries of a transfer that breaks without getting on; 5 if not given.", "whole", metavar="N"),
    Option(("--stall-timeout",), "Give an attempt up after so long without a byte; 300 if not given.", "seconds", metavar="SECONDS"),
    Option(("--timeout",), "Give a file up after so long; never if not given.", "seconds", metavar="SECONDS"),
)  # fmt: skip
_SIZES = (
    Option(("--human",), "Sizes as 31.2 GB; so they are on a terminal.", "flag"),
    Option(("--bytes",), "Sizes in bytes; so they are elsewhere.", "flag"),
    Option(("-H", "--no-header"), "No headings.", "flag"),
)
_SHALLOW = Option(("--not-recursive",), "Not what lies in folders below.", "flag")

FETCH: tuple[Command, ...] = (
    Command(
        "fetch copy", "fetching:copy",
        """Copy a file, a folder's contents or what a pattern matches from SOURCE to DESTINATION, here if not given.

        Into DESTINATION if it is a folder or ends in a slash, else under that name. A transfer that was broken off is
        taken up where it was, where the protocol can; nothing unfinished is ever seen under its final name.""",
        (
            Argument("source", metavar="SOURCE", takes="uri"),
            Argument("destination", required=False, metavar="[DESTINATION]", takes="uri"), *_LIMITS,
            Option(("--no-overwrite",), "Fail rather than replace a file.", "flag"),
        ),
        file="none",
        examples=(
            "scitq fetch copy reads/s01.fastq copies/",
            "scitq fetch copy 'reads/*.fastq' copies/",
        ),
        schema="moved",
    ),
    Command(
        "fetch sync", "fetching:sync",
        "Make the folder DESTINATION hold what SOURCE does: only what differs travels. Deletes nothing without --delete.",
        (
            Argument("source", metavar="SOURCE", takes="uri"),
            Argument("destination", metavar="DESTINATION", takes="uri"), _INCLUDE, *_LIMITS,
            Option(("--delete",), "Delete at DESTINATION what SOURCE does not have. Asks first.", "flag"),
            _YES, _DRY,
        ),
        file="none",
        examples=(
            "scitq fetch sync reads copies",
            "scitq fetch sync reads copies --include '*.fastq' --dry-run",
        ),
        schema="synced",
    ),
    Command("fetch list", "fetching:listed", "What is there, in folders below too, by whole addresses.",
            (_URI, _SHALLOW, _MD5, *_SIZES), file="none",
            examples=("scitq fetch list reads",),
            schema="entries",
            aliases=("ls",)),
    Command("fetch rlist", "fetching:relative", "What is there, in folders below too, by names relative to it.",
            (_URI, _SHALLOW, _MD5, *_SIZES), file="none",
            examples=("scitq fetch rlist reads --md5",),
            schema="entries"),
    Command(
        "fetch nlist", "fetching:shallow", "What is there, not below, by whole addresses.", (_URI, _MD5, *_SIZES), file="none",
        examples=("scitq fetch nlist reads",), schema="entries",
    ),
    Command("fetch nrlist", "fetching:shallow_relative", "What is there, not below, by names relative to it.",
            (_URI, _MD5, *_SIZES), file="none",
            examples=("scitq fetch nrlist 'reads/*.fastq'",),
            schema="entries"),
    Command(
        "fetch info", "fetching:info", "What is known of one file or folder.", (_URI, _MD5), file="none",
        examples=("scitq fetch info reads/s01.fastq",), schema="entry",
    ),
    Command(
        "fetch delete", "fetching:delete", "Delete a file, or a folder with all that is in it. Asks first.",
        (_URI, _INCLUDE, _YES, _DRY), file="none",
        examples=(
            "scitq fetch delete reads/s01.fastq --yes",
            "scitq fetch delete reads --include '*.fastq' --dry-run",
        ),
        schema="deleted", aliases=("rm",),
    ),
    Command(
        "fetch ncdu", "sizes:ncdu",
        """What takes how much room, in the format of the program ncdu: to FILE, or to stdout.""",
        (
            _URI, Argument("target", required=False, metavar="[FILE]", takes="file"),
            Option(("--run",), "Look at it with ncdu, which is told to change nothing.", "flag"),
            Option(("--only-file",), "scitq 1's word for what is done without --run: to a file of its own.", "flag", hidden=True),
        ),
        file="none", examples=("scitq fetch ncdu reads sizes.ncdu",), schema="ncdu",
    ),
    Command(
        "fetch cat", "fetching:cat", "Write what the files say to stdout, after their actions: cat 's3://b/x.gz|gunzip'.",
        (Argument("uris", many=True, metavar="URI…", takes="uri"),), file="none",
        examples=("scitq fetch cat 'reads/s03.fastq.gz|gunzip'",), schema="contents",
    ),
)  # fmt: skip
