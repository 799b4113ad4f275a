"""The state file: everything that scitq remembers, in one SQLite file.

| module | what it does |
| --- | --- |
| connection | opens the file, checks what it is, gives out the writer and the readers |
| writer | the one writing thread of a process: group commit |
| migrate | from one schema version to the next, with a backup first |
| bell | tells other processes that something was committed |
| guard | refuses what would destroy the file: another SQLite or `open()` in this process |
| folders | refuses network and synchronised folders |
| lease | who drives the file |
| snapshot | backup of the live file |
| keep, sweeping | purge, daily backups, what nobody needs any more in the file and beside it |
| faults | which of our errors an SQLite error is |
| schema, and one module per family of tables | the content |

apsw is imported here and nowhere else in scitq.
"""
