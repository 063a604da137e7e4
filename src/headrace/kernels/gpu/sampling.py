"""Sampling of a step on the device, in two launches: greedy, or drawn with temperature, min_p, top_k and top_p.

Penalties and the log probabilities of the likeliest tokens are part of them, for the rows that ask.
"""

from torch import Tensor

from headrace.kernels.gpu.launch import Launch
from headrace.kernels.gpu.sampling_choice import sampling_choice_launch
from headrace.kernels.gpu.sampling_scores import sampling_scores_launch
from headrace.kernels.gpu.sampling_workspace import SampleWorkspace


def sample_launches(
    logits: Tensor,
    rows: Tensor,
    positions: Tensor,
    row_params: Tensor,
    seen: Tensor,
    tokens: Tensor,
    last_tokens: Tensor,
    workspace: SampleWorkspace,
) -> list[Launch]:
    """What samples one token a row, in order.

    `logits` [S, V] in bf16, fp16 or fp32, each row contiguous, no more of them than `workspace` was made for; `rows`
    and `positions` int32 [S]: the row id, negative for padding, which gets no token, and the position that the token
    will have; `row_params` int32 [num_rows, PARAM_FIELDS] as `RowParams` packs them; `seen` int16
    [num_rows, V]: how often a row with a penalty put each token out, plus IN_PROMPT if the prompt has it. Token i goes
    to `tokens` int32 [S] and, at its row, to `last_tokens` int32 [num_rows] and, with a penalty, to what it has seen.
    Its log probability and those of the likeliest tokens, of `logits` as they came, go to the workspace's
    `descriptions` if the row asks for them; equally likely ones in the order of their ids.

    A greedy row takes the largest logit, the first of equals. The others draw from what min_p, then top_k, then top_p
    of what top_k left, keep; tokens that equal the last one kept are kept. A row with NaN gets some token. A token
    depends on its own row's logits, parameters and position, on nothing else.
    """
    scores = sampling_scores_launch(logits, rows, positions, row_params, seen, workspace)
    choice = sampling_choice_launch(logits, rows, positions, row_params, seen, tokens, last_tokens, workspace)
    return [scores, choice]
