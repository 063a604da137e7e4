"""/v1/continue, for gateways: an answer whose server was lost goes on where it was cut.

An internal route: clients have no use for it. It takes the fields of the original request, the token ids of its prompt
and of its answer so far (streams carry both with `return_token_ids`), and answers as the original route would have
gone on: text and tokens that follow, counts of the whole. Half a character and the beginning of a stop string, which
the cut stream held back, are held back here again.
"""

from headrace.server.chat import answer_chat
from headrace.server.completions import answer_completions
from headrace.server.forms import has_endpoint
from headrace.server.generation import Prompt, new_answer
from headrace.server.http import Exchange
from headrace.server.protocol.continuation import Continuation, ContinueChatRequest, ContinueCompletionRequest
from headrace.server.state import ServerState


async def continue_answer(state: ServerState, exchange: Exchange) -> None:
    """Answer with what follows, whole or as a stream; the answer's one choice has the index 0."""
    body = _parse(await exchange.body())
    body.seed = body.choice_seed(body.seed)
    if isinstance(body, ContinueChatRequest):
        answer = new_answer("chatcmpl", state.model_name(body.model), body.request_id)
        await answer_chat(state, exchange, body, answer, _prompt(body))
    else:
        answer = new_answer("cmpl", state.model_name(body.model), body.request_id)
        was_echoed, body.echo = bool(body.echo), False
        await answer_completions(state, exchange, body, answer, [_prompt(body, was_echoed=was_echoed)])


def _parse(raw: bytes) -> ContinueChatRequest | ContinueCompletionRequest:
    if has_endpoint(raw, "chat.completions"):
        return ContinueChatRequest.parse(raw)
    return ContinueCompletionRequest.parse(raw)  # which also says what is wrong with any other


def _prompt(body: Continuation, *, was_echoed: bool = False) -> Prompt:
    return Prompt(body.prompt_token_ids, None, body.output_token_ids, was_echoed)
