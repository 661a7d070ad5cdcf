"""A demonstration: real prompts streamed live, synthetic load, and traces replayed."""
