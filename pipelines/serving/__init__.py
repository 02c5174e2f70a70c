"""``refold serve``: the read models and the commands over HTTP. Imported only by what serves."""
