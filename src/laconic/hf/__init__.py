"""Models of Hugging Face transformers: those laconic adds to them, and slim ones in ordinary folders."""
