"""A model answering over HTTP."""
