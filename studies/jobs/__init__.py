"""What is done with an architecture that a study found: a training, an export."""
