"""Results: outputs stream from a node's backend to the inbox of their origin."""
