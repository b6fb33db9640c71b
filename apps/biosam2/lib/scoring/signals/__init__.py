"""What the network's own outputs say about an image: signals, prompts without a person, scores."""
