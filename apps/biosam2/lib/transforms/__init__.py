"""Arrays in, arrays out: windowing, frames, components, orientation."""
