"""`headrace run-batch`: OpenAI batch files."""
