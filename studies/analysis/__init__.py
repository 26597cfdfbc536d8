"""What is read out of studies: best and front, costs, scores, predictions, verification."""
