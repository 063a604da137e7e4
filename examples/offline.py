"""Complete a few prompts in this process."""

from headrace import LLM, SamplingParams

with LLM() as llm:  # no model named: the embedded SmolLM2-135M-Instruct
    params = SamplingParams(temperature=0.7, max_tokens=64, top_p=0.9)
    for output in llm.generate(["The capital of France is", "Once upon a time"], params):
        print(output.prompt, "->", output.outputs[0].text)
    [answer] = llm.chat([{"role": "user", "content": "What is a headrace?"}], params)
    print(answer.outputs[0].text)
