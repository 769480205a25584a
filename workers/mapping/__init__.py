"""Any JSON becomes events: a document says where each field of an event stands in a record. Pure."""
