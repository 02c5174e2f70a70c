"""Everything that is specific to Apache Beam's runners: their options, staged runs, and what a worker keeps."""
