"""A page of a database that is looked at in a browser while searches run: it reads, and writes nothing."""
