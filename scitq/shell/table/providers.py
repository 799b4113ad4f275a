"""Rows about who rents machines."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option

PROVIDERS: tuple[Command, ...] = (
    Command(
        "provider list", "providers:listed", "The providers that your settings have.", file="none", reads=True,
        examples=("scitq provider list",), schema="providers", aliases=("ls",),
    ),
    Command(
        "provider check", "providers:check",
        """Ask providers whether they can be rented from: settings, credentials, rights. Exit code 1 if one cannot.

        Nothing is rented, and nothing is written.""",
        (Argument("names", many=True, required=False, metavar="NAME…", takes="provider"),), file="none", reads=True,
        examples=("scitq provider check", "scitq provider check rehearsal"), schema="providers-checked",
    ),
    Command(
        "provider add", "providers:add",
        """Write a provider into your settings. Machines of one may cost money: see --kind.

        Kinds: fake (a cloud for rehearsals, whose machines are processes here), local (this machine), ssh (hosts that several
        files share), and those of plug-ins. Credentials have places of their own, and are not taken here.""",
        (
            Argument("name", metavar="NAME"),
            Option(("--kind",), "Who it is.", metavar="KIND", takes="kind"),
            Option(("--host",), "Of kind ssh: a host, as ssh takes it; repeatable.", many=True, metavar="HOST", takes="host"),
            Option(("--set",), "A setting of it: market=spot, max_machines=4, prices.std-2=0.1; repeatable.", many=True,
                   metavar="KEY=VALUE", key="settings"),
        ),
        file="none",
        examples=("scitq provider add dream --kind fake --set max_machines=4",
                  "scitq provider add lab --kind ssh --host atlas --host barn"),
        schema="provider",
    ),
    Command(
        "provider remove", "providers:remove",
        """Take a provider out of your settings.

        What is rented from it stays so, and scitq cannot delete it while it is not there.""",
        (Argument("name", metavar="NAME", takes="provider"),), file="none",
        examples=("scitq provider remove rehearsal",), schema="provider", aliases=("rm",),
    ),
)  # fmt: skip
