"""Sends a record with a header whose name is not UTF-8.

confluent-kafka accepts only text, so this calls its librdkafka directly. Producers in other languages can send such a
header.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_size_t, c_ssize_t, c_void_p
from pathlib import Path

import confluent_kafka

END, TOPIC, PARTITION, VALUE, COPY, HEADERS = 0, 1, 3, 4, 7, 10
"""The tags of rd_kafka_producev's arguments, as rdkafka.h numbers them; COPY is followed by RD_KAFKA_MSG_F_COPY."""


def send(bootstrap_servers: str, topic: str, value: bytes, name: bytes) -> None:
    """Produce `value` to partition 0 with one header called `name`, and wait until the broker has it."""
    (library,) = Path(confluent_kafka.__file__).parent.with_suffix(".libs").glob("librdkafka*.so*")
    kafka = ctypes.CDLL(str(library))
    for function in (kafka.rd_kafka_conf_new, kafka.rd_kafka_new, kafka.rd_kafka_headers_new):
        function.restype = c_void_p
    error = ctypes.create_string_buffer(512)
    conf = c_void_p(kafka.rd_kafka_conf_new())
    setting = (c_char_p(b"bootstrap.servers"), c_char_p(bootstrap_servers.encode()))
    assert kafka.rd_kafka_conf_set(conf, *setting, error, c_size_t(512)) == 0, error.value
    producer = c_void_p(kafka.rd_kafka_new(c_int(0), conf, error, c_size_t(512)))
    headers = c_void_p(kafka.rd_kafka_headers_new(c_size_t(1)))
    header = (c_char_p(name), c_ssize_t(len(name)), c_char_p(b"x"), c_ssize_t(1))
    assert kafka.rd_kafka_header_add(headers, *header) == 0
    refused = kafka.rd_kafka_producev(
        producer,
        *(c_int(TOPIC), c_char_p(topic.encode())),
        *(c_int(PARTITION), c_int(0)),
        *(c_int(VALUE), c_char_p(value), c_size_t(len(value))),
        *(c_int(COPY), c_int(2)),
        *(c_int(HEADERS), headers),
        c_int(END),
    )
    assert refused == 0, refused
    assert kafka.rd_kafka_flush(producer, c_int(10_000)) == 0
    kafka.rd_kafka_destroy(producer)
