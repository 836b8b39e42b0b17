"""The engine: types, programs, primitives and traces. Knows no primitive by name."""
