"""The four best continuations of a prompt."""

from headrace import LLM, BeamSearchParams

with LLM() as llm:
    [output] = llm.beam_search("The best way to learn is", BeamSearchParams(beam_width=4, max_tokens=12))
    for beam in output.sequences:
        print(f"{beam.cum_logprob:.2f}  {beam.text!r}")
