"""Records -> what a person or a program reads: a table, JSON, JSON Lines, CSV. Nothing here decides."""
