"""One small module per file format; each turns files into raw columns and knows nothing of cards, caches or options."""
