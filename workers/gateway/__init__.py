"""The HTTP server before model servers, and the APIs of moderation."""
