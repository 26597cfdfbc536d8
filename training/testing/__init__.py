"""What kinds of task are tried with."""
