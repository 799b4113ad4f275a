"""How scitq reaches the machines that run tasks: links, the agent and its bundle, the local worker.

`agent/` is what travels: it imports the standard library and itself only. Nothing here reads or writes the state file.
"""
