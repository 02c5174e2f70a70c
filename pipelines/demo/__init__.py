"""The demo: the sample history of a domain, appended to a log."""
