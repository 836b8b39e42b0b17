"""Machine code: what is compiled through LLVM. The only floor that loads llvmlite, and only on first use."""
