"""Judges an answer while it is written: what the streams worker and the gateway share."""
