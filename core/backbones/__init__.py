"""Pictures, answers and questions to embeddings: frozen encoders."""

from typing import Literal

Pooling = Literal["eos", "mean"]  # how a question's token states become its task embedding e
