"""The demo of live moderation: `make demo-stream`."""
