"""``refold serve``: commands and read models over HTTP.

A read: guard -> ``read_routes`` -> ``position_wait`` -> ``query_batcher`` (similar queries become one SQL statement) ->
response with position, lag and ETag. A command: guard -> ``command_routes`` -> the command handler.
"""
