"""What trainings do beyond the ordinary step: one file each. A recipe asks for one by a field of its own."""
