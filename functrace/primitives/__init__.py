"""The primitives, one file per family (a folder for the elementwise ones); every rule of a primitive stands with it."""
