"""Pictures, answers and questions to embeddings: frozen encoders."""
