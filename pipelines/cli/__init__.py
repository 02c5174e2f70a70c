"""The subcommands of ``refold``: a module for each command or group of commands.

At the top these modules import only click and ``support``; what a command needs, its function imports. So ``refold
--help`` answers at once, and only commands that run Beam wait for its import.

A new command is a module here and its name in ``main.COMMANDS``.
"""
