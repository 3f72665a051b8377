"""Instruction counts of the kernels under callgrind: exact where wall clocks vary by 20 %."""
