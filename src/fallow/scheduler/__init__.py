"""Decisions without I/O: events in, effects out. No sockets, no files, no clock, no randomness."""
