"""The interactive shell: `scitq` at a terminal, `scitq shell` from a file or a pipe.

lines      what was typed becomes statements           session    the file that is open, and a statement that is run
python     lines that are Python                       programs   pipes, files, other programs
prompt     the line that is edited: keys, completion   colouring  its colours
toolbar    the line below it                           history    what was typed before
start      the command `scitq shell` itself            leaving    what becomes of the work
"""
