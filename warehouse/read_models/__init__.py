"""Read models: tables built from the log, and published as immutable generations.

=============== ====================================================================================================
module          holds
=============== ====================================================================================================
database        the DuckDB file of one generation: tables, checkpoint, dead letters
generations     publishing: build, publish, roll back, collect
increments      spans of commits, applied in one transaction each
rebuild         units of a rebuild, and seeds
live            the working database of a stream: heartbeat, indexes, publishing process
planning        which read models need a rebuild, and its cost
comparison      differences between tables, and the check before a cut-over
dead_letters    events that could not be applied
lag             distance between a checkpoint and the end of the log
=============== ====================================================================================================
"""
