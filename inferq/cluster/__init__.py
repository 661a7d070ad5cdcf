"""The state that nodes and producers of a topic share in Redis, and every step that changes it."""
