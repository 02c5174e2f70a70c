"""What several commands of the command line share: invocation, output, signals, settings of Beam."""
