"""Why a record has no verdict, as the headers of dead letters and the metrics name it."""

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """Why a record is a dead letter."""

    TOMBSTONE = "tombstone"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    INVALID_UNICODE = "invalid_unicode"
    TOO_DEEP = "too_deep"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    EMPTY_TEXT = "empty_text"
    INVALID_FIELD = "invalid_field"
    INVALID_HEADERS = "invalid_headers"
    NOT_READABLE = "not_readable"
    OUTPUT_TOO_LARGE = "output_too_large"
