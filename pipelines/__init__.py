"""Apache Beam pipelines over the log, and the command line that runs them."""
