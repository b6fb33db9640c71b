"""How the shipped weights of biosam2_mini are made: data, prompts, training and evaluation."""
