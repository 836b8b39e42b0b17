"""Elementary functions of vectors, as LLVM IR: at most 2 ulp off, special values exact, no library underneath."""
