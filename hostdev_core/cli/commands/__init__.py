"""The subcommands of `hostdev`, a module each, with a `run`.

Each makes one call of the API and shows what it answers. Words for several commands, and what reads the
command line, stand in hostdev_core.cli.
"""
