"""The command line: `table` is the table of all commands, `cli` makes a program of it, `show` prints what they return.

The functions behind the rows live in `tasks`, `submitting`, `driving`, `looking` and `demo`; each is imported when its command is used.
"""
