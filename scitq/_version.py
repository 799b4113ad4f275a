"""The version, in the one place it is written: packaging, `--version` and the state file read it from here."""

VERSION = "2.0.0.dev1"
