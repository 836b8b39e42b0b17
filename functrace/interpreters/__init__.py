"""The interpreters: each file holds one trace and its program-to-program form, and knows no primitive by name."""
