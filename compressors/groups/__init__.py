"""Which rows and columns of a network's tensors can only be removed together (`groups`), and removing them."""
