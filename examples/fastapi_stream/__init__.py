"""A web service that streams answers, ends what nobody reads, and says what is wrong."""
