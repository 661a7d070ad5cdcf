"""Answers a file of prompts, line by line, and goes on where it was when it is started again."""
