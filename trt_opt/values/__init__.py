"""The nouns handed from stage to stage: frozen, validated when made, and written as JSON by one codec."""
