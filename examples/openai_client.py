"""Talk to `headrace serve` with the openai package (pip install openai). HEADRACE_URL names another server."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("HEADRACE_URL", "http://127.0.0.1:8000") + "/v1", api_key="unused")
model = client.models.list().data[0].id
stream = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "What is gravity?"}], max_tokens=100, temperature=0, stream=True
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
