"""/tokenize and /detokenize: what the model's tokenizer makes of a text, of messages, of token ids."""

from headrace.core.limits import ModelLimits
from headrace.server.chat import templated_prompt
from headrace.server.forms import form_of
from headrace.server.http import Exchange
from headrace.server.protocol.tokens import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from headrace.server.sse import encode_json
from headrace.server.state import ServerState


async def tokenize(state: ServerState, exchange: Exchange) -> None:
    """Answer with the token ids of a text or of messages."""
    raw = await exchange.body()
    body = TokenizeChatRequest.parse(raw) if form_of(raw) == "messages" else TokenizeTextRequest.parse(raw)
    state.model_name(body.model)
    token_ids = await _token_ids(state, body)
    tokenizer = state.client.text.tokenizer
    answer = {
        "count": len(token_ids),
        "max_model_len": state.client.limits.max_model_len,
        "tokens": token_ids,
        "token_strs": [tokenizer.token_text(each) for each in token_ids] if body.return_token_strs else None,
    }
    await exchange.answer(encode_json(answer))


async def detokenize(state: ServerState, exchange: Exchange) -> None:
    """Answer with the text of token ids, special tokens included."""
    body = DetokenizeRequest.parse(await exchange.body())
    state.model_name(body.model)
    ready = state.client.limits
    ModelLimits(ready.max_model_len, ready.vocab_size).check_token_ids("tokens", body.tokens)
    decode, ids = state.client.text.tokenizer.decode, body.tokens
    text = await state.off_loop(len(ids), lambda: decode(ids, skip_special_tokens=False))
    await exchange.answer(encode_json({"prompt": text}))


async def _token_ids(state: ServerState, body: TokenizeTextRequest | TokenizeChatRequest) -> list[int]:
    if isinstance(body, TokenizeChatRequest):
        return (await templated_prompt(state, body)).token_ids
    tokenizer, text, special = state.client.text.tokenizer, body.prompt, body.add_special_tokens
    return await state.off_loop(len(text), lambda: tokenizer.encode(text, add_special_tokens=special))
