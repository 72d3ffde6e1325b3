"""Parts of the documents: each a function without arguments that makes Markdown of a result file."""
