"""The subcommands of ``refold``, one module a command or group of commands.

Their modules import nothing but click at the top, and what a command needs inside its function: so ``refold --help``
answers at once, and only the commands that run Beam wait for its import.
"""
