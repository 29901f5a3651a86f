"""The service: the pipeline over HTTP for programs, and one page for people."""
