//! Text to tokens: tokenizers read, tokenizers trained.
