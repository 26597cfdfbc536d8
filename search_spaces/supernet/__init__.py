"""All networks of a space in one: pickers, mixed operations, the supernet and its costs."""
