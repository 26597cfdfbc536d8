"""A network as one file of Python that needs PyTorch alone (`module`), or else as the file of its space (`by_space`).

The classes are read off the network itself, so a new space gets this for nothing: `blocks` says what is written from
where, and which two hints a layer may give.
"""
