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
    token_ids = await _token_ids(state, exchange, body)
    tokenizer, max_model_len = state.client.text.tokenizer, state.client.limits.max_model_len

    def work() -> bytes:
        names = [tokenizer.token_text(each) for each in token_ids] if body.return_token_strs else None
        answer = {"count": len(token_ids), "max_model_len": max_model_len, "tokens": token_ids, "token_strs": names}
        return encode_json(answer)

    await exchange.answer(await state.off_loop(exchange, len(token_ids), work))


async def detokenize(state: ServerState, exchange: Exchange) -> None:
    """Answer with the text of token ids, special tokens included."""
    body = DetokenizeRequest.parse(await exchange.body())
    state.model_name(body.model)
    tokenizer, ready = state.client.text.tokenizer, state.client.limits
    limits = ModelLimits(ready.max_model_len, ready.vocab_size)

    def work() -> bytes:
        limits.check_token_ids("tokens", body.tokens)
        return encode_json({"prompt": tokenizer.decode(body.tokens, skip_special_tokens=False)})

    await exchange.answer(await state.off_loop(exchange, len(body.tokens), work))


async def _token_ids(
    state: ServerState, exchange: Exchange, body: TokenizeTextRequest | TokenizeChatRequest
) -> list[int]:
    if isinstance(body, TokenizeChatRequest):
        return (await templated_prompt(state, exchange, body)).token_ids
    tokenizer, text, special = state.client.text.tokenizer, body.prompt, body.add_special_tokens
    return await state.off_loop(exchange, len(text), lambda: tokenizer.encode(text, add_special_tokens=special))
