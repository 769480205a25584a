"""Turns any JSON into events: a document says where each field of an event is in a record. Pure."""
