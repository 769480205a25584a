"""The `guardline` command, one file for each group of commands."""
