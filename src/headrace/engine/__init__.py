"""The engine: scheduler, KV cache, sampler, step loop, and the ways to use them from Python."""

import os

# OpenMP reads this when torch loads it. Threads that spin while they wait cost a shared machine most of its speed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
