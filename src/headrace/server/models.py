"""/v1/models: what is served, under each of its names."""

from headrace.server.http import Exchange
from headrace.server.sse import encode_json
from headrace.server.state import ServerState

MODELS_PATH = "/v1/models"


async def list_models(state: ServerState, exchange: Exchange) -> None:
    """Answer with a card for each served name."""
    cards = [_card(state, name) for name in state.served_names]
    await exchange.answer(encode_json({"object": "list", "data": cards}))


async def show_model(state: ServerState, exchange: Exchange) -> None:
    """Answer with the card of the name in the path; names may hold slashes."""
    name = exchange.path.removeprefix(f"{MODELS_PATH}/")
    await exchange.answer(encode_json(_card(state, state.model_name(name))))


def _card(state: ServerState, name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "headrace",
        "root": state.root,
        "parent": None,
        "max_model_len": state.client.limits.max_model_len,
        "permission": [_permission(name, state.created)],
    }


def _permission(name: str, created: int) -> dict[str, object]:
    """OpenAI's old permission object, which some clients still read."""
    return {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
