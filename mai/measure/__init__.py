"""What training, evaluation and verdict all measure with."""
