"""A small real pipeline on real sequencing reads, to watch scitq work: `scitq demo`.

`pipeline` holds the steps, a plain program that knows nothing of scitq; `run` hands them to an engine; `data/` holds
the reads and says where they come from. Showing progress belongs to `scitq.shell`.
"""
