"""The commands of LFFD, one file each: parse, call, print."""
