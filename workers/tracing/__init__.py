"""Traces: a span for each stage of a micro-batch, linked to the traces of its events. Off unless a setting says so."""
