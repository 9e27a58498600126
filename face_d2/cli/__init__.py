"""The command lines, one file a command: parse, call, print."""
