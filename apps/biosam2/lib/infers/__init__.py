"""MONAI Label's InferTasks: request, prompts, engine, file."""
