"""Control flow and custom rules: primitives whose parameters are programs."""
