"""``refold serve``: commands and read models over HTTP; needs the extra ``refold[serve]``.

A request for a read model: guard -> route (``reading``) -> wait for its position (``waiting``) -> one query with others
of its kind (``asking``) -> the answer with position, lag and ETag. A command: guard -> route (``commanding``) -> the
command handler.
"""
