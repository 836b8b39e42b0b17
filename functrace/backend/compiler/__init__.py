"""The compiler: jaxprs to machine code. `program` holds the way in; the passes stand in the order of its imports."""
