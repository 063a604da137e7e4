"""The buckets of the histograms: upper ends, inclusive. vLLM's are all among them, so that its dashboards fit."""

LATENCY_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0,
    60.0, 120.0, 240.0, 480.0, 960.0, 1_920.0, 7_680.0,
)  # fmt: skip
"""vLLM's buckets for whole requests and their phases, and below them those that a small model's fall into."""

FINE_SECONDS = (0.0005, 0.001, 0.002, 0.005)
"""What a small model's tokens take: below the first of vLLM's buckets for the time between tokens."""

FIRST_TOKEN_SECONDS = (
    *FINE_SECONDS, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2_560.0,
)  # fmt: skip
"""vLLM's for the time to the first token, with finer ones."""

TOKEN_SECONDS = (
    *FINE_SECONDS, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
"""vLLM's for the time between tokens, with finer ones."""

REQUEST_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
"""Tokens of one request: 1, 2, 5, 10, ... 500,000."""

STEP_TOKENS = (1.0, *(float(2**power) for power in range(3, 15)))
"""Tokens of one step: 1, 8, 16, ... 16,384."""

CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0)
PREEMPTIONS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
